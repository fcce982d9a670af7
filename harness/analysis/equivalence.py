"""L7: do implementations reach the same test error? Trained to the end with several seeds, they are compared in pairs.

The levels below prove equality to a tolerance, step by step. After thousands of steps rounding alone has led two
correct implementations to different weights. What must then still agree is the test error, on average over seeds. No
pair's verdict is adjusted for the number of pairs: "all of them are equivalent" is claimed only if every pair's test
says so, which keeps its error below that of one test (Berger 1982, intersection-union tests).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness import data
from harness.analysis.labels import setting
from harness.errors import UserError
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.spec.trial import Trial
from harness.stats import Equivalence, equivalence

ALPHA = 0.05
INTERVAL = f"{100 * (1 - 2 * ALPHA):g}%"
Verdict = Literal["equivalent", "not shown", "different"]
_SIGNS = {"equivalent": "=", "different": "!=", "not shown": "?", None: "?"}


@dataclass(frozen=True)
class Pair:
    """Two implementations in one setting; `test` is for the test error of `a` minus `b`'s, in percentage points."""

    a: str
    b: str
    params: dict[str, Any]  # the setting: the grid's values other than impl and seed
    test: Equivalence

    @property
    def verdict(self) -> Verdict | None:
        """Equivalent: the whole interval is within the margin. Different: it is all beyond. None: too few seeds."""
        test = self.test
        if test.equivalent is None or test.low is None or test.high is None:
            return None
        if test.equivalent:
            return "equivalent"
        return "different" if test.low > test.margin or test.high < -test.margin else "not shown"

    @property
    def needs_seeds(self) -> bool:
        """Whether equivalence fails only because the interval is too wide."""
        test = self.test
        return self.verdict == "not shown" and test.difference is not None and abs(test.difference) < test.margin

    def to_json(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b, "params": self.params, "verdict": self.verdict, **asdict(self.test)}


def compare(results: Sequence[Result], margin: float) -> list[Pair]:
    """Every pair of implementations, for every setting that was planned with at least two seeds.

    Only finished trials count, if parity passed and the audit did not fail. If both sides have the same seeds, the
    comparison is paired, as a seed gives both the same initial weights, order and shifts.
    """
    settings: dict[str, dict[str, list[Result]]] = {}
    for result in (each for each in results if each.phase != "proposal"):
        settings.setdefault(repr(result.params), {}).setdefault(result.impl, []).append(result)
    pairs: list[Pair] = []
    for impls in settings.values():
        if len({result.seed for of_impl in impls.values() for result in of_impl}) < 2:
            continue
        pairs += [_pair(a, b, margin) for a, b in itertools.combinations(impls.values(), 2)]
    return pairs


def _pair(a: Sequence[Result], b: Sequence[Result], margin: float) -> Pair:
    of_a, of_b = _errors(a), _errors(b)
    paired = of_a.keys() == of_b.keys()
    test = equivalence(
        [of_a[seed] for seed in sorted(of_a)], [of_b[seed] for seed in sorted(of_b)], margin, ALPHA, paired=paired
    )
    if test.reason:
        counts = ((side[0].impl, len(errors), len(side)) for side, errors in ((a, of_a), (b, of_b)))
        few = " and ".join(f"{found} of {planned} seeds of {impl}" for impl, found, planned in counts if found < 2)
        reason = f"{few} finished with good parity; an equivalence needs at least 2 on each side"
        test = replace(test, reason=reason)
    return Pair(a[0].impl, b[0].impl, a[0].params, test)


def _errors(results: Sequence[Result]) -> dict[int, float]:
    return {
        result.seed: result.test_err_pct
        for result in results
        if result.status == "finished" and result.parity_ok is True and result.test_err_pct is not None
    }


def of_journal(journal: Journal) -> tuple[list[Trial], list[Pair]]:
    """The trials of the latest plan, and their pairs. Raises `UserError` if the journal is damaged."""
    trials = [journal.trial(str(each["id"])) for each in journal.plan().get("trials", ())]
    results = [summarise(trial, journal.events(trial.id)) for trial in trials]
    return trials, compare(results, trials[0].parity.margin_pct) if trials else []


def caveat(trials: Sequence[Trial]) -> str | None:
    """What to say if the test set is too small to resolve the margin; None if it is not."""
    images, margin = min(data.sizes(trial.data)[2] for trial in trials), trials[0].parity.margin_pct
    if 100 / images <= margin:
        return None
    return (
        f"L7: one of {images:,} test images is {points_text(100 / images)} points, more than the margin of "
        f"{points_text(margin)}; "
        "use a larger test set, or set parity.margin_pct"
    )


