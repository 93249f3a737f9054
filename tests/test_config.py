"""The settings: read once with one prefix, checked, and an error that says which key, which value and what is expected."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import upload_helper as uh
from chunks import fetch, send, upload
from hostile import refusal
from upload_helper.config import PREFIX, Config, Durability

DATA = bytes(range(200))
FOLDER = Path("/nowhere/uploads")


def read(**settings: Any) -> Config:
    mapping = {PREFIX + name.upper(): value for name, value in settings.items()}
    return Config.from_mapping(mapping, folder=FOLDER)


def name_of(value: object) -> str:
    """Return the name of a case, the same one in every process: sets have no order."""
    return ascii(sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)[:30]


INTEGERS = ["max_file_size", "max_chunk_size", "max_chunks", "max_request_size", "max_open_uploads", "max_owner_bytes",
            "min_free_space"]  # fmt: skip
DURATIONS = ["expiry", "sweep_interval", "body_timeout"]
ORIGINS = ["trusted_origins", "cors_origins"]
COLLECTIONS = ["allowed_extensions", *ORIGINS]


def test_every_setting_is_in_one_of_these_tables():
    assert {field.name for field in dataclasses.fields(Config)} == {
        *INTEGERS,
        *DURATIONS,
        *COLLECTIONS,
        "folder",
        "durability",
        "splice_from",
        "base_template",
        "accel_redirect",
    }


def test_defaults_are_sane():
    config = read()
    assert config == Config(folder=FOLDER)
    assert config.max_chunk_size < config.max_file_size <= config.max_owner_bytes
    assert config.durability is Durability.FINISH
    assert config.min_free_space > 0
    assert timedelta(0) < config.sweep_interval < config.expiry


BAD = [
    *((name, value, "integer") for name in INTEGERS for value in ("10", 1.5, True, None, [], -1, "10 MB", 1e9, math.inf)),
    *((name, 0, "integer") for name in ("max_chunk_size", "max_chunks", "max_request_size")),
    *((name, value, "seconds") for name in DURATIONS
      for value in ("10", True, None, [], -1, -0.5, timedelta(-1), math.inf, math.nan, 1e300, "7 days")),
    *((name, value, "list of strings") for name in COLLECTIONS for value in ("tif", b"tif", 5, None, [5], [None], True, 1.5)),
    ("allowed_extensions", ["tar.gz"], "extension"), ("allowed_extensions", ["*.tif"], "extension"),
    ("allowed_extensions", ["a/b"], "extension"), ("allowed_extensions", ["."], "extension"),
    *((name, [value], "origin") for name in ORIGINS for value in (
        "maps.example.org", "https://maps.example.org/", "https://maps.example.org/path", "*", "", "null", "https://",
        "https://*.example.org", "https://maps.example.org?x", "https://anna@maps.example.org", " https://maps.example.org",
    )),
    *(("base_template", value, "template") for value in ("", None, 5, b"base.html")),
    *(("accel_redirect", value, "slash") for value in (
        None, True, 5, b"/x/", ["/x/"], "x", "/", "//", "x/", "/x", "https://x/", "/x//", "/x/../y/", "/../", "/./", "/x y/", "/x?/",
        "/x#/", "/%2e%2e/", "/x\r\nX-Evil: 1/", "/x/\n", "/\u00fc/",
    )),
    *(("durability", value, "finish") for value in ("", "always", None, True, 1, "Finish", ["finish"])),
    *(("folder", value, "path") for value in ("", None, 5, True, b"/tmp", ["x"], "a\x00b")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), BAD, ids=name_of)
def test_wrong_value_is_refused_and_named_with_what_is_expected(name, value, expected):
    with pytest.raises(ValueError, match=expected) as refused:
        read(**{name: value})
    assert str(refused.value).startswith(f"UPLOAD_HELPER_{name.upper()} = {value!r}: ")


GOOD = [
    ("max_file_size", 0, 0), ("max_open_uploads", 0, 0), ("max_chunks", 1, 1), ("max_owner_bytes", 2**70, 2**70),
    ("expiry", 0, timedelta(0)), ("expiry", 1.5, timedelta(seconds=1.5)), ("expiry", timedelta(hours=1), timedelta(hours=1)),
    ("body_timeout", 0, timedelta(0)), ("durability", "chunk", Durability.CHUNK), ("durability", Durability.NONE, Durability.NONE),
    ("allowed_extensions", [".TIF", "Shp"], {"tif", "shp"}), ("allowed_extensions", (), frozenset()),
    ("allowed_extensions", {"tif": 1}, {"tif"}), ("allowed_extensions", ["tif", "TIF"], {"tif"}),
    ("trusted_origins", ["https://maps.example.org"], {"https://maps.example.org"}),
    ("trusted_origins", ["https://maps.example.org:8443", "http://[::1]:5000"], {"https://maps.example.org:8443", "http://[::1]:5000"}),
    ("cors_origins", ["https://maps.example.org"], {"https://maps.example.org"}), ("cors_origins", [], frozenset()),
    ("cors_origins", ["https://Maps.Example.ORG"], {"https://maps.example.org"}),
    ("cors_origins", ["https://a.example:443", "http://b.example:80"], {"https://a.example", "http://b.example"}),
    ("cors_origins", ["https://a.example:80", "http://b.example:443", "http://[::443]"], {"https://a.example:80", "http://b.example:443", "http://[::443]"}),
    ("base_template", "base.html", "base.html"),
    ("accel_redirect", "", ""), ("accel_redirect", "/x/", "/x/"), ("accel_redirect", "/_internal/a.b-c~d/", "/_internal/a.b-c~d/"),
    ("folder", "/data/x", Path("/data/x")), ("folder", Path("/data/x"), Path("/data/x")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), GOOD, ids=name_of)
def test_right_value_is_read(name, value, expected):
    assert getattr(read(**{name: value}), name) == expected


def test_relative_folder_is_made_absolute_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(folder="x").folder == tmp_path / "x"


@pytest.mark.parametrize(
    "key", ["UPLOAD_HELPER_MAX_SIZE", "UPLOAD_HELPER_", "UPLOAD_HELPER_max_file_size", "UPLOAD_HELPER_FOLDER_"]
)
def test_key_that_does_not_exist_is_refused_with_those_that_do(key):
    with pytest.raises(ValueError, match="not a setting") as refused:
        Config.from_mapping({key: 1}, folder=FOLDER)
    assert str(refused.value).startswith(f"{key} ")
    assert "UPLOAD_HELPER_MAX_FILE_SIZE" in str(refused.value)


@pytest.mark.parametrize(
    "key", ["MAX_FILE_SIZE", "UPLOADHELPER_FOLDER", "XUPLOAD_HELPER_X", "upload_helper_x", "SECRET_KEY"]
)
def test_keys_of_others_are_left_alone(key):
    assert Config.from_mapping({key: object()}, folder=FOLDER) == Config(folder=FOLDER)


def test_settings_do_not_change_after_they_were_read(make_host):
    app = make_host(max_file_size=1000)
    app.config["UPLOAD_HELPER_MAX_FILE_SIZE"] = 1
    assert send(app.test_client(), DATA, 100, 0).status_code == 200
    with pytest.raises(dataclasses.FrozenInstanceError):
        app.extensions["upload_helper"].config.max_file_size = 1


def test_application_with_a_wrong_setting_does_not_start(make_host):
    with pytest.raises(ValueError, match="UPLOAD_HELPER_MAX_CHUNKS = '5'"):
        make_host(max_chunks="5")


def test_folder_is_in_the_instance_folder_unless_configured(tmp_path):
    app = Flask("host", instance_path=str(tmp_path / "instance"))
    app.config["UPLOAD_HELPER_MIN_FREE_SPACE"] = 0
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    app.register_blueprint(helper.blueprint())
    assert not (tmp_path / "instance").exists()
    uid = upload(app.test_client(), DATA, 100)
    assert (tmp_path / "instance" / "uploads" / uid).is_dir()


def test_second_helper_on_one_application_is_refused_with_the_remedy(make_host):
    app = make_host()
    with pytest.raises(RuntimeError, match="current_helper"):
        uh.UploadHelper(app)


def test_applications_of_one_helper_have_their_own_settings_and_folders(tmp_path):
    helper = uh.UploadHelper(authorize=lambda access: True)
    apps = []
    for number, limit in enumerate((1000, 100)):
        app = Flask(f"host{number}")
        app.config.update(UPLOAD_HELPER_FOLDER=tmp_path / str(number), UPLOAD_HELPER_MAX_FILE_SIZE=limit,
                          UPLOAD_HELPER_MIN_FREE_SPACE=0)  # fmt: skip
        helper.init_app(app)
        app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
        apps.append(app)
    wide, narrow = (app.test_client() for app in apps)
    uid = upload(wide, DATA, 100)
    refusal(send(narrow, DATA, 100, 0), 413, "too_large")
    refusal(narrow.get(f"/uploads/{uid}"), 404)
    assert fetch(wide, uid) == DATA
    with apps[0].app_context():
        assert helper.get_upload(uid).uploadUid == uid
        assert uh.current_helper.get_upload(uid).path.startswith(str(tmp_path / "0"))
    with apps[1].app_context(), pytest.raises(uh.NotFoundError):
        helper.get_upload(uid)
    with pytest.raises(RuntimeError, match="app_context"):
        helper.get_upload(uid)


def test_helper_of_one_application_works_without_a_context(make_host):
    app = make_host()
    uid = upload(app.test_client(), DATA, 100, headers={"X-User": "ann"})
    helper = app.extensions["upload_helper"].helper
    assert helper.get_upload(uid).owner == "ann"
    assert [found.uploadUid for found in helper.uploads()] == [uid]
    assert helper.get_status(uid).state == "finished"


def test_application_without_a_helper_says_so():
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"UploadHelper\(app\)"):
        uh.current_helper.get_upload("x")


def test_splicing_can_be_switched_off():
    assert read(splice_from=None).splice_from is None
    assert read(splice_from=1).splice_from == 1
    for value in (0, -1, True, "1", 1.5):
        with pytest.raises(ValueError, match=r"UPLOAD_HELPER_SPLICE_FROM = .* an integer of at least 1"):
            read(splice_from=value)
