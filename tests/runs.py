"""A run of handlers without a ledger: what Context and Work are to a handler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from upload_helper.work.aliases import Alias
from upload_helper.work.context import Outcome, Reason, Stopped
from upload_helper.work.handlers.arrays import parse_handlers, run_handlers
from upload_helper.work.handlers.defaults import default_registry
from upload_helper.work.handlers.step import Step
from upload_helper.work.task import Task


class FakeWork:
    def __init__(self, *modules):
        self.registry = default_registry(modules)
        self.database = ""
        self.aliases: dict[str, dict] = {}
        self.started: list[dict[str, Any]] = []
        self.stopped: list[str] = []

    def alias(self, name):
        return Alias.from_dict(name, self.aliases.get(name))

    def add_alias(self, name, url, headers=None, basic=None, auth=""):
        self.aliases[name] = Alias.of(name, url, headers, basic, auth).as_dict()

    def connect_database(self, path):
        self.database = str(Path(path).absolute())

    def start_work(self, handlers, tag="", **options):
        self.started.append({"work": parse_handlers(handlers), "tag": tag, **options})
        return "uid"

    def start_periodic_work(self, handlers, period, tag="", **options):
        return self.start_work(handlers, tag, period=period, **options)

    def start_upload(self, request, tag="", title="", body="", **options):
        self.started.append({"request": request, "tag": tag, "title": title, "body": body, **options})
        return "uid"

    start_download = start_upload

    def stop_work(self, tag):
        self.stopped.append(tag)
        return 1


class FakeContext:
    def __init__(self, work: FakeWork | None = None, **variables):
        self.work = work or FakeWork()
        self.variables: dict[str, Any] = variables
        self.reports: list[tuple[float | None, str]] = []
        self.reason: Reason | None = None
        self.task = Task("t1")
        self.checks = 0
        self.actions: list[Callable[[], object]] = []

    def stop(self, reason):
        self.reason = reason
        for action in tuple(self.actions):
            action()

    def on_stop(self, action):
        self.actions.append(action)
        return lambda: self.actions.remove(action)

    def check(self):
        self.checks += 1
        if self.reason is not None:
            raise Stopped(self.reason)

    def report(self, progress=None, step_name=""):
        self.reports.append((progress, step_name))

    def sleep(self, seconds):
        self.check()

    def run(self, *handlers: dict | tuple) -> Outcome:
        """Run handlers; ("set", "a=1") is short for a `run` of that type."""
        whole = [handler(*h) if isinstance(h, tuple) else h for h in handlers]
        return run_handlers(whole, self, self.work.registry)

    def step(self, kind: str, method: str, **members) -> Step:
        return Step(handler(kind, method, **members), self, self.variables)


def handler(kind: str, method: str, action: str = "run", **members) -> dict[str, Any]:
    return {"action": action, "type": kind, "method": method, **members}
