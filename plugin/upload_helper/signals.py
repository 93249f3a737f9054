"""What a host can listen to. The sender is the Flask application, ``upload`` the Upload; see blinker."""

from blinker import Namespace

_namespace = Namespace()

upload_created = _namespace.signal("upload-created")
"""An upload was created; its ``path`` is not there yet."""

upload_finished = _namespace.signal("upload-finished")
"""The last byte is in place and safe: at most once per upload, and not if the process dies right then."""

upload_deleted = _namespace.signal("upload-deleted")
"""An upload was cancelled, deleted or swept; a finished one that was moved away is not reported."""
