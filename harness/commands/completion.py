"""`capsbench completion`: what a shell needs to complete commands, options, suites, settings, runs and trials."""

from __future__ import annotations

import argparse
import os
import re
import sys

from harness.commands.shells import SCRIPTS

_LONGEST = 60  # characters that describe a candidate


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench completion`."""
    command.add_argument(
        "shell", choices=tuple(SCRIPTS), metavar="SHELL",
        help='bash, zsh or fish. For bash: eval "$(capsbench completion bash)" in ~/.bashrc; for zsh the same with zsh in '
        "~/.zshrc, after compinit; for fish: capsbench completion fish > ~/.config/fish/completions/capsbench.fish",
    )  # fmt: skip
    command.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)  # for the scripts


def main(args: argparse.Namespace) -> int:
    if args.answer:
        _answer(args.shell)
    elif args.json:
        from harness.commands.output import print_json

        print_json({"shell": args.shell, "script": SCRIPTS[args.shell]})
    else:
        sys.stdout.write(SCRIPTS[args.shell])
    return 0


def _answer(shell: str) -> None:
    """Prints a line for each candidate: the word, and what it is after a tab.

    To bash, which shows words alone and replaces only what follows the last "=" or ":", what is to be put there; before
    that, whether they are paths.
    """
    from harness.commands.completing import candidates, split
    from harness.commands.vocabulary import vocabulary

    word = os.environ.get("_CAPSBENCH_WORD", "")
    if shell == "bash":
        words = split(os.environ.get("_CAPSBENCH_LINE", ""))
    else:
        words = [*os.environ.get("_CAPSBENCH_WORDS", "").split("\n"), word]
    found = candidates(words[1:], vocabulary())
    if shell == "bash":
        kept = words[-1].removesuffix(re.sub(r"\\(.)", r"\1", word))
        kept = kept if kept.endswith(("=", ":")) else ""  # else it replaces the whole word, in its quotes
        print("paths" if found and all(each.is_path for each in found) else "words")
        for each in found:
            print(each.word[len(kept) :])
        return
    for each in found:
        about = " ".join(each.about.split())
        about = about if len(about) <= _LONGEST else f"{about[: _LONGEST - 3].rstrip()}..."
        print(f"{each.word}\t{about}" if about else each.word)
