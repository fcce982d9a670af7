"""Images that are made or converted once and kept: two NPY files and a manifest with checksums, read memory-mapped."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness.data.base import Split
from harness.data.files import CorruptFile, MissingFiles
from harness.errors import UserError


@dataclass(frozen=True)
class Pack:
    """One part of a data set in `folder`: `<part>-images.npy`, `<part>-labels.npy`, `<part>.json`."""

    folder: Path
    part: str
    image: tuple[int, int, int]
    count: int
    recipe: str  # how they are made; images of another recipe are not accepted
    name: str = ""  # what to call them; default: the folder's name
    again: str = ""  # how to have them made anew; default: by `capsbench data fetch`

    @property
    def manifest(self) -> Path:
        return self.folder / f"{self.part}.json"

    def path(self, what: str) -> Path:
        return self.folder / f"{self.part}-{what}.npy"

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path("images"), self.path("labels"), self.manifest)

    def exists(self) -> bool:
        """Whether it was written completely, by this recipe; not whether it is still intact."""
        return self._expected() is not None

    def read(self) -> Split:
        """The verified images, memory-mapped. Raises `MissingFiles`, or `CorruptFile` if a checksum is wrong."""
        for what, sha256 in self.checksums().items():
            self._verify(what, sha256)
        images: np.ndarray = np.load(self.path("images"), mmap_mode="r")
        return Split(images, np.load(self.path("labels")))

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the images' and of the labels' file, as written. Raises `MissingFiles`."""
        expected = self._expected()
        if expected is None:
            name = self.name or self.folder.name
            made = "" if self.again else f"; `capsbench data fetch {name}` makes it"
            raise MissingFiles(f"{name}: its {self.part} part is not in {self.folder}{made}.")
        return expected

    def labels(self) -> np.ndarray:
        """The verified labels alone. Raises `MissingFiles` or `CorruptFile`."""
        self._verify("labels", self.checksums()["labels"])
        return np.load(self.path("labels"))

    def _verify(self, what: str, sha256: str) -> None:
        path = self.path(what)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CorruptFile(f"{path}: cannot be read ({error.strerror}).\n{self._mend()}") from None
        if found != sha256:
            raise CorruptFile(f"{path}: corrupt; SHA-256 expected {sha256}, found {found}.\n{self._mend()}")

    def write(self, blocks: Iterable[Split], *, progress: bool) -> None:
        """Writes what `blocks` yields, all of it or nothing; one process at a time, others then find it there.

        Raises `CorruptFile` if there are not `count` images, `UserError` if the folder cannot be written.
        """
        from rich.console import Console

        from harness.data.net.download import alone_in

        console = Console(stderr=True, quiet=not progress)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone_in(self.folder, console):
                if not self._is_sound():
                    self._write(blocks, console)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written: {error.strerror or error}; it takes {self._bytes() / 1e9:.1f} GB.\n"
                "Another folder: set the environment variable CAPSBENCH_DATA, or data.dir in the suite."
            ) from error

    def _write(self, blocks: Iterable[Split], console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        parts = {what: self.path(what).with_suffix(".tmp") for what in ("images", "labels")}
        bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        try:
            with contextlib.ExitStack() as stack:
                images, labels = (stack.enter_context(path.open("wb")) for path in parts.values())
                task = stack.enter_context(bar).add_task(
                    f"{self.name or self.folder.name}, {self.part} part", total=self.count
                )
                sums = _Sum(images, "|u1", (self.count, *self.image)), _Sum(labels, "<i8", (self.count,))
                done = 0
                for block in blocks:
                    sums[0].add(block.images)
                    sums[1].add(block.labels)
                    done += len(block)
                    bar.update(task, completed=done)
            if done != self.count:
                raise CorruptFile(
                    f"{self.name or self.folder.name}, {self.part} part: {self.count:,} images expected, found {done:,}."
                )
            self.manifest.unlink(missing_ok=True)  # until it is written anew, the pack does not exist
            for what, path in parts.items():
                path.replace(self.path(what))
            document = {"made": self._made, "images": sums[0].hexdigest(), "labels": sums[1].hexdigest()}
            complete = self.manifest.with_suffix(".tmp")
            complete.write_text(json.dumps(document, indent=2) + "\n")
            complete.replace(self.manifest)
        finally:
            for path in parts.values():
                path.unlink(missing_ok=True)

    @property
    def _made(self) -> str:
        return f"{self.recipe}; {self.count} images of {'x'.join(map(str, self.image))}"

    def _is_sound(self) -> bool:
        try:
            self.read()
        except UserError:
            return False
        return True

    def _expected(self) -> dict[str, str] | None:
        try:
            document: dict[str, str] = json.loads(self.manifest.read_text())
            if document["made"] == self._made:
                return {what: document[what] for what in ("images", "labels")}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _mend(self) -> str:
        return self.again or f"`capsbench data fetch {self.folder.name}` makes it anew."

    def _bytes(self) -> int:
        return self.count * int(np.prod(self.image))


class _Sum:
    """An NPY file being written, and its SHA-256."""

    def __init__(self, file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> None:
        self._file, self._dtype = file, dtype
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        file.flush()
        self._sha = hashlib.sha256(Path(file.name).read_bytes())

    def add(self, array: np.ndarray) -> None:
        content = np.ascontiguousarray(array, dtype=self._dtype).data
        self._file.write(content)
        self._sha.update(content)

    def hexdigest(self) -> str:
        return self._sha.hexdigest()
