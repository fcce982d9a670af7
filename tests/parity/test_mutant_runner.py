"""Mutants on the users' ladder: a sample chosen by the commit, and the runner itself."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.parity.faults.capsnet import FAULTS
from harness.parity.faults.catalogue import MORE_FAULTS
from harness.parity.faults.cnn import CNN_FAULTS
from harness.parity.faults.leak import LEAK_FAULTS
from harness.parity.faults.mutate import Edit, edited
from harness.parity.faults.overlay import OVERLAY_FAULTS
from tests.mutants.catalogue import (
    FRAMEWORKS,
    MORE,
    MORE_NOT_WRITTEN,
    NEEDED,
    NOT_AT_THE_GATE,
    VARIANTS,
    Mutant,
    mutants,
    unmutated,
)
from tests.mutants.crew import Job, run_jobs
from tests.mutants.run import SETUPS, Fate, main, run, sample, table
from tests.mutants.setups import command_model, command_trial, gate_trial

ROOT = Path(__file__).parents[2]
DRAWN = 4  # one of each framework and one without a fault, in a setup that is drawn as well: about a minute
ALL = mutants({variant: command_model(variant) for variant in VARIANTS})


def commit() -> str:
    """The sample's seed: another one for every commit, the same one where there is no git."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no commit"


def test_a_sample_drawn_by_the_commit_dies_and_what_is_right_lives(tmp_path: Path) -> None:
    seed = commit()
    setup = SETUPS[hashlib.sha256(seed.encode()).digest()[0] % 2]
    chosen = sample([each for each in (*unmutated(), *ALL) if each.is_run_in(setup)], DRAWN, seed)
    fates = run(chosen, (setup,), 120.0, 1, tmp_path / "log")
    assert {fate.mutant for fate in fates} >= set(chosen)
    assert not [f"{fate.setup} {fate.mutant.framework} {fate.mutant.name}" for fate in fates if not fate.is_right]


def test_what_hangs_and_what_dies_is_told_and_the_next_climbs_in_a_new_process(tmp_path: Path) -> None:
    line = "self.batch = batch\n"
    dies, hangs, dies_too = (
        Mutant("torch", "network", "paper", FAULTS[0], (Edit("impl.py", line, f"{line}        {statement}\n"),))
        for statement in ("import os; os._exit(3)", "while True: pass", "import os; os._exit(4)")
    )
    trial = [gate_trial("paper", "torch").model_dump_json()]
    found: dict[Mutant, dict[str, Any]] = {}
    run_jobs(
        [Job(each, "gate", trial) for each in (dies, hangs, dies_too)],
        lambda job, answer: found.update({job.mutant: answer}),
        time_limit_s=10,
        at_once=1,
        log=tmp_path / "log",
    )
    assert found == {
        dies: {"outcome": "death", "what": "exit code 3", "seconds": 0.0},
        hangs: {"outcome": "time limit", "what": "10 s", "seconds": 10.0},
        dies_too: {"outcome": "death", "what": "exit code 4", "seconds": 0.0},
    }


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
def test_every_further_fault_is_written_or_it_is_said_why_not(framework: str) -> None:
    written, left_out = MORE[framework].keys(), MORE_NOT_WRITTEN[framework].keys()
    assert written | left_out == {fault.name for fault in MORE_FAULTS}
    assert not written & left_out
    for edits in MORE[framework].values():
        for module, source in edited(f"impls.{framework}", edits).items():
            compile(source, module, "exec")


def test_no_two_faults_have_one_name_or_say_the_same() -> None:
    shared = {fault.name for fault in FAULTS}
    others = [fault for fault in CNN_FAULTS if fault.name not in shared]
    every = [*FAULTS, *others, *OVERLAY_FAULTS, *LEAK_FAULTS, *MORE_FAULTS]
    assert len({fault.name for fault in every}) == len(every)
    assert len({fault.says for fault in every}) == len(every)


def test_every_mutant_is_of_a_model_that_it_makes_a_difference_to() -> None:
    models = {variant: command_model(variant) for variant in VARIANTS}
    for each in ALL:
        assert each.fault is not None
        assert each.fault.applies(models[each.variant]), each.name
        assert each.fault.level != "audit"
    assert NOT_AT_THE_GATE.keys() | NEEDED.keys() <= {each.name for each in ALL}
    assert {each.variant_in(setup) for each in ALL for setup in ("command", "gate")} == set(VARIANTS)