def sentence(pair: Pair) -> str:
    """One line: "L7 torch = tf: test error differs by 0.02 points, 90% interval -0.08 to 0.12, within the margin ..."."""
    test, verdict = pair.test, pair.verdict
    head = f"L7 {pair.a} {_SIGNS[verdict]} {pair.b}" + (f", {setting(pair.params)}" if pair.params else "") + ": "
    if verdict is None:
        return f"{head}no verdict: {test.reason}"
    found = f"test error differs by {points_text(test.difference)} points"
    found += f", {INTERVAL} interval {interval_text(test)}" if varies(test) else " with every seed"
    if verdict == "different":
        return f"{head}different: {found}, beyond the margin of {points_text(test.margin)} ({_seeds(test)})"
    evidence = f"({_seeds(test)}, {p_text(test)})" if varies(test) else f"({_seeds(test)})"
    if verdict == "equivalent":
        return f"{head}{found}, within the margin of {points_text(test.margin)} {evidence}"
    unshown = "not shown to be equivalent" + (", needs more seeds" if pair.needs_seeds else "")
    return f"{head}{unshown}: {found}, not within the margin of {points_text(test.margin)} {evidence}"


def points_text(value: float | None) -> str:
    """Thousandths of a percentage point, without trailing zeros."""
    text = f"{value or 0:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def varies(test: Equivalence) -> bool:
    """Whether the difference varied over seeds; if not, an interval and a p-value would claim too much."""
    return test.low != test.high


def interval_text(test: Equivalence) -> str:
    return f"{points_text(test.low)} to {points_text(test.high)}"


def p_text(test: Equivalence) -> str:
    p = test.p or 0.0
    return f"p = {points_text(p)}" if p >= 0.001 else "p < 0.001"


def _seeds(test: Equivalence) -> str:
    return f"{test.n_a} seeds each" if test.n_a == test.n_b else f"{test.n_a} and {test.n_b} seeds"


# `capsbench parity RUN`


@dataclass(frozen=True)
class Judgement:
    """A run's pairs, of which at least one has a verdict."""

    run_dir: Path
    pairs: list[Pair]
    caveat: str | None

    @property
    def ok(self) -> bool:
        """Whether no pair is shown to be different; a pair that is not shown to be equivalent is not a failure."""
        return all(pair.verdict != "different" for pair in self.pairs)

    def to_json(self) -> dict[str, Any]:
        """The output of `parity RUN --json`."""
        return {
            "ok": self.ok,
            "level": "L7",
            "run_dir": str(self.run_dir),
            "equivalence": [pair.to_json() for pair in self.pairs],
            "warnings": [self.caveat] if self.caveat else [],
        }


def judge(run_dir: Path, options: Sequence[str] = ()) -> Judgement:
    """The pairs of the run's journal. `options`: the options of `capsbench parity` that were given; a run takes none.

    Raises `UserError` for an option, a folder without a run, or a run without two implementations to compare.
    """
    if options:
        raise UserError(
            f"{', '.join(options)}: {run_dir} is a finished run, whose test errors are compared (L7) and nothing computed. "
            "Drop the option, or give a suite's YAML file to check levels L1 to L6."
        )
    journal = Journal(run_dir)
    require_run(journal.run_dir)
    trials, pairs = of_journal(journal)
    if all(pair.verdict is None for pair in pairs):
        raise UserError(f"{run_dir}: nothing to compare: {_missing(trials, pairs)}")
    return Judgement(run_dir, pairs, caveat(trials))


def _missing(trials: Sequence[Trial], pairs: Sequence[Pair]) -> str:
    impls, seeds = (list(dict.fromkeys(getattr(trial, key) for trial in trials)) for key in ("impl", "seed"))
    if len(impls) < 2:
        return (
            f"one implementation ({impls[0]}); an equivalence needs at least 2: add one to grid.impl and run it again"
        )
    if len(seeds) < 2:
        return f"one seed ({seeds[0]}); an equivalence needs at least 2: add grid.seed: [0, 1, 2] and run it again"
    reasons = dict.fromkeys(sentence(pair) for pair in pairs)
    return "\n".join([*reasons, "Running the suite again goes on with what is not finished."])
