"""Whatever stands where a suite should: the message says what it is, where, and what to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.suite.suite import load_suite
from harness.suite.visible import invisible, visible

GOOD = "name: mine\ndata: {name: digits}\ntrain:\n  epochs: 2\n  lr: 1e-3\ngrid: {impl: [numpy]}\n"
READ = {
    "a byte-order mark": GOOD.encode("utf-8-sig"),
    "Windows line ends": GOOD.replace("\n", "\r\n").encode(),
    "no newline at the end": GOOD.rstrip().encode(),
    "JSON": b'{"name": "mine", "data": {"name": "digits"}, "train": {"epochs": 2, "lr": 1e-3}, "grid": {"impl": ["numpy"]}}',
    "a document mark": f"%YAML 1.2\n---\n{GOOD}...\n".encode(),
    "a no-break space in free text": f"question: Ça va\u00a0?\n{GOOD}".encode(),
    "one in a comment": f"# a\u00a0b\n{GOOD}".encode(),
    "text in quotes that looks like a tag": GOOD.replace("mine", '"mine"').encode(),
}
REFUSED = {
    "UTF-16": (GOOD.encode("utf-16"), ("x.yaml: UTF-16 text", "save it as UTF-8")),
    "UTF-16, big end first": (GOOD.encode("utf-16-be"), ("x.yaml: UTF-16 text",)),
    "an HTML page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html></html>", ("x.yaml: an HTML page", "download it again")),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
        ("a Git LFS pointer", "git lfs pull"),
    ),
    "a zip archive": (b"PK\x03\x04\x14\x00", ("x.yaml: a zip archive, expected a suite in YAML",)),
    "a gzip file": (b"\x1f\x8b\x08\x00", ("x.yaml: a gzip file", "gunzip")),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", ("x.yaml: a", "picture")),
    "weights": (
        (64).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + b"\0" * 4,
        ("a safetensors file",),
    ),
    "no text": (b"\x01\x00\x02\xff" * 9, ("x.yaml: binary data",)),
    "Latin-1": (
        GOOD.encode() + "question: Für".encode("latin-1"),
        ("x.yaml:7: not UTF-8 text (byte 0xfc) in column 12", "save the file"),
    ),
    "Latin-1 after a byte-order mark": (
        b"\xef\xbb\xbfname: F\xfcr\n",
        ("x.yaml:1: not UTF-8 text (byte 0xfc) in column 8",),
    ),
    "only comments": (b"# name: mine\n", ("x.yaml: empty",)),
    "a tab": (GOOD.replace("  lr", "\tlr").encode(), ("x.yaml:5: not valid YAML: a tab",)),
    "a tab after spaces": (GOOD.replace("  lr: 1e-3", "  \tlr: 1e-3").encode(), ("x.yaml:5: ",)),
    "a no-break space before a key": (
        GOOD.replace("{name", "{\u00a0name").encode(),
        ("x.yaml:2: data.<U+00A0>name: unknown", "(column 8 is U+00A0, a no-break space)"),
    ),
    "a no-break space as indentation": (
        GOOD.replace("  lr", "\u00a0\u00a0lr").encode(),
        ("x.yaml:5: <U+00A0><U+00A0>lr: unknown key", "column 1 is U+00A0, a no-break space; 1 more in this line"),
    ),
    "a zero-width space in a value": (
        GOOD.replace("digits", "dig\u200bits").encode(),
        ('"dig<U+200B>its"', "column 17 is U+200B, a zero-width space"),
    ),
    "a byte-order mark in the middle": (
        GOOD.replace("  epochs", "  \ufeffepochs").encode(),
        ("train.<U+FEFF>epochs", "column 3 is U+FEFF"),
    ),
    "a control character": (
        GOOD.replace("mine", "mi\x07ne").encode(),
        ("x.yaml:1: not valid YAML: control character", "column 9 is U+0007"),
    ),
    "an escape that would colour the terminal": (
        GOOD.replace("digits", '"\\e[31mdigits"').encode(),
        ("<U+001B>[31mdigits",),
    ),
    "no space after a colon": (b"name:mine\n", ("x.yaml:1: ", "a space is missing after a colon")),
    "a colon too many": (
        GOOD.replace("name: mine", "name: mine: yours").encode(),
        ("x.yaml:1: not valid YAML", "look at the colons"),
    ),
    "an open quote": (GOOD.replace("mine", '"mine').encode(), ("not valid YAML", "a quote or a bracket is not closed")),
    "two documents": (f"{GOOD}---\n{GOOD}".encode(), ("a suite is one document",)),
    "an @": (GOOD.replace("mine", "@mine").encode(), ("x.yaml:1: ", "put the value in quotes")),
    "a comma missing": (GOOD.replace("[numpy]", "[numpy {}]").encode(), ("x.yaml:6: not valid YAML",)),
    "a key twice": (GOOD.replace("  lr: 1e-3", "  epochs: 3").encode(), ("x.yaml:5: epochs: given twice", "x.yaml:4")),
    "a name that is a boolean": (
        GOOD.replace("mine", "no").encode(),
        ("x.yaml:1: name: found no (a boolean)", 'in quotes it is text: "no"'),
    ),
    "a name that is a number": (
        GOOD.replace("mine", "2024").encode(),
        ("name: found 2024", 'in quotes it is text: "2024"'),
    ),
    "a decimal comma": (GOOD.replace("1e-3", "0,001").encode(), ("x.yaml:5: train.lr", "expected a number")),
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Path]:
    monkeypatch.chdir(tmp_path)

    def write(content: bytes) -> Path:
        Path("x.yaml").write_bytes(content)
        return Path("x.yaml")

    return write


@pytest.mark.parametrize("kind", READ)
def test_what_is_a_suite_all_the_same(kind: str, write: Callable[[bytes], Path]) -> None:
    suite = load_suite(write(READ[kind]))
    assert (suite.name, suite.train.epochs, suite.train.lr) == ("mine", 2, 1e-3)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_it_is_instead(kind: str, write: Callable[[bytes], Path]) -> None:
    content, expected = REFUSED[kind]
    with pytest.raises(UserError) as caught:
        load_suite(write(content))
    message = str(caught.value)
    assert [part for part in expected if part not in message] == [], message
    assert all(line.isprintable() for line in message.splitlines())


def refused(path: Path) -> str:
    """The message, or the path of what can be read."""
    try:
        return load_suite(path).path
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("step", range(1, len(GOOD), 7))
def test_a_suite_that_is_cut_off_anywhere(step: int, write: Callable[[bytes], Path]) -> None:
    """It is read or refused, with the file's name; nothing else is raised."""
    for content in (GOOD.encode()[:step], GOOD.encode("utf-16")[:step], GOOD.encode()[:step] + b"\xff"):
        assert refused(write(content)).startswith("x.yaml")


