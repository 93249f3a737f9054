from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser
from werkzeug.routing import Rule

from chromium import launch
from host import make_app
from ledgers import FakeClock, Postgres, postgres
from servers import Gunicorn


class LateRule(Rule):
    """A rule that compiles what builds its URLs each time that one is built.

    Werkzeug does it for every rule of an application, which takes half of the time of making one; the tests make
    thousands, and few of them build a URL.
    """

    def _compile_builder(self, append_unknown: bool = True):
        compile_now = super()._compile_builder

        def build(rule: Rule, **values: object) -> tuple[str, str]:
            return compile_now(append_unknown)(rule, **values)

        return build


Flask.url_rule_class = LateRule


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over ten thousand tests: they stay until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where uploads go; not there until the first one."""
    return tmp_path / "uploads"


@pytest.fixture
def make_host(folder: Path):
    """Return a function that makes the host application; settings are given without their prefix, in lower case."""

    def make(**settings: object):
        defaults: dict[str, object] = {"folder": folder, "durability": "none", "min_free_space": 0}
        config = {f"UPLOAD_HELPER_{name.upper()}": value for name, value in {**defaults, **settings}.items()}
        return make_app(TESTING=True, **config)

    return make


@pytest.fixture
def host(make_host):
    return make_host()


@pytest.fixture
def client(host):
    return host.test_client()


@pytest.fixture
def gunicorn(folder: Path):
    """Return a function that starts gunicorn; all are killed at the end."""
    running: list[Gunicorn] = []

    def start(**options: object) -> Gunicorn:
        server = Gunicorn(folder, **options)
        running.append(server)
        server.start()
        return server

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; not for longer than a module, for beside it nothing else in the process can run asyncio."""
    with launch() as launched:
        yield launched


@pytest.fixture(scope="session")
def database_server():
    """Return a PostgreSQL that is started once, by the first test that asks for it."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request, tmp_path: Path) -> str:
    """Return where an empty ledger can be: a path, or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "work.db")
    server: Postgres = request.getfixturevalue("database_server")
    return server.url()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
