"""What docs/transfers.md prints is true: snippets run, tables match the commands and the code."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from answers import Answers, ServedFile
from test_docs import ROOT, here, run, snippets  # noqa: F401
from upload_helper.cli import carrying, main, manner
from upload_helper.transfer import orders
from upload_helper.work import State

TEXT = (ROOT / "docs" / "transfers.md").read_text()


def named(column: str) -> list[str]:
    """Return what the first column of the table with this head says; several in a cell are several."""
    rows = TEXT.partition(f"\n| {column} |")[2].split("\n\n")[0].splitlines()[2:]
    return [name for line in rows for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_tasks_of_the_page(here, capsys):  # noqa: F811
    (here / "survey.gpkg").write_bytes(b"data")
    module = run(snippets("python", "transfers.md", "As tasks")[0])
    assert module.stopped == 1
    survey, tiles = module.work.get(module.survey), module.work.get(module.tiles)
    assert (survey.kind, survey.title, survey.lane, survey.state) == ("upload", "Survey", 6, State.ENQUEUED)
    assert (tiles.kind, tiles.state) == ("download", State.CANCELLED)
    module.work.close()


def test_sink_of_the_page(here, capsys):  # noqa: F811
    module = run(snippets("python", "transfers.md", "Progress")[0])
    uid = module.work.start_download({"url": "http://127.0.0.1:9/#office", "file": "none/a"}, title="Tiles")
    module.work.runner().run_until_idle()
    assert module.work.get(uid).state is State.FAILED
    assert "Tiles: 0 of None bytes" in capsys.readouterr().out
    module.work.close()


@pytest.mark.parametrize("number", [0, 1])
def test_commands_of_the_page(here, monkeypatch, number):  # noqa: F811
    (here / "survey.gpkg").write_bytes(b"data")
    monkeypatch.setenv("UPLOAD_HELPER_LEDGER", "field.db")
    line = snippets("sh", "transfers.md")[0].text.splitlines()[number]
    program, *arguments = shlex.split(line)
    assert program == "upload-helper"
    # The address is none that answers; the worker would find that out.
    result = CliRunner().invoke(main, [*arguments, "--background"])
    assert result.exit_code == 0, result.output


def test_every_option_is_in_the_table():
    known = {o.lstrip("-") for c in ("send", "get") for p in main.commands[c].params for o in p.opts if o[:2] == "--"}
    assert {option.lstrip("-") for option in named("option")} == known


def test_exit_codes_are_in_the_table():
    codes = {manner.FAILED, manner.WRONG_USE, manner.LATER, manner.REFUSED, manner.LOCAL}
    codes |= {manner.NOT_THE_FILE, manner.INTERRUPTED, 0}
    assert {int(code) for code in named("exit code")} == codes
    assert {code for _, code in carrying._CODES} < codes


def test_members_of_a_request_are_in_the_table():
    known = {*orders._COMMON, *orders._OWN["upload"], *orders._OWN["download"], "priority", "postExecute"}
    assert set(named("member")) == known


def test_sinks_are_where_the_page_says():
    from importlib import import_module

    for name in named("sink"):
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(f"upload_helper.{module}"), attribute)


def test_fetching_of_the_page(here, capsys):  # noqa: F811
    module = run(snippets("python", "transfers.md", "How a file is fetched")[0])
    with Answers(ServedFile(b"tiles")) as server:
        assert module.fetch_tiles(server.url + "/tiles.mbtiles").path == Path("tiles.mbtiles")
    assert (here / "tiles.mbtiles").read_bytes() == b"tiles"
    assert capsys.readouterr().out == "0 5\n5 5\n"
    assert server.asked[0].headers["Authorization"].startswith("Basic ")


def test_sending_of_the_page(here, gunicorn, folder, capsys):  # noqa: F811
    (here / "survey.gpkg").write_bytes(b"survey")
    (snippet,) = snippets("python", "transfers.md", "How a file is sent")
    server = gunicorn()
    run(replace(snippet, text=snippet.text.replace("https://maps.example.org/uploads", server.url)))
    *reports, last = capsys.readouterr().out.splitlines()
    assert reports[-1] == "6 6"
    url, uid = last.split()
    assert url == f"{server.url}/{uid}"
