"""Makes an environment for one framework: by uv where it is installed, else by Python's own venv and pip."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import __version__, registry
from harness.disk import file_lock, obstacle, write_atomic
from harness.environments.chosen import MARK, Chosen, config_path, folder, is_complete, is_made, of_user
from harness.environments.probe import names_version
from harness.errors import Stopped, UserError, nearest
from harness.machine.surroundings import given

_NAME = re.compile(r"([A-Za-z][\w-]*)(?:@(.*))?")
_ALSO = ("matplotlib>=3.9",)  # for `predict --sheet`
_LINES = 3  # of an installer's last words in a message
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """An environment to make.

    `more` are further requirements, as pip takes them; `index` is the address of a further package index; `python` is the
    interpreter that it is based on, None for the one that runs this.
    """

    name: str
    gpu: bool = False
    path: Path | None = None
    more: tuple[str, ...] = ()
    index: str | None = None
    python: str | None = None

    def entry(self) -> registry.Entry:
        """Its implementation. Raises `UserError` for a name that is none of a framework here."""
        match = _NAME.fullmatch(self.name)
        base = match[1] if match else self.name
        if not match or base not in registry.FRAMEWORKS:
            raise UserError(
                f'env create: "{self.name}" is no framework{nearest(base, registry.FRAMEWORKS)} '
                f"Or one of them with a version, such as {registry.FRAMEWORKS[0]}@2.12"
            )
        if match[2] == "":
            raise UserError(f"env create: a version is missing after {self.name}")
        return registry.resolve(self.name)

    def requirements(self) -> list[str]:
        """What is to be installed, as pip takes it. Raises `UserError` for a label that says nothing."""
        entry = self.entry()
        if entry.label and not names_version(entry.label) and not self.more:
            raise UserError(
                f'env create {self.name}: "{entry.label}" is no version, such as 2.12; a name of another kind needs '
                "--with REQUIREMENT, which says what it stands for"
            )
        version = entry.label if entry.label and names_version(entry.label) else None
        return [*registry.NEEDS, *_ALSO, *registry.requirements(entry.base, version, gpu=self.gpu), *self.more]


def create(wanted: Wanted, tell: Tell) -> Path:
    """Makes the environment and returns its folder; `tell` gets each line that the installer prints.

    What was begun is removed if it fails or is interrupted. Raises `UserError` for a request that cannot be met, `Stopped`
    if the installer fails.
    """
    requirements = wanted.requirements()
    home = folder()
    place = wanted.path.expanduser().absolute() if wanted.path else home / wanted.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{place}: {obstacle(place.parent) or error.strerror}; name another folder with --path"
        ) from error
    with _alone(home, wanted.name):
        _require_free(wanted, place)
        python = _base(wanted)
        try:
            _mark(place, wanted.name, "incomplete", requirements)
            _install(wanted, place, python, requirements, tell)
            _mark(place, wanted.name, "complete", requirements)
            if place != home / wanted.name:
                (home / wanted.name).symlink_to(place)
        except BaseException as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, OSError) and not isinstance(error, UserError):
                raise Stopped(f"{place}: {error.strerror or error}; nothing is left of it") from error
            raise
    return place


def remove(name: str) -> Path:
    """Removes an environment that `create` made. Raises `UserError` if it is none, or in use."""
    found = of_user().get(name)
    link = folder() / name
    if found is None:
        there = [each for each, chosen in of_user().items() if chosen.made]
        known = nearest(name, there) if there else "; none has been made."
        raise UserError(f"env remove: there is no environment {name}{known}")
    if not (link.is_symlink() or is_made(link)):
        raise UserError(f"env remove {name}: it was not made by capsbench env create; it is named in {config_path()}")
    with _alone(folder(), name):
        place = link.resolve()
        if users := _users(place):
            raise UserError(f"env remove {name}: in use by process {', '.join(map(str, users))}; end that first")
        try:
            if place.exists() and is_made(place):  # else the link leads to what is no longer ours
                shutil.rmtree(place)
            if link.is_symlink():
                link.unlink()
        except OSError as error:
            raise UserError(f"env remove {name}: {error.filename}: {error.strerror}") from error
    return place


def _require_free(wanted: Wanted, place: Path) -> None:
    """Raises `UserError` unless `place` can be made; removes what an earlier call left there unfinished."""
    link = folder() / wanted.name
    for each in dict.fromkeys((link, place)):
        if each.is_symlink() and not each.exists():
            each.unlink()
        elif is_complete(each):
            raise UserError(
                f"env create {wanted.name}: it is there already, in {each.resolve()}; to make it anew: "
                f"capsbench env remove {wanted.name}"
            )
        elif is_made(each):  # interrupted
            shutil.rmtree(each.resolve())
            if each.is_symlink():
                each.unlink()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UserError(f"env create {wanted.name}: {place} is there, and not empty; name another folder with --path")


def _base(wanted: Wanted) -> str:
    """The interpreter to base it on. Raises `UserError` if there is none of that name."""
    if wanted.python is None:
        return sys.executable
    return Chosen(wanted.name, wanted.python, "--python").executable()


def _install(wanted: Wanted, place: Path, python: str, requirements: Sequence[str], tell: Tell) -> None:
    own = {
        name: value for name, value in given().items() if not name.startswith("PYTHON")
    }  # what is found there counts as
    index = ["--extra-index-url", wanted.index] if wanted.index else []  # installed
    inside = str(place / "bin" / "python")
    if uv := shutil.which("uv", path=given().get("PATH")):
        _run([uv, "venv", "--allow-existing", "--python", python, str(place)], own, tell)
        if not wanted.index:
            own = {**registry.installer_variables(wanted.entry().base, gpu=wanted.gpu), **own}
        _run([uv, "pip", "install", "--python", inside, *index, *requirements], own, tell)
        return
    _run([python, "-m", "venv", str(place)], own, tell)
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    _run([inside, "-m", "pip", "install", *options, *index, *requirements], own, tell)


def _run(command: Sequence[str], env: dict[str, str], tell: Tell) -> None:
    """Raises `Stopped` with its last words if the command fails."""
    said: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                if text := line.rstrip():
                    said.append(text)
                    tell(text)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        words = [line for line in said if re.match(r"(ERROR|error|.*Error)", line)] or said
        raise Stopped(
            f"{Path(command[0]).name} {' '.join(command[1:3])} failed: {'; '.join(words[-_LINES:]) or 'it said nothing'}. "
            "Nothing is left of it"
        )


def _mark(place: Path, name: str, state: str, requirements: Sequence[str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "state": state,
        "requirements": list(requirements),
        "made_by": f"capsbench {__version__}",
        "host": platform.node(),
        "time": time.time(),
    }
    write_atomic(place / MARK, json.dumps(document, indent=2) + "\n")


@contextmanager
def _alone(home: Path, name: str) -> Generator[None]:
    """Raises `UserError` while another process makes or removes the same one."""
    with file_lock(home / f".{name}.lock", 0) as is_ours:
        if not is_ours:
            raise UserError(f"env: another capsbench is making or removing {name}; wait until it has ended")
        yield


def _users(place: Path) -> list[int]:
    """The processes that run in the environment; where there is no /proc, none."""
    own = os.fsencode(place) + b"/bin/"
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if each.read_bytes().startswith(own):
                found.append(int(each.parent.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return sorted(found)
