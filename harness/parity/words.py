"""Parity reports in words: a sentence for each failure, and what a check compares."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from harness.parity.check import Check, Report
from harness.spec.conventions import accepted
from harness.text import UNKNOWN

_WORDS = (  # of a check's name, and what it compares
    (r"weight\.(.+)", r"weight \1"),
    (r"(loaded|dumped|fresh)\.weights", r"weights as \1"),
    (r"(loaded|dumped|fresh)\.moments", r"Adam's state as \1"),
    (r"compiled\.weights", "weights after compiling"),
    (r"compiled\.moments", "Adam's state after compiling"),
    (r"shape\.(.+)", r"output \1"),
    (r"parameters", "number of parameters"),
    (r"squash_zero\.(.+)", r"\1, where all primary capsules are zero"),
    (r"squash_(\w+)\.(.+)", r"\2, where the primary capsules are \1"),
    (r"r1\.(.+)", r"\1 after 1 routing iteration"),
    (r"r(\d+)\.(.+)", r"\2 after \1 routing iterations"),
    (r"forward\.(.+)", r"output \1"),
    (r"loss\.(\w+)@(\d+)", r"\1 loss of step \2"),
    (r"loss\.(.+)", r"\1 loss"),
    (r"grad\.(.+)", r"gradient of \1"),
    (r"step@(\d+)", r"number of completed steps after step \1"),
    (r"(first|second)\.(.+)@(\d+)", r"\1 moment of \2 after step \3"),
    (r"update\.(.+)@(\d+)", r"change of \1 in step \2"),
    (r"correct@(\d+)", r"number of right images of step \1"),
    (r"count@(\d+)", r"count of step \1"),
    (r"step(\d+)\.count", r"count of step \1"),
    (r"step(\d+)\.correct", r"number of right images of step \1"),
    (r"step(\d+)\.(\w+)", r"\2 loss of step \1"),
    (r"epoch\.(count|correct)", r"\1 of an epoch of several batches"),
    (r"epoch\.(total|margin|reconstruction)", r"\1 loss of an epoch of several batches"),
    (r"whole\.dump", "what was dumped before a step, after it"),
    (r"whole\.(count|correct)", r"\1 of a whole batch, against its parts"),
    (r"whole\.(total|margin|reconstruction)", r"\1 loss of a whole batch, against its parts"),
    (r"whole\.(.+)", r"gradient of \1 of a whole batch, against its parts"),
    (r"blocks\.evaluation\.(.+)", r"\1 loss of an evaluation of many batches, against its parts"),
    (r"blocks\.(.+)", r"\1 of an epoch of many steps, against the same in two"),
    (r"evaluation\.weights", "weights after an evaluation"),
    (r"evaluation\.moments", "Adam's state after an evaluation"),
    (r"evaluation\.(.+)", r"\1 of evaluation"),
    (r"close\.(.+)", r"\1 of evaluation where classes are next to each other"),
    (r"stepped\.(.+)", r"\1 of evaluation after a step"),
    (r"trained\.(.+)", r"\1 of evaluation after training"),
    (r"order\.(.+)", r"\1 of evaluation in the opposite order"),
    (r"counted\.correct", "number of right images of an epoch of 300 that are"),
    (r"tie\.predicted", "predictions where all scores are equal"),
)
_OPTIMISERS = ("staircase", "epoch", "constant", "exponential")  # `harness.parity.ladder.OPTIMISERS`
_ENDINGS = ("exception", "process", "time limit")  # names of checks that say how a climb ended early


def described(name: str) -> str:
    """A check's name in words: "grad.digit.w" -> "gradient of digit.w"; a name of unknown form is returned unchanged.

    A mark gives the probe: "grad.digit.w@even" -> "gradient of digit.w (probe even)".
    """
    bare, _, probe = name.partition("@")
    if probe and not probe.isdigit():
        return f"{described(bare)} (probe {probe})"
    for prefix in (*_OPTIMISERS, "eager"):
        inner = name.removeprefix(f"{prefix}.")
        if inner != name and (words := _words(inner)):
            return f"{words}, {'in eager mode' if prefix == 'eager' else f'with another optimiser ({prefix})'}"
    return _words(name) or name


def _words(name: str) -> str | None:
    for pattern, words in _WORDS:
        if match := re.fullmatch(pattern, name):
            return match.expand(words)
    return None


def figure(value: float) -> str:
    """Two digits, as in 0.31, 1e-4 and 3.2e-9."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.2g}"


