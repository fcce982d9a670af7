"""Names what the ladder found: faults of an implementation, and mere conventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness import models
from harness.parity.diagnosis.edit_search import Candidate, named
from harness.parity.diagnosis.observed import Observed
from harness.parity.diagnosis.search import search
from harness.parity.diagnosis.variant import specified
from harness.parity.diagnosis.words import conventions_of, faults_of
from harness.parity.ladder import Ladder
from harness.spec.conventions import Conventions

SECONDS = 40.0  # the most that the search for a network takes, roughly
_NETWORK, _TRAINING = ("L2", "L3", "L4"), ("L5", "L6")


@dataclass(frozen=True)
class Diagnosis:
    """`suspects` are faults that are all present, or "a or b" if two cannot be told apart; each completes "looks like ...".

    `conventions` are legitimate deviations beyond those accepted; `unexplained` is what nothing known explains.
    """

    suspects: tuple[str, ...] = ()
    conventions: Conventions = field(default_factory=Conventions)
    unexplained: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether conventions explain everything."""
        return not self.suspects and not self.unexplained


def suspects(ladder: Ladder) -> tuple[str, ...]:
    """Only the faults."""
    return diagnose(ladder).suspects


def diagnose(ladder: Ladder, seconds: float = SECONDS) -> Diagnosis:
    """Why the ladder's implementation fails. Changes the implementation's weights and moments.

    Passes on exceptions that the implementation raises.
    """
    model, failed = ladder.at.model, {check.level for check in ladder.checks if not check.ok}
    if not failed or ladder.report("").is_rounding:
        return Diagnosis(conventions=ladder.conventions)
    has_capsules = models.of(model).has_capsules  # variants exist only for capsules
    candidates, unexplained = [Candidate(specified(ladder.conventions))], list[str]()
    if failed & {*_NETWORK}:
        is_searched = has_capsules and model.overlaid == 1
        if is_searched:
            found = search(Observed(ladder), seconds)
            candidates, unexplained = [Candidate(variant) for variant in found.variants], list(found.unexplained)
        if unexplained or not is_searched:
            edited, left = named(ladder, _NETWORK)
            if not (left and is_searched):
                candidates, unexplained = edited, left
    if not unexplained:
        candidates, unexplained = named(ladder, _TRAINING, candidates)
    phrases = [
        (*(faults_of(each.variant, model) if has_capsules else ()), *(fault.says for fault in each.faults))
        for each in candidates
    ]
    return Diagnosis(together(phrases), conventions_of(candidates[0].variant), tuple(unexplained))


def together(alternatives: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What all alternatives have in common, then one phrase for the differences: "a and b or c"."""
    common = [phrase for phrase in alternatives[0] if all(phrase in each for each in alternatives)]
    rests = [" and ".join(phrase for phrase in each if phrase not in common) for each in alternatives]
    return (*common, " or ".join(dict.fromkeys(rests))) if all(rests) else tuple(common)
