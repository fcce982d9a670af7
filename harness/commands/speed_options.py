"""The options of `capsbench speed`; imports nothing that takes time."""

from __future__ import annotations

import argparse
from pathlib import Path

_DESCRIPTION = """\
Measure a training step and an evaluation, against the machine's own limit.

Every implementation in every setting is a cell: a process of its own, built and compiled once, compared with the
specification (to L4), and measured in turns with the others, all on the same cores. The floor is the operations of the
direct algorithm at the rate of the fastest float32 matrix product of any installed library, measured in the same rounds;
on a GPU, that of the cell's precision, or the time to move a step's bytes if that is longer. A step can be below its
floor: in the frequency domain, the large convolution takes a fifth of the direct algorithm's operations.
Exit code 1: a cell failed; the others are measured all the same."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All but those that other commands have too."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "suite", type=Path, nargs="?", metavar="SUITE",
        help="take model, data, batch and resources from a suite; default: the paper's full-size model on embedded digits",
    )  # fmt: skip
    for option, metavar, help in (
        (
            "--impl",
            "NAME",
            "torch, tf, jax, numpy, or a class of yours as package.module:Class; default: torch, tf, jax",
        ),
        ("--precision", "P", "fp32, or another that `runtime.precision` may have"),
        ("--batch", "N", "images in a training step; default: 128"),
        ("--routing", "R", "routing iterations; default: 3"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar=metavar, help=f"{help}; may be given several times"
        )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7; an interval takes 6")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="training steps a round; default: 4")
    parser.add_argument(
        "--matmul", type=int, default=4096, metavar="N", help="size of the floor's matrix product; default: 4096"
    )
    parser.add_argument("--no-gate", action="store_true", help="time what was not compared with the specification")
    parser.add_argument("--trace", type=Path, metavar="DIR", help="write a profile of each cell for ui.perfetto.dev")
    parser.add_argument(
        "--time-limit", type=float, default=900.0, metavar="S",
        help="seconds for one cell, not counting the others' turns; default: 900",
    )  # fmt: skip