def sentence(report: Report) -> str:
    """The failure to look at first: which tensor of the lowest failing level, its error, where, and what it looks like.

    Then the reason, if the climb ended early. If the implementation is right with conventions, these.
    """
    if report.ok:
        return f"{report.impl} {report.precision}: {report.verdict}: {'; '.join(diagnosis(report))}"
    ending = next((check for check in report.checks if check.name in _ENDINGS), None)
    compared = replace(report, checks=tuple(check for check in report.checks if check is not ending))
    if ending and compared.ok:
        return f"{report.impl} {report.precision}: {ending.level} {ending.note}"
    check = telling(compared)
    text = f"{report.impl} {report.precision}: {check.level} {_deviation(check)}"
    text += "".join(f"; {phrase}" for phrase in diagnosis(report))
    if not report.suspects and report.failed_level != "L1" and compared.is_rounding:
        text += "; as large as the rounding of float32: does it compute in float64 throughout?"
    failing = sum(not each.ok for each in compared.checks if each.level == check.level)
    if failing > 1:
        text += f" ({failing} checks of {check.level} fail)"
    return f"{text}; then {ending.level} {ending.note}" if ending else text


def diagnosis(report: Report) -> list[str]:
    """What it looks like: the faults, then the conventions and how to accept them, and what remains."""
    says = list[str]()
    if len(report.suspects) > 1:
        numbered = ", ".join(f"({number}) {fault}" for number, fault in enumerate(report.suspects, start=1))
        says.append(f"looks like {numbered}")
    elif report.suspects:
        says.append(f"looks like {report.suspects[0]}")
    if report.conventions:
        said = " and ".join(accepted(report.conventions).said())
        says.append(f"{said} (accepted with {' '.join(f'--accept {each}' for each in report.conventions)})")
    if report.unexplained and (report.suspects or report.conventions):
        says.append(f"not explained: {', '.join(report.unexplained)}")
    return says


def telling(report: Report) -> Check:
    """The earliest-computed of the lowest failing level's worst checks: the others may follow from it.

    One routing iteration comes before two and before extreme capsules, couplings before capsules, terms of the loss before
    their sum, the gradients nearest to the loss before those that go through them, one training step before the next.
    """
    failing = [check for check in report.checks if check.level == report.failed_level and not check.ok]
    failing = [check for check in failing if _probe(check) == _probe(failing[0])]  # the first one that shows it
    worst = max(check.rel_err for check in failing)
    share = 0.0 if report.failed_level == "L6" else 0.1  # a trajectory continues from its first wrong step
    among = [check for check in failing if check.rel_err >= (share * worst if math.isfinite(worst) else worst)]
    if report.failed_level == "L4":  # in the order of the forward pass
        return among[-1]
    return min(among, key=_computed)  # if several are equal, the first


def _probe(check: Check) -> str:
    """The probe of a check of outputs, losses or gradients."""
    mark = check.name.partition("@")[2]
    return "" if mark.isdigit() else mark


def _computed(check: Check) -> tuple[int, ...]:
    """Sort key: the order of computation within one level, beyond the order they are in."""
    if match := re.fullmatch(r"(?:r|step)(\d+)\.(\w+)", check.name):
        return 0, int(match[1]), {"coupling": 0, "total": 2}.get(match[2], 1)
    return (2,) if check.name.endswith(".total") else (1,)


def _deviation(check: Check) -> str:
    text = f"{described(check.name)}: "
    if check.note and check.note != "not finite":
        return text + check.note
    where = f" at {list(check.where)}" if check.where else ""
    values = f": found {_value(check.found)}, expected {_value(check.expected)}" if check.found is not None else ""
    if not math.isfinite(check.rel_err):
        return f"{text}not finite{where}{values}"
    return f"{text}relative error {figure(check.rel_err)} (tolerance {figure(check.tolerance)}){where}{values}"


def _value(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.6g}"
