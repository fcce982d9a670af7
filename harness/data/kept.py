"""The files that a data set is read from, on a machine that has them: what has to travel to one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from harness.data import data_dir, own, source
from harness.data.base import Source
from harness.data.own import store
from harness.spec.trial import DataConfig


@runtime_checkable
class Kept(Source, Protocol):
    """A source that says which files it reads."""

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """Place within a data directory -> the file in `directory`; with `test_only` those of the test part at least."""
        ...


def kept(config: DataConfig) -> dict[str, Path]:
    """Place within a data directory -> the file here, for all that `harness.data.load` reads; no file if it is embedded.

    Of a data set from elsewhere that does not say, all that is in the folder of its name. Raises `UserError` for a data set
    that is not there.
    """
    directory = data_dir(config.dir)
    if config.name in own.FORMATS:
        found = store.stored(config.own.key, directory) if config.own else None
        files = {f"own/{path.parent.name}/{path.name}": path for path in found.files} if found else {}
    else:
        files = _of(source(config.name), directory, test_only=False)
    if config.test_from:
        files |= _of(source(config.test_from), directory, test_only=True)
    return files


def _of(found: Source, directory: Path, *, test_only: bool) -> dict[str, Path]:
    if isinstance(found, Kept):
        return found.kept(directory, test_only=test_only)
    if found.info.embedded:
        return {}
    folder = directory / found.info.name
    return {path.relative_to(directory).as_posix(): path for path in sorted(folder.rglob("[!.]*")) if path.is_file()}
