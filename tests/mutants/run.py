"""All mutants through the ladder as users climb it: `python -m tests.mutants.run`, or `make mutants`.

Each goes through `capsbench parity`, in float64 and, where that finds nothing, in float32, and through the gate of
`capsbench run suites/quickstart.yaml`. Prints what died where, both scores, and every survivor; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.mutants.catalogue import (
    FRAMEWORKS,
    KINDS,
    NOT_AT_THE_GATE,
    VARIANTS,
    Mutant,
    left_to_the_audit,
    mutants,
    unmutated,
)
from tests.mutants.crew import Job, run_jobs
from tests.mutants.setups import command_model, command_trial, gate_trial

SETUPS = ("command", "gate")


@dataclass(frozen=True)
class Fate:
    """What became of one mutant in one setup: "passed", "failed", "exception", "time limit", "death" or "not made"."""

    mutant: Mutant
    setup: str
    outcome: str
    level: str | None
    what: str | None
    seconds: float
    is_credible: bool = True  # False: what has no fault raised, hung or died in this setup as well

    @property
    def is_right(self) -> bool:
        """A mutant has to die, what has no fault has to live; what could not be made did neither."""
        is_judged = self.is_credible and self.outcome != "not made"
        return is_judged and (self.outcome == "passed") == (self.mutant.fault is None)

    def to_json(self) -> dict[str, Any]:
        own = asdict(self) | {"mutant": self.mutant.name, "framework": self.mutant.framework}
        return own | {"kind": self.mutant.kind, "variant": self.mutant.variant}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    models = {variant: command_model(variant) for variant in VARIANTS}
    chosen = [each for each in (*unmutated(), *mutants(models)) if each.framework in (options.framework or FRAMEWORKS)]
    if options.only:
        chosen = [each for each in chosen if each.name in options.only]
    elif options.sample is not None:
        chosen = sample(chosen, options.sample, options.seed)
    if not chosen:
        print("no such mutant: --only takes names as --list prints them", file=sys.stderr)
        return 2
    if options.list:
        for name in dict.fromkeys(each.name for each in chosen):
            print(name)
        return 0
    started = time.monotonic()
    fates = run(chosen, options.setup or SETUPS, options.time_limit, options.at_once, options.log)
    if options.json:
        print(json.dumps([fate.to_json() for fate in fates], indent=1))
    else:
        print(table(fates))
        print("\nNot at the gate, where they change nothing:")
        print("\n".join(f"- {name}: {reason}" for name, reason in NOT_AT_THE_GATE.items()))
        print(f"\nLeft to the audit of a training run: {', '.join(left_to_the_audit())}")
        print(f"{len(chosen)} mutants, {(time.monotonic() - started) / 60:.1f} minutes")
    return 0 if all(fate.is_right for fate in fates) else 1


def sample(candidates: Sequence[Mutant], count: int, seed: str) -> list[Mutant]:
    """`count` of them, the same for the same seed, and of each framework in turn; one of these is what has no fault."""

    def draw(each: Mutant) -> str:
        return hashlib.sha256(f"{seed} {each.framework} {each.name}".encode()).hexdigest()

    turns = {
        framework: sorted((each for each in candidates if each.framework == framework and each.fault), key=draw)
        for framework in FRAMEWORKS
    }
    mixed = [each for at_once in zip(*(own for own in turns.values() if own), strict=False) for each in at_once]
    right = sorted((each for each in candidates if not each.fault), key=draw)
    return [*right[:1], *mixed[: max(0, count - 1)]]


def run(chosen: Sequence[Mutant], setups: Sequence[str], time_limit_s: float, at_once: int, log: Path) -> list[Fate]:
    """Of each mutant and setup, in the order given; a line on stderr for each as it ends.

    Death by anything else than a comparison counts where the implementation without a fault passes in the same setup.
    Where that is not among `chosen`, it is added at the end.
    """
    fates: dict[tuple[Mutant, str], Fate] = {}

    def tell(job: Job, found: dict[str, Any]) -> None:
        fate = Fate(
            job.mutant, job.setup, found["outcome"], found.get("level"), found.get("what"), found.get("seconds", 0.0)
        )
        fates[job.mutant, job.setup] = fate
        mark = "" if fate.is_right else "   <-- " + ("SURVIVOR" if job.mutant.fault else "FALSE ALARM")
        where = " ".join(filter(None, (fate.outcome, fate.level, fate.what)))
        print(f"{job.mutant.framework} {job.setup} {job.mutant.name}: {where}{mark}", file=sys.stderr, flush=True)

    def climb(pairs: Sequence[tuple[Mutant, str]]) -> None:
        jobs = [Job(each, setup, _trials(each, setup)) for each, setup in pairs]
        run_jobs(jobs, tell, time_limit_s=time_limit_s, at_once=at_once, log=log)

    climb([(each, setup) for each in chosen for setup in setups if each.is_run_in(setup)])
    raised = [fate for fate in fates.values() if fate.mutant.fault and fate.outcome not in ("passed", "failed")]
    controls = dict.fromkeys(_control(fate) for fate in raised)
    climb([key for key in controls if key not in fates])
    for fate in raised:
        if fates[_control(fate)].outcome != "passed":
            fates[fate.mutant, fate.setup] = replace(fate, is_credible=False)
    return list(fates.values())


def _control(fate: Fate) -> tuple[Mutant, str]:
    """The same without the fault."""
    return Mutant(fate.mutant.framework, "none", fate.mutant.variant_in(fate.setup)), fate.setup


def _trials(each: Mutant, setup: str) -> list[str]:
    """One after the other until one fails."""
    if setup == "gate":
        trials = [gate_trial(each.variant_in(setup), each.framework)]
    else:
        trials = [command_trial(each.variant, each.framework, precision) for precision in ("fp64", "fp32")]
    return [trial.model_dump_json() for trial in trials]


def table(fates: Sequence[Fate]) -> str:
    """Both scores by framework and kind, then everything that is not as it should be, and what raised or hung."""
    lines = ["| framework | kind | " + " | ".join(SETUPS) + " |", "|---|---|" + "---:|" * len(SETUPS)]
    total, killed = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for fate in fates:
        if fate.mutant.fault:
            for kind in (fate.mutant.kind, "all"):
                total[fate.mutant.framework, kind, fate.setup] += 1
                killed[fate.mutant.framework, kind, fate.setup] += fate.is_right
    for framework in FRAMEWORKS:
        for kind in (*KINDS, "all"):
            keys = [(framework, kind, setup) for setup in SETUPS]
            if any(total[key] for key in keys):
                scores = (f"{killed[key]} of {total[key]}" if total[key] else "" for key in keys)
                lines.append(f"| {framework} | {kind} | " + " | ".join(scores) + " |")
    for title, wanted in (
        ("Survivors", lambda fate: fate.mutant.fault and not fate.is_right),
        ("False alarms", lambda fate: not fate.mutant.fault and not fate.is_right),
        (
            "Killed by what they raised, or by the time they took",
            lambda fate: fate.mutant.fault and fate.is_right and fate.outcome != "failed",
        ),
    ):
        if found := [fate for fate in fates if wanted(fate)]:
            lines += ["", f"{title}:"]
            lines += [
                f"- {fate.setup}, {fate.mutant.framework}: {fate.mutant.name}"
                + (f" ({fate.outcome} at {fate.level}: {fate.what})" if fate.outcome != "passed" else "")
                for fate in found
            ]
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("--framework", action="append", choices=FRAMEWORKS, help="these alone")
    parser.add_argument("--setup", action="append", choices=SETUPS, help="these alone")
    parser.add_argument("--only", action="append", metavar="NAME", help="these alone")
    parser.add_argument("--sample", type=int, metavar="N", help="N of them, drawn")
    parser.add_argument("--seed", default="", metavar="HASH", help="what the sample is drawn by")
    parser.add_argument("--time-limit", type=float, default=180.0, metavar="SECONDS", help="of one climb")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="processes")
    parser.add_argument("--log", type=Path, default=Path("runs/mutants.log"), help="what the frameworks print")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    parser.add_argument("--json", action="store_true", help="every climb instead of the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
