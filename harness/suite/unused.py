"""Settings that change nothing: refused if no trial of a suite needs them, left out of the trials that do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import get_args

from harness import models
from harness.spec.trial import LrDecay
from harness.suite.draft import Draft
from harness.suite.keys import Sections, known

_DECODER = frozenset({"train.decoder.lr", "train.decoder.weight_decay"})
_NO_DECAY = {"epoch": frozenset({"steps"}), "constant": frozenset({"rate", "steps", "floor"})}
"""Kind of learning-rate decay -> keys of `LrDecay` without effect on it. With "epoch" the number of steps is given."""


def idle_keys(sections: Sections) -> frozenset[str]:
    """The keys that change nothing in this configuration, whatever their values."""
    model = sections.model
    return _idle(model.kind, models.load(model.kind).has_decoder(model), sections.train.lr_decay.kind, models.names())


@cache
def _idle(kind: str, decodes: bool, decay: str, _kinds: tuple[str, ...]) -> frozenset[str]:
    keys = {f"model.{name}" for name in models.foreign(kind)} | (set[str]() if decodes else _of_decoders())
    return frozenset(keys | {f"train.lr_decay.{name}" for name in _NO_DECAY.get(decay, ())})


def without_idle(sections: Sections) -> Sections:
    """The same configuration with every idle setting at its default, so that equivalent configurations are equal."""
    plain = sections.model_dump()
    for key in idle_keys(sections):
        *path, name = key.split(".")
        inner = plain
        for section in path:
            inner = inner[section]
        inner.pop(name, None)
    return Sections.model_validate(plain)


def misplaced(draft: Draft, configurations: Sequence[Sections]) -> Iterator[tuple[str, str]]:
    """(key, message) for each given setting that is idle in all `configurations` to be run.

    Settings in the file for its own model or schedule are not mistakes if -s asks for another one, nor if the file
    names no kind of model and has settings for several.
    """

    def is_asked(key: str) -> bool:
        return (draft.place(key) or "").startswith("-s ")

    idle = frozenset[str].intersection(*map(idle_keys, configurations))
    of_models = [key for key in known().section if _is_of_a_kind(key) and draft.place(key)]
    is_for_either = draft.place("model.kind") is None and not idle.issuperset(of_models)
    for key in known().section:
        if key not in idle or draft.place(key) is None:
            continue
        excused = any(map(is_asked, _deciding(key))) or (
            is_for_either and key in of_models and key not in _of_decoders()
        )
        if is_asked(key) or not excused:
            yield key, _reason(key, draft, configurations)


def _of_decoders() -> frozenset[str]:
    """The keys that have no effect on a model without a decoder."""
    own = (f"model.{name}" for kind in models.settings() for name in models.load(kind).decoder_settings)
    return _DECODER | frozenset(own)


def _is_of_a_kind(key: str) -> bool:
    section, _, name = key.rpartition(".")
    return section == "model" and any(name in keys for keys in models.settings().values())


def _deciding(key: str) -> tuple[str, ...]:
    """The settings that decide whether `key` is idle."""
    if key in _of_decoders():
        return "model.kind", "model.decoder"
    return ("model.kind",) if key.startswith("model.") else ("train.lr_decay.kind",)


def _reason(key: str, draft: Draft, configurations: Sequence[Sections]) -> str:
    kinds = {each.model.kind for each in configurations}
    name = key.rpartition(".")[2]
    if key.startswith("model.") and all(name in models.foreign(kind) for kind in kinds):
        own = ", ".join(sorted({key for kind in kinds for key in models.settings()[kind]}))
        kind = next(kind for kind, keys in models.settings().items() if name in keys)
        return f'kind "{_either(kinds)}" has no such setting; drop it, or set model.kind to {kind}. It has: {own}'
    if key in _of_decoders():
        decoding = [kind for kind in models.settings() if models.load(kind).can_decode]
        if kinds & {*decoding}:
            return f"found {draft.found(key)}, but no model here has a decoder; drop it, or set model.decoder to true"
        return (
            f'found {draft.found(key)}, but models of kind "{_either(kinds)}" have no decoder; drop it, or set model.kind '
            f"to {_either(decoding)}"
        )
    decays = {each.train.lr_decay.kind for each in configurations}
    others = [kind for kind in get_args(LrDecay.model_fields["kind"].annotation) if name not in _NO_DECAY.get(kind, ())]
    return (
        f'found {draft.found(key)}, but kind "{_either(decays)}" has no such setting; drop it, or set train.lr_decay.kind to '
        f"{_either(others)}"
    )


def _either(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))
