"""The one place where rules, locks and store meet: create, write, status, finish, cancel, sweep."""

from .appends import AppendUploads, NewUpload, Piece, Position
from .chunks import ChunkUploads
from .upload import Upload
from .uploads import Allow, Event, Operation, log


class UploadService(ChunkUploads, AppendUploads):
    """The operations on uploads, the same for every protocol."""


__all__ = ["Allow", "Event", "NewUpload", "Operation", "Piece", "Position", "Upload", "UploadService", "log"]
