"""The blocks of commands in the README and in docs/, and what is to be done with each.

A comment before a block says it:

- `<!-- skip: REASON -->`: it is left out;
- `<!-- plan -->`: its runs are planned instead, its speed is not measured;
- `<!-- fails: CODE -->`: it ends with this exit code;
- `<!-- run: example -->`, `<!-- plan: example -->`: with a finished run in runs/quickstart, of which 3fa1 stands for a trial.

Without one, it is run as it stands. `python -m tests.docs.run` does all that.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REASONS = {
    "needs a cluster", "needs a GPU", "needs the network", "installs", "takes long", "does not end by itself", "a job of CI",
    "an example, with a file of yours",
}  # fmt: skip
"""Why a block may be left out."""
_COMMANDS = re.compile(
    r"(?:\w*\$ )?(?:\w+=\S+ )*(capsbench|make|pip|python3?|cd|cp|source|docker|ray|sbatch|kubectl)\b"
)
_PROMPT = re.compile(r"\w*\$ ")
_MARK = re.compile(r"<!-- (skip|plan|fails|run)(?:: (.*?))? -->")


@dataclass(frozen=True)
class Block:
    """Commands as they stand on a page."""

    page: str
    line: int
    text: str
    mark: str = ""
    said: str = ""  # after the mark's colon

    @property
    def place(self) -> str:
        """page:line."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines to type: those after a prompt if there are any, else all; continued lines are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        typed = [line[found.end() :] for line in lines if (found := _PROMPT.match(line))]
        return typed or [line for line in lines if line.strip()]

    @property
    def has_prompts(self) -> bool:
        """Whether it shows what was typed after "$", or after a machine's name and "$"."""
        return any(map(_PROMPT.match, self.text.splitlines()))

    def invocations(self) -> list[list[str]]:
        """The arguments of each `capsbench` in it."""
        found: list[list[str]] = []
        for line in self.commands:
            words: list[str] = []
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:  # a quoted text over several lines
                continue
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            for at, word in enumerate(words):
                is_first = at == 0 or words[at - 1] in ("|", "&&", ";", "||", "time", "--")
                if word == "capsbench" and is_first:
                    ends = [i for i in range(at, len(words)) if re.fullmatch(r"[|&;<>()]+", words[i])]
                    found.append(words[at + 1 : ends[0] if ends else None])
        return found


def blocks(path: Path) -> list[Block]:
    """The blocks of a page that hold commands, fenced or indented."""
    page, lines = path.relative_to(ROOT).as_posix(), path.read_text().splitlines()
    found: list[Block] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        start = at
        if line.lstrip().startswith("```"):
            at = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            body, is_code = lines[start + 1 : at], line.strip() in ("```", "```sh", "```bash", "```console")
            if line.strip() == "```python":
                body, is_code = ["python - <<'PYTHON'", *body, "PYTHON"], True
        elif line.startswith("    ") and _COMMANDS.match(line[4:]) and not lines[at - 1].strip():
            while at + 1 < len(lines) and lines[at + 1].startswith("    "):
                at += 1
            body, is_code = [each[4:] for each in lines[start : at + 1]], True
        else:
            at += 1
            continue
        at += 1
        if is_code and any(_COMMANDS.match(each) for each in body):
            before = next((each.strip() for each in reversed(lines[:start]) if each.strip()), "")
            mark = _MARK.fullmatch(before)
            found.append(Block(page, start + 1, "\n".join(body) + "\n", *(mark.groups(default="") if mark else ())))
    return found


def pages() -> list[Path]:
    """The README, then every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def all_blocks() -> list[Block]:
    """Of all pages."""
    return [block for path in pages() for block in blocks(path)]
