"""The package as it is shipped: what is in it, and that it serves its page from an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from urllib.request import urlopen

import pytest

from demos import Demo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "plugin" / "upload_helper"
# Whatever else is forgotten, these are what a build loses first.
PAGE = [
    "templates/upload_helper/demo.html", "templates/upload_helper/widget.html", "static/demo.js", "static/demo.css",
    "static/demo.svg", "static/upload-helper.js", "static/upload-helper.css", "py.typed",
]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Return a copy of what a build needs, so that it neither litters the source tree nor finds leftovers in it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy)
    rubbish = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("plugin", "templates"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=rubbish)
    return copy


@pytest.fixture(scope="module")
def archive(source: Path) -> Path:
    return build(source, "sdist", "tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build(source, "wheel", "whl")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory) -> Path:
    """Return a fresh environment with the wheel in it. Its dependencies are those of the running one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    # Paths that a .pth file names are searched last, and .pth files there are not followed: an editable install of
    # the package in the running environment stays out of sight.
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(ours))
    return folder


def build(source: Path, kind: str, ending: str) -> Path:
    """Build without fetching anything: setuptools is the one of the running environment."""
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", source)
    (built,) = (source / "dist").glob(f"*.{ending}")
    return built


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], check=False, env=clean(), capture_output=True, text=True, cwd="/", timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def package_files() -> set[str]:
    """Return the files of the package in the source tree, those behind the link to the templates included."""
    found: set[str] = set()
    for folder, _, names in os.walk(PACKAGE, followlinks=True):
        found |= {Path(folder, name).relative_to(PACKAGE).as_posix() for name in names if not name.endswith(".pyc")}
    assert set(PAGE) <= found
    return found


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    inside = {name.removeprefix("upload_helper/") for name in contents(wheel) if ".dist-info/" not in name}
    assert inside == package_files()


def test_source_distribution_holds_every_file_of_the_package(archive):
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2]: member for member in tar if member.isfile()}
    assert {f"plugin/upload_helper/{name}" for name in package_files()} <= files.keys()
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= files.keys()


def test_wheel_made_of_the_source_distribution_is_the_same(archive, wheel, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = build(unpacked, "wheel", "whl")
    assert contents(again) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist() if not name.endswith("/RECORD")}


def test_demo_is_served_from_the_installed_wheel(environment, tmp_path):
    where = run(environment / "bin" / "python", "-c", "import upload_helper; print(upload_helper.__file__)")
    assert Path(where).is_relative_to(environment)
    with Demo(tmp_path / "log", command=[str(environment / "bin" / "upload-helper")], env=clean()) as demo:
        page = get(demo.url).decode()
        addresses = re.findall(r'(?:src|href)="(/[^"]+)"', page)
        assert {Path(address).name for address in addresses} >= {Path(name).name for name in PAGE if "static" in name}
        for address in addresses:
            assert get(demo.url.rstrip("/") + address) == (PACKAGE / "static" / Path(address).name).read_bytes()


def get(url: str) -> bytes:
    with urlopen(url) as answer:
        return answer.read()


def test_flask_finds_the_commands_of_the_installed_wheel(environment, tmp_path):
    app = tmp_path / "host.py"
    app.write_text("import flask, upload_helper\napp = flask.Flask('host')\nupload_helper.UploadHelper(app)\n")
    python = environment / "bin" / "python"
    assert "sweep" in run(python, "-m", "flask", "--app", app, "uploads", "--help")