def test_other_things_than_files(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    write(GOOD.encode())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "suite.yaml").write_text(GOOD)
    (tmp_path / "gone.yaml").symlink_to("nowhere.yaml")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    for name, expected in {
        "run": 'run: a folder; name a .yaml file; did you mean "run/suite.yaml"?',
        "gone.yaml": "gone.yaml: no such file: a link to nowhere.yaml, which does not exist",
        "circle.yaml": "circle.yaml: ",
        "x.yml": 'x.yml: no such file; did you mean "x.yaml"? Valid: x.yaml.',
        "/dev/null": "/dev/null: not a regular file",
        "x.yaml/y.yaml": "x.yaml/y.yaml: ",
        "y" * 300: "y" * 300,
        "a\0b.yaml": "a",
    }.items():
        with pytest.raises(UserError) as caught:
            load_suite(name)
        assert str(caught.value).startswith(expected), name


def test_a_named_pipe_is_read_once(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    write(GOOD.encode())
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=(GOOD,), daemon=True)
    writer.start()
    suite = load_suite("pipe")
    writer.join()
    assert (suite.name, suite.source) == ("mine", GOOD)


def test_characters_are_counted_as_editors_do() -> None:
    text = "a: 1\nb: \u00a02\t\r\n\u200b\u200bc: 3\n"
    assert invisible(text) == {
        2: "column 4 is U+00A0, a no-break space",
        3: "column 1 is U+200B, a zero-width space; 1 more in this line",
    }
    assert invisible("only: ASCII\n") == {}
    assert visible("a\u00a0b\x1b[0m é 数\n") == "a<U+00A0>b<U+001B>[0m é 数\n"
