"""A suite's question, answered in sentences: which implementation is how many times as fast, and whether errors are equal.

Every ratio and every difference comes with its interval, or with the reason why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.analysis.cells import Cell, Change
from harness.analysis.doubtful import is_doubtful
from harness.analysis.equivalence import INTERVAL, Pair, caveat, interval_text, p_text, points_text, varies
from harness.analysis.images import ImageRow
from harness.analysis.labels import setting, spoken
from harness.analysis.seeds import OverSeeds
from harness.stats import difference
from harness.text import number

_FEW = 3
"""Up to so many settings are spoken of one by one, more of them together."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast `b` is as `a`, in seconds per epoch; `low` to `high`: its 95% interval, if there is one.

    `over`: what the interval is over. Of seeds it is Welch's, of the logarithms. Of one seed each, it takes both ends of the
    intervals of both medians over steady epochs, and so is wider than 95%; it says nothing of other seeds. `is_doubtful`:
    other work, a low priority or heat had a part in the times, so that nothing is claimed.
    """

    a: str
    b: str
    params: dict[str, Any]
    value: float
    low: float | None
    high: float | None
    over: Literal["seeds", "epochs"] | None
    is_doubtful: bool = False

    @property
    def is_shown(self) -> bool:
        """Whether the interval is all on one side of 1, and the times are a measure."""
        if self.low is None or self.high is None:
            return False
        return not self.is_doubtful and not self.low <= 1 <= self.high


@dataclass(frozen=True)
class Answer:
    """The answer to a suite's question: sentences, the ratios behind them, and what is to be said once of all of them."""

    sentences: list[str]
    ratios: list[Ratio]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The key "answer" of `report --json`."""
        return {"sentences": self.sentences, "notes": self.notes, "speed": [asdict(each) for each in self.ratios]}


def answer(seeds: OverSeeds) -> Answer:
    """What the run says to its question, the first planned implementation being what others are compared with."""
    by_setting: dict[str, list[Cell]] = {}
    for cell in seeds.cells:
        if cell.counted:
            by_setting.setdefault(repr(cell.params), []).append(cell)
    pairs = [(cells[0], other) for cells in by_setting.values() for other in cells[1:]]
    ratios = [found for a, b in pairs if (found := ratio(a, b))]
    sentences = list(_of_pairs(pairs, ratios, seeds)) if pairs else list(_of_cells(seeds.cells))
    if any(each.is_doubtful for each in ratios):
        sentences.append(
            "Nothing is claimed of speed: the times are doubtful (see the remarks)."
            if all(each.is_doubtful for each in ratios)
            else "Other times are doubtful (see the remarks): of their speed nothing is claimed."
        )
    sentences += _of_settings(seeds.changes)
    notes = ["Square brackets hold 95% intervals, if nothing else is said."] if "[" in "".join(sentences) else []
    if {len(cell.counted) for cell in seeds.cells} <= {0, 1}:
        notes.append(
            "One seed in each cell: what is said holds for these trained models; nothing is shown of other seeds "
            "(-s seed=0,1,2 adds to what is there)."
        )
    if any(pair.verdict for pair in seeds.pairs):
        notes += filter(None, [caveat([cell.trial for cell in seeds.cells])])
    if not pairs and any(is_doubtful(each) for cell in seeds.cells for each in cell.counted):
        notes.append("The seconds are doubtful: see the remarks.")
    if any(found.over == "epochs" and not found.is_doubtful for found in ratios):
        notes.append("Intervals of speed are over the steady epochs of one seed each.")
    return Answer(sentences, ratios, notes)


def ratio(a: Cell, b: Cell) -> Ratio | None:
    """How many times as fast `b` is as `a`; None if one of them has no timing."""
    of_a, of_b = (list(cell.values("epoch_s").values()) for cell in (a, b))
    if not of_a or not of_b or min(*of_a, *of_b) <= 0:
        return None
    found = difference([math.log(each) for each in of_b], [math.log(each) for each in of_a], paired=False)
    value, over = math.exp(found.difference or 0.0), None
    low = high = None
    if found.low is not None and found.high is not None and found.low < found.high:
        low, high, over = math.exp(found.low), math.exp(found.high), "seeds"
    elif len(of_a) == len(of_b) == 1:
        (ci_a,), (ci_b,) = ([each.epoch_s_ci for each in cell.counted if each.epoch_s is not None] for cell in (a, b))
        if ci_a and ci_b and min(*ci_a, *ci_b) > 0:
            low, high, over = ci_a[0] / ci_b[1], ci_a[1] / ci_b[0], "epochs"
    doubtful = any(is_doubtful(each) for cell in (a, b) for each in cell.counted if each.epoch_s is not None)
    return Ratio(a.impl, b.impl, b.params, value, low, high, over, doubtful)


def _of_pairs(pairs: Sequence[tuple[Cell, Cell]], ratios: Sequence[Ratio], seeds: OverSeeds) -> Iterator[str]:
    settings = {repr(b.params) for _, b in pairs}
    if len(settings) > _FEW:
        yield from _together(pairs, ratios, seeds.pairs)
        return
    for a, b in pairs:
        of_pair = next((each for each in ratios if (each.a, each.b, each.params) == (a.impl, b.impl, b.params)), None)
        where = f"With {setting(b.params)}, " if b.params else ""
        names = f" of {spoken(b.impl)} and {spoken(a.impl)}"  # in the order of their errors
        if of_pair and not of_pair.is_doubtful:
            error = _error(a, b, seeds)
            yield _capital(f"{where}{_speed(of_pair)}{f'; {error}' if error else ''}.")
        elif error := _error(a, b, seeds, names):
            yield _capital(f"{where}{error}.")


def _speed(found: Ratio) -> str:
    """ "TensorFlow is 1.28 times as fast as PyTorch [1.21, 1.36]", or that no difference is shown."""
    text = f"{spoken(found.b)} is {number(found.value)} times as fast as {spoken(found.a)}"
    if found.low is not None and found.high is not None:
        text += f" [{_end(found.low)}, {_end(found.high)}]"
    return text if found.is_shown or found.low is None else f"no difference in speed is shown: {text}"


def _end(value: float) -> str:
    """The end of an interval of a ratio; beyond a hundred times, digits would say nothing."""
    return "less than 0.01" if value < 0.01 else "more than 100" if value > 100 else number(value)


def _error(a: Cell, b: Cell, seeds: OverSeeds, names: str = "") -> str:
    """What is known of the two test errors; `names`: of whom they are, where that has not been said."""
    pair = next((e for e in seeds.pairs if (e.a, e.b, e.params) == (a.impl, b.impl, a.params)), None)
    if pair and pair.verdict:
        return _equal(pair, f"the test errors{names}" if names else "their test errors")
    of_a, of_b = a.summary("test_err_pct"), b.summary("test_err_pct")
    if not of_a or not of_b:
        return ""
    text = f"test errors{names} are {of_b.mean:.2f}% and {of_a.mean:.2f}%"
    row = next((each for each in seeds.images if each.a is a and each.b is b), None)
    return text + (_images(row, a, b) if row else "")


def _equal(pair: Pair, errors: str) -> str:
    """That the two errors are shown to be equal within the margin, or to differ by more, or neither."""
    test = pair.test
    margin = f"{points_text(test.margin)} points"
    found = f"difference {points_text(test.difference)} points"
    found += f" [{INTERVAL}: {interval_text(test)}]" if varies(test) else " with every seed"
    evidence = f", {p_text(test)}" if varies(test) else ""
    if pair.verdict == "equivalent":
        return f"{errors} are equal within {margin}: shown{evidence} ({found})"
    if pair.verdict == "different":
        return f"{errors} differ by more than {margin}: shown ({found})"
    return f"that {errors} are equal within {margin} is not shown{evidence} ({found})"


def _capital(text: str) -> str:
    """The sentence with a capital letter, unless it begins with a name that is written small."""
    is_a_word = text.partition(" ")[0] in ("no", "the", "that", "test")
    return text[0].upper() + text[1:] if is_a_word else text


def _images(row: ImageRow, a: Cell, b: Cell) -> str:
    """What one seed's models told wrong alone, by McNemar's exact test."""
    if len(row.by_seed) > 1:
        return ""
    (found,) = row.by_seed.values()
    if not found.only_a + found.only_b:
        return f" of the same {row.images:,} images: both have the same ones wrong"
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return (
        f" of the same {row.images:,} images, of which {spoken(b.impl)} alone has {found.only_b:,} wrong and "
        f"{spoken(a.impl)} alone {found.only_a:,} (McNemar's {p})"
    )


def _together(pairs: Sequence[tuple[Cell, Cell]], ratios: Sequence[Ratio], tested: Sequence[Pair]) -> Iterator[str]:
    """One sentence for two implementations over many settings."""
    for a, b in dict.fromkeys((a.impl, b.impl) for a, b in pairs):
        own = [each for each in ratios if (each.a, each.b) == (a, b) and not each.is_doubtful]
        parts: list[str] = []
        if own:
            middle = math.exp(sum(math.log(each.value) for each in own) / len(own))
            slowest, fastest = min(own, key=lambda each: each.value), max(own, key=lambda each: each.value)
            shown = sum(each.is_shown for each in own)
            parts.append(
                f"{spoken(b)} is {number(slowest.value)} ({setting(slowest.params)}) to {number(fastest.value)} "
                f"({setting(fastest.params)}) times as fast as {spoken(a)}, over {len(own)} settings {number(middle)} times "
                f"(geometric mean); its interval is all on one side of 1 in {shown} of them"
            )
        verdicts = [each for each in tested if (each.a, each.b) == (a, b) and each.verdict]
        if verdicts:
            equal = sum(each.verdict == "equivalent" for each in verdicts)
            apart = sum(each.verdict == "different" for each in verdicts)
            margin = points_text(verdicts[0].test.margin)
            parts.append(
                f"test errors are shown to be equal within {margin} points in {equal} of {len(verdicts)} settings, and to "
                f"differ by more in {apart}"
            )
        if parts:
            yield "; ".join(parts) + "."


def _of_cells(cells: Sequence[Cell]) -> Iterator[str]:
    """A run of one implementation: what each of a few cells reaches."""
    counted = [cell for cell in cells if cell.counted]
    for cell in counted[:_FEW]:
        error, seconds = cell.summary("test_err_pct"), cell.summary("epoch_s")
        parts: list[str] = []
        if error:
            parts.append(f"a test error of {error.mean:.2f}%" + _interval(error.low, error.high))
        if seconds:
            parts.append(f"{number(seconds.mean)} s per epoch" + _interval(seconds.low, seconds.high))
        if parts:
            yield f"{spoken(cell.impl)}{f' with {setting(cell.params)}' if cell.params else ''} has {' and '.join(parts)}."
    if len(counted) > _FEW:
        yield f"The table has {len(counted) - _FEW} more cells."


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{number(max(0.0, low))}, {number(high)}]"


def _of_settings(changes: Sequence[Change]) -> Iterator[str]:
    """What each setting of the grid does to the error: how often a difference is shown, and the largest that is."""
    tested = [each for each in changes if each.metric == "test_err_pct" and each.test.p is not None]
    for key in dict.fromkeys(each.key for each in tested):
        own = [each for each in tested if each.key == key]
        shown = [each for each in own if each.significant]
        name = key.rpartition(".")[2]
        if not shown:
            most = max(each.test.detectable or 0.0 for each in own)
            yield (
                f"No effect of {name} on test error is shown in {len(own)} comparison{'s' * (len(own) > 1)}; differences "
                f"below {number(most, 2)} points would mostly be missed."
            )
            continue
        change = max(shown, key=lambda each: abs(each.test.difference or 0.0))
        test = change.test
        less, more = (change.b, change.a) if (test.difference or 0.0) < 0 else (change.a, change.b)
        size = sorted(abs(each) for each in (test.low or 0.0, test.high or 0.0))
        interval = f" [{number(size[0])}, {number(size[1])}]" if test.low != test.high else ""
        p = test.adjusted_p or 0.0
        text = (
            f"With {setting({key: change.value(less)})} test error is {number(abs(test.difference or 0.0))} points{interval} "
            f"lower than with {setting({key: change.value(more)})} ({spoken(change.a.impl)}; Holm's p "
        )
        text += "< 0.001" if p < 0.001 else f"= {p:.3f}"
        yield f"{text}; shown in {len(shown)} of {len(own)} comparisons)."
