"""One's own pictures, decoded once: verified arrays in the data directory, found again by the content of the files.

`<data directory>/own/<key>/` holds the packs `training` (validation pictures of their own files last) and `test`, and
`facts.json`, which is written last. The key is the hash of the files and of the settings that decide how they are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import platformdirs

from harness.data.base import Split
from harness.data.files import CorruptFile, MissingFiles
from harness.data.own.collected import Collected, Part
from harness.data.packed import Pack
from harness.disk import obstacle, read_json, write_atomic
from harness.errors import UserError, note

_RECIPE = "one's own pictures, version 1"
_MOST_BYTES = 16e9  # of decoded pictures
_TOLD = 3  # equal pictures that are named
_PACKED: tuple[tuple[Part, ...], ...] = (("train", "validation"), ("test",))
"""The parts in the packs `training` and `test`."""


@dataclass(frozen=True)
class Stored:
    """What `facts.json` says: counts by part, and groups of equal pictures as indices in training, then test, part."""

    folder: Path
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: dict[Part, int]
    notes: list[str]
    copies: list[list[int]]  # over the training part, then the test part

    @property
    def trained(self) -> int:
        """Pictures in the pack `training`."""
        return self.counts["train"] + self.counts.get("validation", 0)

    def pack(self, part: str) -> Pack:
        """The pack `training` or `test`."""
        count = self.trained if part == "training" else self.counts["test"]
        return Pack(
            self.folder, part, self.image, count, _RECIPE, name="your own pictures",
            again=f"Remove {self.folder}; the pictures are then read again from where they are.",
        )  # fmt: skip

    @property
    def packs(self) -> tuple[Pack, ...]:
        return tuple(self.pack(part) for part in ("training", *(["test"] if self.counts.get("test") else [])))

    @property
    def files(self) -> list[Path]:
        return [*(path for pack in self.packs for path in pack.files), self.folder / "facts.json"]

    @property
    def sha256(self) -> str:
        """Over the pixels and labels of both parts, from the packs' manifests. Raises `MissingFiles`."""
        sha = hashlib.sha256()
        for pack in self.packs:
            made = pack.checksums()
            sha.update(f"{pack.part} {made['images']} {made['labels']}\n".encode())
        return sha.hexdigest()

    def labels(self) -> np.ndarray:
        """Those of the pack `training`. Raises `MissingFiles` or `CorruptFile`."""
        return self.pack("training").labels()


def folders(directory: Path) -> list[Path]:
    """Where stored pictures are looked for: the data directory, and the user's cache if that cannot be written."""
    return list(dict.fromkeys((directory / "own", platformdirs.user_cache_path("capsbench") / "own")))


def stored(key: str, directory: Path) -> Stored | None:
    """What is stored under `key`; None if there is nothing, or not all of it."""
    for folder in folders(directory):
        document = read_json(folder / key / "facts.json")
        if document is None:
            continue
        try:
            found = Stored(
                folder / key, cast(Any, tuple(document["image"])), tuple(document["classes"]), document["counts"],
                document["notes"], document["copies"],
            )  # fmt: skip
            if all(pack.exists() for pack in found.packs):
                return found
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return None


def store(key: str, collected: Collected, directory: Path, *, progress: bool) -> Stored:
    """Decodes what was collected into the store. Raises `UserError` if pictures are broken or nothing can be written."""
    folder = _writable(directory) / key
    _require_room(collected, folder.parent)
    counts = {part: count for part, count in collected.counts.items() if count}
    found = Stored(folder, collected.image, collected.classes, counts, collected.notes, [])
    for pack, parts in zip(found.packs, _PACKED, strict=False):
        pack.write(_blocks(collected, parts), progress=progress)
    written = [pack.read() for pack in found.packs]  # not what was written just now: another process may have done it
    prints = [hashlib.blake2b(each.tobytes(), digest_size=16).digest() for split in written for each in split.images]
    labels = [int(label) for split in written for label in split.labels]
    copies = _equal(prints)
    notes = [*collected.notes, *_told(copies, labels, found, collected)]
    document = {
        "image": list(found.image),
        "classes": list(found.classes),
        "counts": counts,
        "notes": notes,
        "copies": copies,
    }
    write_atomic(folder / "facts.json", json.dumps(document, indent=1) + "\n")
    return Stored(folder, found.image, found.classes, counts, notes, copies)


