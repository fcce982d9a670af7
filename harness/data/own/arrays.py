"""What the formats share that hold whole arrays: from raw arrays to `Collected`, and how a file is found."""

from __future__ import annotations

from pathlib import Path

from harness.data.frame import framed, framed_shape
from harness.data.own.collected import Arrays, Collected, Part, in_blocks, named_classes
from harness.data.own.pixels import as_pictures
from harness.errors import UserError, nearest
from harness.sniff import remedy, what_is
from harness.spec.trial import DataConfig


def collected(parts: dict[Part, Arrays], config: DataConfig, classes: tuple[str, ...] | None = None) -> Collected:
    """`Collected` from arrays as they are in files; `classes` are names that the file itself gives.

    Raises `UserError` for arrays that are no pictures with labels.
    """
    pictures, notes = as_pictures(parts, config.channels)
    labels = named_classes(parts, config.classes or classes)
    height, width, channels = pictures["train"].shape[1:]
    image = framed_shape((height, width, channels), config)
    ready = {part: (framed(images, config), labels.of[part]) for part, images in pictures.items()}
    return Collected(
        image=image,
        classes=labels.classes,
        counts={part: len(images) for part, images in pictures.items()},
        blocks=in_blocks(ready),
        named=lambda part, index: f"picture {index:,} of {parts[part].source}",
        notes=[*notes, *labels.notes],
    )


def the_file(given: str | None, key: str, expected: str) -> Path:
    """The file at `given`. Raises `UserError` calling it `key` if there is none, or if it is a folder."""
    path = Path(given or "").expanduser().absolute()
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UserError(
                f"{key}: {path} is a folder; expected {expected}. For folders of pictures set data.name: folder"
            )
        if path.is_symlink():
            raise UserError(f"{key}: {path} is a link to {path.readlink()}, which does not exist")
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or error})") from None
    close = nearest(path.name, beside).partition(" Valid:")[0] if beside else ""
    raise UserError(f"{key}: there is no file {path}{close}")


def instead(path: Path, expected: str) -> str:
    """ "PATH: an HTML page; expected an NPZ file; download it again ...": for a file that is something else."""
    found = what_is(path)
    return f"{path}: {found}; expected {expected}" + (f"; {advice}" if (advice := remedy(found)) else "")
