"""`data.name: folder`: a folder with a folder of pictures for each class, or with train, val and test around these."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data.base import Split
from harness.data.frame import framed_shape
from harness.data.own.collected import Collected, Part
from harness.data.own.decoding import common_size, headers_of, in_parallel
from harness.data.own.picture import OTHER_SUFFIXES, SUFFIXES, require_pillow
from harness.errors import UserError, nearest
from harness.sniff import remedy, what_is
from harness.spec.trial import DataConfig

_SPLITS: dict[str, Part] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}


@dataclass(frozen=True)
class _Picture:
    path: Path
    part: Part
    of: str  # its class


def files(config: DataConfig) -> list[Path]:
    """All pictures, in order of their names. Raises `UserError` for a folder that is not laid out as expected."""
    return [each.path for each in _found(config)[0]]


def collect(config: DataConfig) -> Collected:
    """What the folder holds, from the heads of the files; they are decoded later. Raises `UserError`."""
    require_pillow()
    pictures, classes, notes = _found(config)
    paths = [each.path for each in pictures]
    headers = headers_of(paths)
    counted = Counter(note for each in headers for note in each.notes)
    notes += [f"{count:,} picture{'s' * (count > 1)} {note}" for note, count in counted.items()]
    channels = config.channels or (1 if all(each.is_grey for each in headers) else 3)
    greys = sum(each.is_grey for each in headers)
    if config.channels is None and channels == 3 and greys:
        notes.append(
            f"{greys:,} grey pictures among {len(headers):,}, taken as colour; data.channels: 1 makes all grey"
        )
    image = framed_shape((*common_size(paths, headers, config), channels), config)
    parts = {
        part: [each for each in pictures if each.part == part] for part in dict.fromkeys(each.part for each in pictures)
    }
    number = {name: index for index, name in enumerate(classes)}

    def blocks(part: Part) -> Iterator[Split]:
        here = parts.get(part, [])
        return in_parallel([each.path for each in here], [number[each.of] for each in here], image, config)

    return Collected(
        image=image,
        classes=classes,
        counts={part: len(each) for part, each in parts.items()},
        blocks=blocks,
        named=lambda part, index: str(parts[part][index].path),
        notes=notes,
    )


def _found(config: DataConfig) -> tuple[list[_Picture], tuple[str, ...], list[str]]:
    """The pictures with part and class, the classes, and notes on files that are left out."""
    top = _folder(config.path, "data.path")
    ignored: Counter[str] = Counter()
    roots = _parts(top)
    if config.test_path is not None:
        if "test" in roots:
            raise UserError(
                f"data.test_path: {top} has a test folder too ({roots['test'].name}); leave one of the two out"
            )
        roots["test"] = _folder(config.test_path, "data.test_path")
    classes = _classes(roots["train"], config)
    pictures: list[_Picture] = []
    for part, root in roots.items():
        there = _folders(root)
        strange = [each for each in there if each not in classes and config.classes is None]
        if strange and any(_holds_any(root / each) for each in strange):
            raise UserError(
                f'{root}: the class "{strange[0]}" has no pictures to train on: {roots["train"]} has {", ".join(classes[:12])}'
            )
        for each in classes:
            own = [_Picture(path, part, each) for path in _pictures(root / each, ignored)] if each in there else []
            if part == "train" and not own:
                raise UserError(
                    f"{root / each}: no picture in this class folder; put some there, or remove it "
                    f"({_read_kinds()} are read)"
                )
            pictures += own
        ignored.update(_loose(root))
    notes = _told(ignored)
    for part in roots:
        there = {each.of for each in pictures if each.part == part}
        if absent := [each for each in classes if each not in there]:
            notes.append(f"no {part} pictures of class {', '.join(absent[:10])}")
    return pictures, classes, notes


def _folder(given: str | None, key: str) -> Path:
    path = Path(given or "").expanduser().absolute()
    try:
        if path.is_dir():
            return path
        if path.is_symlink() and not path.exists():
            raise UserError(f"{key}: {path} is a link to {path.readlink()}, which does not exist")
        if not path.exists():
            beside = (
                sorted(each.name for each in path.parent.iterdir() if each.is_dir()) if path.parent.is_dir() else []
            )
            raise UserError(f"{key}: there is no folder {path}{nearest(path.name, beside) if beside else ''}")
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or error})") from None
    what = what_is(path)
    hint = {".npz": "set data.name: npz", ".csv": "set data.name: csv"}.get(path.suffix.lower())
    if any(each in what for each in ("archive", "gzip", "bzip2", "an xz", "zstandard")):  # a .tar.gz, most likely
        hint = hint or "unpack it first"
    hint = hint or remedy(what)
    raise UserError(
        f"{key}: {path} is {what}; expected a folder with one folder of pictures for each class"
        + (f"; {hint}" if hint else "")
    )


def _parts(top: Path) -> dict[Part, Path]:
    """Where the class folders of each part are: in `top`, or in its train, val and test."""
    there = _folders(top)
    splits = {name: _SPLITS[name.lower()] for name in there if name.lower() in _SPLITS}
    if "train" not in splits.values():
        if splits and len(splits) == len(there) and any(_folders(top / each) for each in splits):
            raise UserError(
                f"data.path: {top} has {', '.join(splits)}, but no folder train; expected train (and val and test if wanted), "
                "or the class folders themselves"
            )
        return {"train": top}
    if others := [each for each in there if each not in splits]:
        raise UserError(
            f"data.path: {top} has {', '.join(splits)} beside {', '.join(others[:5])}: are these parts or classes? "
            "Expected either only class folders, or only train, val and test with class folders in each"
        )
    if twice := [part for part, count in Counter(splits.values()).items() if count > 1]:
        same = " and ".join(name for name, part in splits.items() if part == twice[0])
        raise UserError(f"data.path: {top} has {same}, which mean the same; keep one")
    found: dict[Part, Path] = {part: top / name for name, part in splits.items()}
    return {part: found[part] for part in ("train", "validation", "test") if part in found}


def _classes(root: Path, config: DataConfig) -> tuple[str, ...]:
    there = _folders(root)
    if config.classes is not None:
        for each in config.classes:
            if each not in there:
                raise UserError(f'data.classes: {root} has no folder "{each}"{nearest(each, there)}')
        return tuple(config.classes)
    if len(there) >= 2:
        return tuple(there)
    loose = [each for each in _files(root) if each.suffix.lower() in SUFFIXES]
    if not there and loose:
        raise UserError(
            f"data.path: {root} holds {len(loose):,} pictures, but no class folders; put the pictures of each class into a "
            "folder of the class's name"
        )
    if there and len(inner := _folders(root / there[0])) >= 2:
        raise UserError(
            f"data.path: the class folders are one level down ({', '.join(inner[:4])}): give {root / there[0]}"
        )
    raise UserError(
        f"data.path: {root} has {f'one class folder only, {there[0]}' if there else 'no folder in it'}; at least two classes "
        "are needed, each with a folder of its own"
    )


def _folders(root: Path) -> list[str]:
    """Its folders but hidden ones, in order of their names."""
    try:
        return sorted(each.name for each in root.iterdir() if not _is_clutter(each.name) and each.is_dir())
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror or error})") from None


def _files(root: Path) -> list[Path]:
    try:
        return sorted(each for each in root.iterdir() if not _is_clutter(each.name) and not each.is_dir())
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror or error})") from None


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _holds_any(folder: Path) -> bool:
    return next(iter(_pictures(folder, Counter())), None) is not None


def _pictures(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """The pictures in a class folder and the folders in it, in order of their names."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename or folder}: cannot be read ({error.strerror or error})")

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(each for each in folders if not _is_clutter(each))
        for name in sorted(each for each in names if not _is_clutter(each)):
            path, suffix = Path(place, name), Path(name).suffix.lower()
            if suffix in SUFFIXES and path.is_file():
                yield path
            elif suffix in SUFFIXES and path.is_symlink():
                raise UserError(f"{path} is a link to {path.readlink()}, which is not there")
            elif suffix in SUFFIXES:
                ignored["not a regular file"] += 1
            elif suffix in OTHER_SUFFIXES:
                raise UserError(
                    f"{path}: a {suffix[1:].upper()} picture; {_read_kinds()} are read. Convert it, or take it out"
                )
            else:
                ignored[suffix or "without a suffix"] += 1


def _loose(root: Path) -> Counter[str]:
    """Pictures beside the class folders, which belong to no class."""
    return Counter("pictures beside the class folders" for each in _files(root) if each.suffix.lower() in SUFFIXES)


def _told(ignored: Counter[str]) -> list[str]:
    return [f"left out: {count:,} file{'s' * (count > 1)}, {what}" for what, count in sorted(ignored.items())]


def _read_kinds() -> str:
    return "PNG, JPEG, BMP and TIFF"