def _blocks(collected: Collected, parts: Sequence[Part]) -> Iterator[Split]:
    for part in parts:
        yield from collected.blocks(part)


def read(found: Stored) -> tuple[Split, Split | None]:
    """The verified pictures of the packs `training` and `test`. Raises `MissingFiles` or `CorruptFile`."""
    packs = [pack.read() for pack in found.packs]
    return packs[0], packs[1] if len(packs) > 1 else None


def is_sound(found: Stored) -> bool:
    """Whether all that is stored is intact."""
    try:
        read(found)
    except (MissingFiles, CorruptFile):
        return False
    return True


def _writable(directory: Path) -> Path:
    """The first of `folders` that can be written, made if needed. Raises `UserError`."""
    tried: list[str] = []
    for folder in folders(directory):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            tried.append(f"{folder} ({obstacle(folder) or error.strerror or error})")
            continue
        if os.access(folder, os.W_OK):
            if tried:
                note(f"your own pictures are kept in {folder}, since they cannot be in {'; '.join(tried)}")
            return folder
        tried.append(f"{folder} (not writable)")
    raise UserError(
        f"your own pictures cannot be stored: {'; '.join(tried)}.\n"
        "Another folder: set the environment variable CAPSBENCH_DATA, or data.dir in the suite."
    )


def _require_room(collected: Collected, folder: Path) -> None:
    """Raises `UserError` if the decoded pictures are too much for this disk, or for any training here."""
    needed = math.prod(collected.image) * sum(collected.counts.values())
    free = shutil.disk_usage(folder).free
    if needed > min(_MOST_BYTES, free):
        height, width, _ = collected.image
        limit = f"{free / 1e9:.1f} GB are free for {folder}" if needed > free else f"at most {_MOST_BYTES / 1e9:.0f} GB"
        raise UserError(
            f"data.resize: {sum(collected.counts.values()):,} pictures of {height}x{width} take {needed / 1e9:.1f} GB decoded; "
            f"{limit}. Scale them, such as data.resize: 32"
        )


def _equal(prints: Sequence[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, each in enumerate(prints):
        groups[each].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _told(copies: Sequence[Sequence[int]], labels: Sequence[int], found: Stored, collected: Collected) -> list[str]:
    """Notes on equal pictures: of different classes, and in parts that files keep apart."""
    starts = (0, found.counts["train"], found.trained)

    def place(index: int) -> tuple[Part, int]:
        at = max(number for number, start in enumerate(starts) if index >= start)
        return (("train", "validation", "test")[at], index - starts[at]) if at else ("train", index)

    def named(group: Sequence[int]) -> str:
        return " = ".join(collected.named(*place(index)) for index in group[:2])

    notes: list[str] = []
    torn = [group for group in copies if len({labels[index] for index in group}) > 1]
    if torn:
        notes.append(f"{len(torn):,} pictures are there under several classes: {'; '.join(map(named, torn[:_TOLD]))}")
    for part in ("test", "validation"):
        shared = [group for group in copies if {"train", part} <= {place(index)[0] for index in group}]
        count = sum(place(index)[0] == part for group in shared for index in group)
        if shared:
            pairs = [
                [next(i for i in group if place(i)[0] == each) for each in ("train", part)] for group in shared[:_TOLD]
            ]
            notes.append(
                f"{count:,} of the {found.counts[part]:,} {part} pictures are training pictures too, so the {part} error is "
                f"too low: {'; '.join(map(named, pairs))}"
            )
    if copies and not notes:
        extra = sum(len(group) - 1 for group in copies)
        notes.append(f"{extra:,} pictures are copies of others: {'; '.join(map(named, copies[:_TOLD]))}")
    return notes
