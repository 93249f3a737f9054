"""What the package offers: a name that comes or goes is a change for every host."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

import upload_helper as uh
from servers import PLUGIN
from upload_helper import errors
from upload_helper.transfer import errors as transfer_errors

ERRORS = {
    "AnswerError", "BodyCutError", "BodyStalledError", "CertificateError", "ChecksumMismatchError",
    "ChunkConflictError", "ContentError", "DigestMismatchError", "Error", "FileChangedError", "FinishedError",
    "ForbiddenError", "HandlerError", "HttpHandlerError", "IncompleteError", "InvalidHandlersError",
    "InvalidRequestError", "InvalidTaskError", "InvalidTransferError", "LedgerBusyError", "LedgerError",
    "LedgerVersionError", "LengthMismatchError", "LengthRequiredError", "LinkError", "MethodNotAllowedError",
    "NoJobError", "NotFoundError", "OffsetMismatchError", "PageError", "ProtocolError", "SourceError",
    "SqlHandlerError", "StalledError", "StorageError", "StorageFullError", "SupersededError", "TargetBusyError",
    "TargetError", "TargetExistsError", "TargetFullError", "TooLargeError", "TooManyUploadsError", "TransferError",
    "UnknownNameError", "UnknownTaskError", "UnsupportedTypeError", "UnsupportedVersionError", "UploadGoneError",
    "WorkError",
}  # fmt: skip
EXPORTED = ERRORS | {
    "Access", "Actions", "ChunkRequest", "ChunkResponse", "StatusRequest", "StatusResponse", "Upload", "UploadHelper",
    "__version__", "current_helper", "upload_created", "upload_deleted", "upload_finished",
}  # fmt: skip


def test_list_of_exported_names():
    assert set(uh.__all__) == EXPORTED
    assert list(uh.__all__) == sorted(uh.__all__)


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_exported_name_is_there(name):
    assert hasattr(uh, name)


def test_names_that_there_are_not_are_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        uh.Nothing  # noqa: B018
    assert set(dir(uh)) >= EXPORTED


@pytest.mark.parametrize(
    "module", ["upload_helper.transfer.upload", "upload_helper.transfer.download", "upload_helper.cli"]
)
def test_clients_do_not_wait_for_flask(module):
    script = f"import sys, {module}; print(*{{'flask', 'werkzeug', 'sqlalchemy', 'rich'}} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_every_error_is_exported():
    everything = {**vars(errors), **vars(transfer_errors)}
    found = {name for name, value in everything.items() if inspect.isclass(value) and issubclass(value, errors.Error)}
    assert found == ERRORS


def test_every_error_has_a_code_and_a_remedy_of_its_own():
    tree = [getattr(uh, name) for name in ERRORS - {"Error"}]
    assert all(issubclass(error, uh.Error) for error in tree)
    assert len({error.code for error in tree}) == len(tree)
    assert all(error.remedy for error in tree)
    assert all(400 <= error.status < 600 for error in tree)


def test_no_module_of_the_package_hides_behind_an_exported_name():
    assert not [name for name in EXPORTED if inspect.ismodule(getattr(uh, name))]


def test_wildcard_import_gives_exactly_these():
    names: dict[str, object] = {}
    exec("from upload_helper import *", names)
    assert set(names) - {"__builtins__"} == EXPORTED
