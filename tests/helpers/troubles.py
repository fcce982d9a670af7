"""The table in docs/troubleshooting.md: mistakes made for real, the message that each gets, and what to do.

`python -m tests.helpers.troubles` rewrites it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from harness.commands.cli import main
from harness.platforms import refusal

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
SUITE = "name: mine\ndata: {name: digits}\ntrain: {epochs: 2}\ngrid: {impl: [numpy]}\n"
_RUN = "RUN"  # stands for a folder with a finished run


@dataclass(frozen=True)
class Trouble:
    """A mistake: what was typed, the files that were there, and what helps beyond the message."""

    asked: str
    remedy: str
    files: Mapping[str, str | bytes] = field(default_factory=dict[str, "str | bytes"])
    message: str | None = None  # of what cannot be tried here
    shown: str = ""  # in place of what was typed

    def told(self, folder: Path) -> str:
        """The message, without the lists of what is valid, which grow with every release."""
        message = self.message or _refused(self, folder)
        message = re.sub(r"Valid: .*?\.(?= |$)", "Valid: ...", message, flags=re.MULTILINE)
        return message.partition("\nSee: ")[0].replace(str(folder), "$PWD")


def _file(shown: str, remedy: str, content: str | bytes) -> Trouble:
    """A suite's file that has the wrong content."""
    return Trouble("run mine.yaml", remedy, {"mine.yaml": content}, shown=shown)


def _line(remedy: str, **changed: str) -> Trouble:
    """A suite with another line, or one more."""
    lines = {key: value for key, _, value in (line.partition(": ") for line in SUITE.splitlines())}
    content = "".join(f"{key}: {value}\n" for key, value in {**lines, **changed}.items())
    return Trouble(
        "run mine.yaml", remedy, {"mine.yaml": content}, shown=" ".join(f"`{k}: {v}`" for k, v in changed.items())
    )


