"""What a suite needs on a cluster, in one archive: its text, its owner's code, pictures and weights to start from.

Names are kept relative to the current folder, in which the suite runs there, too.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import modules, registry
from harness.errors import UserError
from harness.own_file import is_file_name
from harness.spec.trial import Trial
from harness.suite.start import weights_file

MOST_BYTES = 90_000_000
"""The dashboard takes 100 MB at once."""
_SUITE = "suite.yaml"
_ENTRY = "capsbench_job.py"
_ASIDE = {"__pycache__", ".git", ".venv", "node_modules"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content is the same archive


@dataclass
class Contents:
    """The files of an archive: its path there -> the file here; and settings that say where something is there."""

    source: str  # the suite's text
    shared: tuple[Path, ...] = ()  # folders that every node has, too
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    overrides: list[str] = field(default_factory=list[str])

    def add_trials(self, trials: Sequence[Trial], grid: Mapping[str, Sequence[Any]]) -> None:
        """Adds what the trials need from this machine; `grid` has the keys that the suite varies, with their values.

        Raises `UserError` for what cannot be sent.
        """
        for impl in dict.fromkeys(trial.impl for trial in trials):
            self._add_implementation(impl)
        for module in dict.fromkeys(trial.data.module for trial in trials if trial.data.module):
            self._add_module(module.partition(":")[0], f'data.module "{module}"')
        places = {
            "data.path": {trial.data.path for trial in trials if trial.data.path},
            "data.test_path": {trial.data.test_path for trial in trials if trial.data.test_path},
            "data.dir": {trial.data.dir for trial in trials if trial.data.dir},
            "train.start_from": {trial.train.start_from for trial in trials if trial.train.start_from},
        }
        for key, found in places.items():
            for value in [str(each) for each in grid[key] if each] if key in grid else sorted(found):
                self._add_place(key, value, key in grid)

    def archive(self, request: dict[str, object]) -> tuple[str, bytes]:
        """The name, by its content, and the archive. Raises `UserError` if it is too large, or a file cannot be read."""
        buffer = io.BytesIO()
        entry = Path(__file__).with_name("on_head.py").read_bytes()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            _write(archive, _ENTRY, entry)
            _write(archive, "request.json", json.dumps(request, sort_keys=True).encode())
            _write(archive, f"work/{_SUITE}", self.source.encode())
            for name, path in sorted(self.files.items()):
                try:
                    _write(archive, f"work/{name}", path.read_bytes())
                except OSError as error:
                    raise UserError(f"{path}: cannot be read: {error.strerror}") from error
                if buffer.tell() > MOST_BYTES:
                    raise UserError(self._too_large())
        content = buffer.getvalue()
        if len(content) > MOST_BYTES:
            raise UserError(self._too_large())
        return f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip", content

    def _too_large(self) -> str:
        size = sum(path.stat().st_size for path in self.files.values())
        largest = max(self.files, key=lambda name: self.files[name].stat().st_size)
        return (
            f"the suite's own files have {size / 1e6:,.0f} MB, such as {largest}; at most {MOST_BYTES / 1e6:.0f} MB are "
            "sent. Put them into a folder that every node has under the same path, and say so: --shared FOLDER"
        )

    def _add_implementation(self, name: str) -> None:
        entry = registry.resolve(name)
        if entry.is_built_in:
            return
        if is_file_name(name):
            file = Path(name.rpartition(":")[0]).expanduser()
            if self._is_shared(file):
                return
            inner = self._inside(file)
            if inner is None:
                raise UserError(
                    f'implementation "{name}" is not below the current folder, so it would have another name on the '
                    "cluster: submit from a folder around it, or put it where every node has it: --shared FOLDER"
                )
            self._add_code(file.absolute(), inner)
        else:
            self._add_module(entry.module, f'implementation "{name}"')

    def _add_module(self, name: str, what: str) -> None:
        """The top package or module around `name`, unless it is installed: then every node needs it installed."""
        top = name.partition(".")[0]
        spec = modules.locate(top)
        places = [Path(each) for each in (spec.submodule_search_locations or ())] if spec else []
        if spec and spec.origin and not places:
            places = [Path(spec.origin)]
        if not places:
            raise UserError(f"{what}: no module {top} is found here; submit from the folder that it is in")
        place = places[0].resolve()
        if _is_installed(place) or self._is_shared(place):
            return
        if place.is_dir():
            for path in _below(place):
                self.files[f"{top}/{path.relative_to(place).as_posix()}"] = path
        else:
            self._add_code(place, Path(place.name))

    def _add_code(self, file: Path, inner: Path) -> None:
        """A module, and what it imports from beside it, and so on."""
        if inner.as_posix() in self.files:
            return
        self.files[inner.as_posix()] = file
        for name in _imported(file):
            if (module := file.with_name(f"{name}.py")).is_file():
                self._add_code(module, inner.with_name(module.name))
            elif (package := file.with_name(name)).is_dir() and next(package.glob("*.py"), None):
                for path in _below(package):
                    self.files[inner.with_name(name).joinpath(path.relative_to(package)).as_posix()] = path

    def _add_place(self, key: str, value: str, is_varied: bool) -> None:
        """A file or folder that the suite names."""
        path = weights_file(value) if key == "train.start_from" else Path(value).expanduser()
        if self._is_shared(path):
            if not (is_varied and Path(value).is_absolute()):
                self._override(key, str(path.absolute()), is_varied)
            return
        if key == "data.dir":
            raise UserError(
                f'data.dir "{value}" is a folder of this machine: set CAPSBENCH_DATA on the nodes instead, or, if every '
                f"node has it under the same path: --shared {value}"
            )
        inner = self._inside(path) if key != "train.start_from" else None
        name = inner.as_posix() if inner else f"sent-{hashlib.sha256(value.encode()).hexdigest()[:12]}{path.suffix}"
        if name != value:
            self._override(key, name, is_varied)
        for each in _below(path) if path.is_dir() else (path,):
            self.files[f"{name}/{each.relative_to(path).as_posix()}" if path.is_dir() else name] = each

    def _override(self, key: str, value: str, is_varied: bool) -> None:
        if is_varied:
            raise UserError(
                f"{key} is varied, and has values that are not below the current folder: submit from a folder around them, or "
                "put them into a folder that every node has under the same path, give full paths, and say so: --shared FOLDER"
            )
        self.overrides.append(f"{key}={value}")

    def _is_shared(self, path: Path) -> bool:
        return any(path.absolute().is_relative_to(folder.absolute()) for folder in self.shared)

    def _inside(self, path: Path) -> Path | None:
        """The path from the current folder, without going up; None if it is elsewhere."""
        here = Path.cwd()
        absolute = Path(*path.absolute().parts)
        if ".." in absolute.parts:
            absolute = absolute.resolve()
        return absolute.relative_to(here) if absolute.is_relative_to(here) and absolute != here else None


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def _below(folder: Path) -> Iterator[Path]:
    """All files of a folder but caches and hidden ones, in order."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not _ASIDE & {*parts} and not any(part.startswith(".") for part in parts):
            yield path


def _imported(file: Path) -> set[str]:
    """The top names that a module imports."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _is_installed(place: Path) -> bool:
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")}
    bench = Path(__file__).resolve().parents[2]
    own = {bench / name for name in ("impls", "harness", "capsbench")}
    return place in own or bool(installed & {*place.parents})