def test_at_the_gate_a_setting_is_there_that_a_fault_ignores() -> None:
    found = {variant: gate_trial(variant, "torch").train for variant in VARIANTS}
    of_decoder = found["weight decay"].decoder.weight_decay
    assert of_decoder is not None
    assert found["weight decay"].weight_decay > of_decoder > 0
    assert found["weight decay"].decoder.lr not in (None, found["weight decay"].lr)
    kinds = [found[variant].lr_decay.kind for variant in ("paper", "staircase", "epochs", "constant")]
    assert kinds == ["exponential", "staircase", "epoch", "constant"]


def test_the_setups_are_those_of_the_commands() -> None:
    parity, gate = command_trial("official", "jax", "fp32"), gate_trial("two digits", "tf")
    assert (parity.model.profile, parity.train.batch, parity.runtime.precision) == ("official", 128, "fp32")
    assert (gate.suite, gate.train.batch, gate.model.overlaid) == ("quickstart", 64, 2)
    assert parity.runtime.compile
    assert gate.runtime.compile


def test_a_sample_is_the_seed_s_and_of_every_framework() -> None:
    every = [*unmutated(), *ALL]
    first, again, other = (sample(every, 10, seed) for seed in ("a", "a", "b"))
    assert first == again != other
    assert [each.fault is None for each in first] == [True, *[False] * 9]
    assert [each.framework for each in first[1:]] == [*FRAMEWORKS] * 3


def test_the_table_counts_deaths_and_names_survivors_and_false_alarms() -> None:
    dead, alive = (Mutant("tf", "network", "paper", fault) for fault in FAULTS[:2])
    right = Mutant("tf", "none", "cnn")
    fates = [
        Fate(dead, "command", "failed", "L2", "r3.digit", 1.0),
        Fate(dead, "gate", "exception", "L1", "ValueError: no", 1.0),
        Fate(alive, "command", "passed", None, None, 1.0),
        Fate(alive, "gate", "failed", "L1", "shape.digit", 1.0),
        Fate(right, "gate", "failed", "L4", "grad.conv1.w", 1.0),
    ]
    assert [fate.is_right for fate in fates] == [True, True, False, True, False]
    text = table(fates)
    assert "| tf | network | 1 of 2 | 2 of 2 |" in text
    assert f"Survivors:\n- command, tf: {FAULTS[1].name}\n\n" in text
    assert "False alarms:\n- gate, tf: none (cnn) (failed at L4: grad.conv1.w)" in text
    assert f"- gate, tf: {FAULTS[0].name} (exception at L1: ValueError: no)" in text


def test_what_raises_counts_where_the_implementation_without_a_fault_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setup that is broken raises for everybody, and proves nothing of any mutant."""
    raises = (Edit("impl.py", "self.batch = batch\n", "raise ValueError\n"),)
    mutant = Mutant("torch", "network", "paper", FAULTS[0], raises)
    fate, control = run([mutant], ("gate",), 120.0, 1, tmp_path / "log")
    assert (fate.outcome, fate.is_right) == ("exception", True)
    assert (control.mutant, control.outcome) == (Mutant("torch", "none", "paper"), "passed")
    broken = gate_trial("paper", "torch").model_copy(update={"impl": "tests.nowhere:Nothing"}).model_dump_json()
    monkeypatch.setattr("tests.mutants.run._trials", lambda each, setup: [broken])
    fates = run([mutant], ("gate",), 120.0, 1, tmp_path / "log")
    assert not any(fate.is_right for fate in fates)


def test_an_edit_that_does_not_fit_kills_nothing(tmp_path: Path) -> None:
    mutant = Mutant("torch", "network", "paper", FAULTS[0], (Edit("impl.py", "no such text", ""),))
    trial = [gate_trial("paper", "torch").model_dump_json()]
    found: list[dict[str, Any]] = []
    run_jobs(
        [Job(mutant, "gate", trial)],
        lambda _, answer: found.append(answer),
        time_limit_s=60,
        at_once=1,
        log=tmp_path / "log",
    )
    assert found[0]["outcome"] == "not made"
    assert "occurs 0 times in impl.py" in found[0]["what"]
    assert not Fate(mutant, "gate", "not made", None, found[0]["what"], 0.0).is_right


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nothing-like-it"]) == 2
    assert "no such mutant" in capsys.readouterr().err
