"""How far from the specification are the implementations? The table of docs/parity.md, measured here.

    python benchmarks/parity_errors.py [--impl torch,tf,jax] [--full-size] [--json FILE]

Climbs the ladder in many settings: both profiles, with and without decoder, routing 1 to 10, images of 28, 36 and 40 pixels,
batches of 7, 4, 3 and 1; or with the full-size model up to its gradients (L4), routing 1 to 10. For each kind of quantity it
prints the largest error that was found, and the error that was nearest to its tolerance, as a share of that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness import data, registry
from harness.parity import Ladder
from harness.spec import ModelSpec, OptimSpec, Runtime
from harness.spec.trial import DataConfig

COMPACT = {"conv_channels": 32, "primary_types": 8, "decoder_units": (128, 256)}
ALL = range(1, 11)


def settings(full_size: bool) -> Iterator[tuple[str, ModelSpec, int, str, range]]:
    """Yields name, model, number of images, level, and numbers of routing iterations."""
    for profile in ("paper", "official"):
        base = {"classes": 10, "profile": profile}
        if full_size:
            yield f"{profile}, full size", ModelSpec(image=(28, 28, 1), **base), 4, "L4", ALL
            continue
        compact = base | COMPACT
        yield f"{profile}, compact", ModelSpec(image=(28, 28, 1), **compact), 7, "L6", ALL
        yield f"{profile}, no decoder", ModelSpec(image=(28, 28, 1), decoder=False, **compact), 4, "L6", range(0)
        yield f"{profile}, 36 pixels", ModelSpec(image=(36, 36, 1), **compact), 1, "L6", range(0)
        yield f"{profile}, 40 pixels, r = 5", ModelSpec(image=(40, 40, 1), routing=5, **compact), 3, "L4", range(0)


def measure(name: str, precision: str, full_size: bool) -> None:
    """Prints one line of JSON per check."""
    implementation = registry.load(registry.resolve(name))
    digits = data.load(DataConfig(name="digits")).train
    compiled = not (name == "torch" and precision == "fp64")
    for setting, model, count, level, routing in settings(full_size):
        optim, runtime = (
            OptimSpec(),
            Runtime.model_validate({"precision": precision, "compile": compiled, "threads": 2}),
        )
        edge = (model.image[0] - 28) // 2
        images = np.pad(digits.images[:count], ((0, 0), (edge, edge), (edge, edge), (0, 0)))

        def make(
            model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False, runtime: Runtime = runtime
        ) -> object:
            return implementation(model, optim or OptimSpec(), runtime.model_copy(update={"compile": compile}))

        impl = implementation(model, optim, runtime)
        ladder = Ladder(impl, model, optim, runtime, images, digits.labels[:count], make=make, routing=routing)
        ladder.climb(level)
        for check in ladder.checks:
            line = [name, precision, setting, check.level, check.kind, check.name, check.rel_err, check.tolerance]
            print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", default="torch,tf,jax", help="names, separated by commas")
    parser.add_argument("--full-size", action="store_true", help="the paper's model instead of compact ones")
    parser.add_argument("--json", type=Path, help="append every single check to this file, a line each")
    parser.add_argument("--precision", help=argparse.SUPPRESS)  # set when it calls itself, one process for each
    arguments = parser.parse_args()
    if arguments.precision:
        measure(arguments.impl, arguments.precision, arguments.full_size)
        return
    rows: list[list] = []
    for name in arguments.impl.split(","):
        for precision in ("fp64", "fp32"):
            command = [sys.executable, __file__, "--impl", name, "--precision", precision]
            command += ["--full-size"] if arguments.full_size else []
            output = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            ).stdout
            rows += [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    if arguments.json:
        with arguments.json.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    table(rows)


def table(rows: list[list]) -> None:
    kinds = ("forward", "loss", "grad", "moment", "update", "trajectory")
    print("| impl | precision | quantity | checks | largest error | nearest to its tolerance | fails |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name, precision in dict.fromkeys((row[0], row[1]) for row in rows):
        for kind in kinds:
            of = [row[6:] for row in rows if row[:2] == [name, precision] and row[4] == kind]
            if not of:
                continue
            nearest = max(error / tolerance for error, tolerance in of)
            fails = sum(error > tolerance for error, tolerance in of)
            largest = max(error for error, _ in of)
            print(f"| {name} | {precision} | {kind} | {len(of)} | {largest:.1e} | {nearest:.2g} | {fails} |")


if __name__ == "__main__":
    main()
