"""Units that start the worker again after a reboot: systemd, launchd, Windows' task scheduler."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from ..errors import WorkError, shown
from ..folders import APP
from .places import VARIABLE, is_url


@dataclass(frozen=True)
class Worker:
    """The worker that is to be started."""

    ledger: str = ""
    """Path or URL, '' for the one of `app`; its secrets stay out of the command line, which everybody can read."""
    app: str = ""
    modules: Sequence[str] = ()
    threads: int = 2
    name: str = APP
    folder: Path = field(default_factory=Path.cwd)
    """Where it runs, and where modules are looked for."""

    @property
    def command(self) -> list[str]:
        """The command line, with this very Python."""
        chosen = [f"--app={self.app}"] if self.app else []
        chosen += [f"--module={name}" for name in self.modules]
        return [sys.executable, "-m", "upload_helper.cli", "work", "run", *chosen, f"--threads={self.threads}"]


@dataclass(frozen=True)
class Unit:
    """What is written, and what is left to do."""

    path: Path
    text: str
    link: Path | None = None
    """Where a link to it makes it start."""
    commands: Sequence[Sequence[str]] = ()
    """What starts it now."""
    advice: str = ""
    encoding: str = "utf-8"

    def write(self) -> list[Path]:
        """Write the unit, for this user only, and return what was written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_name(self.path.name + ".new")
            new.unlink(missing_ok=True)
            with os.fdopen(
                os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding=self.encoding
            ) as file:
                file.write(self.text)
            new.replace(self.path)
            if self.link is None:
                return [self.path]
            self.link.parent.mkdir(parents=True, exist_ok=True)
            self.link.unlink(missing_ok=True)
            self.link.symlink_to(self.path)
        except OSError as error:
            raise WorkError(
                f"{self.path} cannot be written: {error.strerror or error}.",
                remedy="Let this user write there, or keep what --print shows where units are.",
            ) from error
        return [self.path, self.link]

    def start(self) -> None:
        """Run the commands; raises WorkError for one that fails."""
        for command in self.commands:
            try:
                subprocess.run(list(command), check=True, capture_output=True, text=True, timeout=60)  # noqa: S603
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", "") or error
                raise WorkError(
                    f"{shlex.join(command)} failed: {str(said).strip()[:300]}",
                    remedy="The unit is written; start it by hand.",
                ) from error


def unit_of(worker: Worker, system: str | None = None, home: Path | None = None) -> Unit:
    """Return the unit of a system, this one unless named, for the user with this home; raises WorkError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", worker.name):
        raise WorkError(
            f"{shown(worker.name)} cannot name a unit.",
            remedy="Give another --name: up to 61 letters, digits, '.', '_' and '-', a letter or digit first.",
        )
    values = (worker.ledger, worker.app, str(worker.folder), *worker.modules)
    if not all(value.isprintable() for value in values):
        raise WorkError(
            "A unit cannot hold line breaks and other characters that do not print.",
            remedy="Give the ledger, the folder and the modules other names.",
        )
    writers = {"linux": _systemd, "darwin": _launchd, "windows": _windows}
    return writers[system or this_system()](worker, home or Path.home())


def this_system() -> str:
    """Return the system that this machine has."""
    return {"darwin": "darwin", "win32": "windows"}.get(sys.platform, "linux")


def _systemd(worker: Worker, home: Path) -> Unit:
    """systemd.service(5), systemd.unit(5): a unit of the user's own manager."""
    config = os.environ.get("XDG_CONFIG_HOME")
    units = (Path(config) if config and home == Path.home() else home / ".config") / "systemd" / "user"
    text = "\n".join(
        (
            "[Unit]",
            "Description=Background work of upload-helper",
            "",
            "[Service]",
            *([f"Environment={_quoted(f'{VARIABLE}={worker.ledger}')}"] if worker.ledger else []),
            f"WorkingDirectory={str(worker.folder).replace('%', '%%')}",
            f"ExecStart={' '.join(_quoted(part).replace('$', '$$') for part in worker.command)}",
            "Restart=always",
            "RestartSec=5",
            "KillSignal=SIGTERM",
            "TimeoutStopSec=30",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        )
    )
    path = units / f"{worker.name}.service"
    return Unit(
        path,
        text,
        link=units / "default.target.wants" / path.name,
        commands=[
            ["systemctl", "--user", "daemon-reload"],
            ["systemctl", "--user", "restart", path.name],
        ],
        advice="It starts when this user signs in. `loginctl enable-linger` lets it start with the machine.",
    )


def _quoted(value: str) -> str:
    """systemd.syntax(7): quoted, with %-specifiers doubled."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _launchd(worker: Worker, home: Path) -> Unit:
    """launchd.plist(5)."""
    path = home / "Library" / "LaunchAgents" / f"{worker.name}.plist"
    arguments = "\n".join(f"        <string>{escape(part)}</string>" for part in worker.command)
    variables = (
        f"        <key>{VARIABLE}</key>\n        <string>{escape(worker.ledger)}</string>\n" if worker.ledger else ""
    )
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>{escape(worker.name)}</string>
    <key>ProgramArguments</key>
    <array>
{arguments}
    </array>
    <key>EnvironmentVariables</key>
    <dict>
{variables}    </dict>
    <key>WorkingDirectory</key>
    <string>{escape(str(worker.folder))}</string>
    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <true/>
    <key>ThrottleInterval</key>
    <integer>10</integer>
</dict>
</plist>
"""
    return Unit(
        path,
        text,
        commands=[["launchctl", "load", "-w", str(path)]],
        advice="It starts when this user signs in.",
    )


def _windows(worker: Worker, home: Path) -> Unit:
    """Task Scheduler Schema: a task that begins when this user signs in."""
    if is_url(worker.ledger) and "@" in worker.ledger:
        raise WorkError(
            "Windows' tasks have no place for a secret, and the URL of the ledger has a user in it.",
            remedy="Keep the password in a pgpass file, and name the ledger in a variable of the user's environment.",
        )
    path = home / "AppData" / "Local" / APP / f"{worker.name}.xml"
    chosen = [f"--ledger={worker.ledger}"] if worker.ledger else []
    arguments = subprocess.list2cmdline([*worker.command[1:], *chosen])
    text = f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.3" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Background work of upload-helper</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
    </LogonTrigger>
  </Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>255</Count>
    </RestartOnFailure>
  </Settings>
  <Actions>
    <Exec>
      <Command>{escape(worker.command[0])}</Command>
      <Arguments>{escape(arguments)}</Arguments>
      <WorkingDirectory>{escape(str(worker.folder))}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"""
    return Unit(
        path,
        text,
        commands=[["schtasks", "/Create", "/F", "/TN", worker.name, "/XML", str(path)]],
        advice="It starts when this user signs in, once the command has been run.",
        encoding="utf-16",  # as the scheduler itself writes them
    )