_INDENTED = "name: mine\ntrain:\n  epochs: 2\n   batch: 8\n"
TROUBLES = {
    "A suite's file": [
        Trouble("run mnits.yaml", "Check the name; paths start at the current folder.", {"mnist.yaml": SUITE}),
        Trouble("run mine.yml", "Name the file as it is called: .yaml or .yml.", {"mine.yaml": SUITE}),
        Trouble("run quikstart", "Check the name."),
        Trouble("run folder", "Name the file in it.", {"folder/mine.yaml": SUITE}),
        _file("an empty file", "Begin with `capsbench suites copy quickstart`.", ""),
        _file(
            "a web page",
            "On GitHub, download the raw file, not its page.",
            "<!DOCTYPE html>\n<html><head></head></html>\n",
        ),
        _file(
            "a pointer",
            "Install Git LFS before you clone, or fetch the file now.",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        ),
        _file(
            "UTF-16",
            "Windows PowerShell's `>` writes it: `... \\| Out-File -Encoding utf8`.",
            SUITE.encode("utf-16"),
        ),
        _file("Latin-1", "Choose UTF-8 when you save.", f"question: Für\n{SUITE}".encode("latin-1")),
        _file("a tab", "Editors can put spaces instead as you type.", "name: mine\ndata:\n\tname: digits\n"),
        _file(
            "a no-break space",
            "Delete it and type it again; it came with text from a web page.",
            SUITE.replace("data: {name", "data: {\u00a0name"),
        ),
        _file("a key one space further in than the one above", "Indent the keys of a section alike.", _INDENTED),
        _file("`name:mine`", "Write `key: value`, with a space.", "name:mine\n"),
        _file("`train:` twice", "Write all keys of a section in one place.", f"{SUITE}train: {{epochs: 3}}\n"),
    ],
    "A suite's content": [
        _line("Use the name that is offered. Keys that begin with `x-` are ignored: put anchors there.", trian="{epochs: 2}"),
        _line("The message says what the key takes.", train="{epochs: many}"),
        _line("YAML takes `no`, `on` and `off` for false and true.", name="on"),
        _line("Name one of those, or your own class.", grid="{impl: [tensorflow]}"),
        _line("`capsbench data list` shows all data sets.", data="{name: minst}"),
        _line("Lower `train.batch`, or take more images.", data="{name: digits, train: 64}"),
        Trouble("run mine.yaml train.lr=0", "The bounds are those that the message names.", {"mine.yaml": SUITE}),
        Trouble("run mine.yaml trian.lr=0.1", "The keys are those of a suite.", {"mine.yaml": SUITE}),
    ],
    "The command line": [
        Trouble("rnu quickstart", "`capsbench --help` lists the commands."),
        Trouble("run quickstart --quik", "`capsbench run --help` lists the options."),
        Trouble("run quickstart --train.lr 0.1", "Settings of a suite are no options."),
        Trouble("run quickstart train.lr = 0.1", "Write the setting without spaces."),
        Trouble("run", "Name a suite; `capsbench suites` lists the built-in ones."),
        Trouble("run quickstart --executor inline --ray-address auto", "Choose one of the two."),
        Trouble("parity --impl my-net.py:Net", "Start in the folder that has the file, or name its path.", {"my-nets.py": ""}),
        Trouble("parity --impl my-net.py", "Name the class after a colon.", {"my-net.py": "class Net: ...\n"}),
    ],
    "Runs": [
        Trouble(
            "report runs/mnits", "Name the folder that `run` printed at its end.", {"runs/mnist/plan.json": '{"trials": []}'}
        ),
        Trouble(f"export {_RUN} 9999 --to torch", "`capsbench plan SUITE` shows the ids, too."),
        Trouble(f"figures {_RUN} 9999", "`capsbench plan SUITE` shows the ids."),
        Trouble(
            "run mine.yaml --executor inline --out file/runs resources.cpus=1",  # where there is one core, too
            "Choose a folder of yours.",
            {"mine.yaml": SUITE, "file": ""},
            shown="`capsbench run mine.yaml --executor inline --out file/runs`",
        ),
    ],
    "The system": [
        Trouble("run quickstart", "Then go on there as on Linux.", message=refusal("win32")),
    ],
}  # fmt: skip


def _refused(trouble: Trouble, folder: Path) -> str:
    """What the command says; it must refuse."""
    for name, content in trouble.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if _RUN in trouble.asked:
        shutil.copytree(ROOT / "tests" / "runs" / "quickstart-0.1", folder / _RUN)
    stderr = io.StringIO()
    before, code = Path.cwd(), None
    os.chdir(folder)
    try:
        with mock.patch.dict(os.environ, {"CAPSBENCH_DATA": str(folder)}), contextlib.redirect_stderr(stderr):
            main(trouble.asked.split())
    except SystemExit as end:
        code = end.code
    finally:
        os.chdir(before)
    assert code == 2, (trouble.asked, stderr.getvalue())
    return stderr.getvalue().removeprefix("capsbench: ").strip()


def table() -> str:
    """All of it, as Markdown."""
    lines: list[str] = []
    for title, troubles in TROUBLES.items():
        lines += [f"### {title}", "", "| typed, or in the file | message | what to do |", "|---|---|---|"]
        for trouble in troubles:
            with tempfile.TemporaryDirectory() as folder:
                told = trouble.told(Path(folder).resolve())
            typed = trouble.shown or f"`capsbench {trouble.asked}`"
            lines.append(f"| {typed} | {_code(told)} | {trouble.remedy} |")
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    """As code in a cell, a line for each of the message's."""
    escaped = (line.replace("|", "\\|").strip() for line in text.splitlines())
    return "<br>".join(f"`` {line} ``" if "`" in line else f"`{line}`" for line in escaped)


def page() -> str:
    """docs/troubleshooting.md as it should be."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- messages -->\n")
    _, end, after = rest.partition("<!-- end of messages -->\n")
    assert begin
    assert end
    return f"{before}{begin}{table()}{end}{after}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
