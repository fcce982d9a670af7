"""`capsbench summary`: the models of a suite, layer by layer: the output and the number of parameters of each."""

from __future__ import annotations

import argparse

from rich.table import Table

from harness import models
from harness.analysis.labels import setting
from harness.commands import parser
from harness.commands.output import print_json
from harness.cost.layers import Summary, summaries
from harness.cost.operations import forward_flops
from harness.suite.suite import load_suite
from harness.views.messages import Console
from harness.views.tables import print_table


def table(summary: Summary) -> Table:
    """One model: one row per layer, and the totals."""
    title = ", ".join(filter(None, (models.of(summary.model).title(summary.model), setting(summary.differs))))
    shown = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    shown.add_column("layer", no_wrap=True)
    shown.add_column("what", no_wrap=True)
    for name in ("output", "parameters", "MFLOP/image"):
        shown.add_column(name, justify="right", no_wrap=True)
    several = f", of {summary.model.overlaid} digits" if summary.model.overlaid > 1 else ""
    shown.add_row("image", f"pixels in 0..1{several}", _by(summary.model.image), "", "")
    for layer in summary.layers:
        megaflops = f"{layer.flops / 1e6:,.2f}"
        shown.add_row(layer.name, layer.what, _by(layer.output), f"{layer.parameters:,}", megaflops)
    total = f"{forward_flops(summary.model) / 1e6:,.2f}"
    shown.add_row("total", "", "", f"{summary.parameters:,}", total, style="bold")
    return shown


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench summary`."""
    parser.suite(command, "suites/mnist.yaml")


def main(args: argparse.Namespace) -> int:
    suite = load_suite(args.suite, args.overrides)
    found = summaries(suite.trials(2**16, lambda _: {}))  # independent of this machine
    if args.json:
        print_json({"suite": suite.name, "models": [summary.to_json() for summary in found]})
        return 0
    for summary in found:
        print_table(Console(), table(summary))
    return 0
