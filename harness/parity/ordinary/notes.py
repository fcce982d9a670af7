"""What a user should know about how a model was examined."""

from __future__ import annotations

from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.own_loss import OwnLoss


def notes(found: Examined, loss: OwnLoss) -> list[str]:
    """The notes, one per line: what was substituted, what was not seen, what was not checked."""
    lines: list[str] = []
    if "lengths" not in found.roles:
        lines.append("it returns no lengths: they are computed from its digit capsules, as the specification does")
    if "digit" not in found.roles:
        where = "seen on the way" if found.match.layers.outputs else "and they were not seen on the way either"
        lines.append(f"it returns no digit capsules: {where}")
    if found.is_fixed and found.observed and "routing" not in found.source.sizes:
        lines.append(
            f"nothing tells its number of routing iterations: it was seen to make {found.observed}; "
            "-s model.routing=N compares it with another"
        )
    if not found.match.layers.couplings:
        lines.append("its coupling coefficients were not seen: not compared")
    if not found.match.reading.dense:
        lines.append("it has no decoder of three dense layers: reconstructions are not compared")
    if found.decode is not None:
        name = getattr(found.decode[0], "__name__", type(found.decode[0]).__name__)
        lines.append(
            f"its decoder is no part of its forward pass: called as {name}, with {found.decode[1]} capsules or labels"
        )
    if loss.is_compiled:
        lines.append("its loss: the one that it was compiled with")
    elif loss.is_returned:
        lines.append("its loss: the number that it returns where it is given labels")
    elif loss.own_loss is not None:
        lines.append(f"its loss: {loss.own_loss.name}")
    else:
        why = f" ({loss.why_no_loss})" if loss.why_no_loss else ""
        lines.append(
            f"its loss was not checked: none found{why}; gradients are of the specification's loss on its outputs. "
            "Name it: --loss NAME, or --loss file.py:NAME"
        )
    if found.unknown:
        lines.append(f"outputs of no known meaning: {', '.join(found.unknown)}")
    if found.match.grouping == "wrong":
        lines.append("its primary capsules are not one place's channels: they are numbered as they are")
    return lines
