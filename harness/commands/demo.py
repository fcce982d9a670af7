"""`capsbench demo`: draw a digit, and every installed framework answers from the same weights."""

from __future__ import annotations

import argparse
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from harness import progress
from harness.commands.output import print_json, tell
from harness.disk import write_atomic
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.prediction.trained import Trained

PORT = 8017
_MARK = b'<meta name="generator" content="capsbench demo">'


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench demo`."""
    command.usage = "capsbench demo [RUN TRIAL] [options]\n       capsbench demo --weights W.safetensors"
    command.add_argument(
        "words", nargs="*", metavar="RUN TRIAL",
        help="a run's directory and a trial's id or its beginning; default: weights trained on MNIST that come with capsbench",
    )  # fmt: skip
    command.add_argument(
        "--weights", metavar="best|last|EPOCH|FILE",
        help="which of the trial's weights (default: last); or a file of weights, in place of RUN TRIAL",
    )  # fmt: skip
    command.add_argument(
        "--impl", action="append", default=[], metavar="NAME",
        help="ask this implementation alone, beside the specification; may be repeated; default: every one that is installed",
    )  # fmt: skip
    command.add_argument(
        "--export", type=Path, metavar="DIR",
        help="write DIR/index.html instead: the page without frameworks, which computes by itself and needs no server",
    )  # fmt: skip
    command.add_argument("--port", type=int, metavar="N", help=f"default: {PORT}, or the next free one")
    command.add_argument("--no-browser", action="store_true", help="print the address only")


def main(args: argparse.Namespace) -> int:
    from harness.demo.model import requested

    if args.port is not None and not 1 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: expected a port from 1 to 65535")
    if args.export and (unused := [f"--{name}" for name in ("impl", "port") if getattr(args, name)]):
        raise UserError(f"{' and '.join(unused)}: of no use with --export, whose page asks no framework and no server")
    trained = requested(args.words, args.weights)
    with tempfile.TemporaryDirectory(prefix="capsbench-demo-") as folder:
        if args.export:
            return _export(args, trained, Path(folder))
        return _serve(args, trained, Path(folder))


def _export(args: argparse.Namespace, trained: Trained, folder: Path) -> int:
    from harness.demo.document import document

    path: Path = args.export / "index.html"
    if args.export.exists() and not args.export.is_dir():
        raise UserError(f"--export {args.export}: a file; expected a folder")
    if path.exists() and not (path.is_file() and _MARK in path.read_bytes()[:2000]):
        raise UserError(f"--export {args.export}: there is an index.html of something else; give another folder")
    try:
        args.export.mkdir(parents=True, exist_ok=True)
        write_atomic(path, document(trained, folder))
    except OSError as error:
        raise UserError(f"--export {args.export}: cannot write {path}: {error.strerror}") from error
    tell(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB). Open it in a browser; it needs no server.", "")
    if args.json:
        print_json({"page": str(path)})
    return 0


def _serve(args: argparse.Namespace, trained: Trained, folder: Path) -> int:
    from harness.demo.document import document
    from harness.demo.frameworks import contestants, running
    from harness.demo.server import LOOPBACK, application, listening, require_installed, serve
    from harness.supervisor.seat import interruptible
    from harness.views.mlflow.addresses import has_display

    require_installed()
    each, missing = contestants(trained, args.impl)
    with listening(args.port or PORT, or_next=args.port is None) as (own, port), interruptible() as stop:
        with progress.task("making the page"):
            page = document(trained, folder, missing=missing)
        with running(trained, each, folder) as frameworks:
            url = f"http://{LOOPBACK}:{port}"

            def ready() -> None:
                names = ", ".join(one.entry.name for one in each)
                tell(f"Draw a digit: {url}\nAsked from the same weights: {names}. Ctrl-C ends the demo.", "")
                if args.json:
                    print_json({"url": url, "impls": [one.entry.name for one in each], "missing": missing})
                if not args.no_browser and has_display():
                    webbrowser.open(url)

            serve(application(page, trained.model, frameworks), own, stop, ready)
    return 0
