"""L7 as a user meets it: after `run`, and in `parity RUN`; its verdicts and their wording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.analysis.equivalence import caveat, compare, judge, sentence
from harness.commands.cli import main
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import Result
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from harness.stats import equivalence
from harness.views.equivalence import show
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import capsbench, write_suite

TWIN = "run_helpers:HeldNet"  # the specification once more


def results(impl: str, errors: Sequence[float | None], ok: bool | None = True, **params: Any) -> list[Result]:
    """A result a seed; None stands for a trial that did not finish."""
    return [
        Result(f"{impl}-{seed}", impl, params, seed, "failed" if error is None else "finished", error, parity_ok=ok)
        for seed, error in enumerate(errors)
    ]


def line(a: Sequence[float | None], b: Sequence[float | None], margin: float = 0.25, **params: Any) -> str:
    (pair,) = compare([*results("torch", a, **params), *results("tf", b, **params)], margin)
    return sentence(pair)


# Verdicts and their wording


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (
            [0.30, 0.33, 0.35],
            [0.29, 0.30, 0.33],
            "L7 torch = tf: test error differs by 0.02 points, 90% interval 0.003 to 0.037, within the margin of 0.25 "
            "(3 seeds each, p < 0.001)",
        ),
        (
            [0.4, 0.5, 0.3],
            [0.3, 0.6, 0.4],
            "L7 torch ? tf: not shown to be equivalent, needs more seeds: test error differs by -0.033 points, "
            "90% interval -0.228 to 0.161, not within the margin of 0.1 (3 seeds each, p = 0.211)",
        ),
        (
            [0.40, 0.60, 0.50],
            [0.30, 0.30, 0.30],
            "L7 torch ? tf: not shown to be equivalent: test error differs by 0.2 points, 90% interval 0.031 to 0.369, "
            "not within the margin of 0.1 (3 seeds each, p = 0.887)",
        ),
        (
            [0.30, 0.31, 0.32],
            [0.80, 0.82, 0.81],
            "L7 torch != tf: different: test error differs by -0.5 points, 90% interval -0.517 to -0.483, "
            "beyond the margin of 0.1 (3 seeds each)",
        ),
        (
            [0.30, 0.30, 0.30],
            [0.80, 0.80, 0.80],
            "L7 torch != tf: different: test error differs by -0.5 points with every seed, "
            "beyond the margin of 0.1 (3 seeds each)",
        ),
        (
            [0.30, 0.40, 0.50],
            [0.30, 0.40, 0.50],
            "L7 torch = tf: test error differs by 0 points with every seed, within the margin of 0.1 (3 seeds each)",
        ),
        (
            [0.30, 0.32, 0.31, 0.30],
            [0.31, 0.30, 0.31],
            "L7 torch = tf: test error differs by 0.001 points, 90% interval -0.011 to 0.013, within the margin of 0.1 "
            "(4 and 3 seeds, p < 0.001)",
        ),
        (
            [0.30, None, 0.31],
            [None, 0.30, None],
            "L7 torch ? tf: no verdict: 1 of 3 seeds of tf finished with good parity; "
            "an equivalence needs at least 2 on each side",
        ),
    ],
)
def test_each_verdict_in_words(a: list[float | None], b: list[float | None], expected: str) -> None:
    assert line(a, b, 0.25 if "0.25" in expected else 0.1) == expected


def test_the_figures_are_those_of_the_test() -> None:
    a, b = [0.40, 0.60, 0.50], [0.30, 0.30, 0.31]
    (pair,) = compare([*results("torch", a), *results("tf", b)], 0.1)
    assert pair.test == equivalence(a, b, 0.1, paired=True)


def test_seeds_are_paired_whatever_their_order_and_unpaired_where_they_differ() -> None:
    torch, tf = results("torch", [1.0, 2.0, 3.0]), results("tf", [1.01, 1.99, 3.02])
    (pair,) = compare([*reversed(torch), *tf], 0.1)
    assert (pair.test.paired, pair.verdict) == (True, "equivalent")
    (pair,) = compare([*torch[:2], *tf[1:]], 0.1)  # two each, but one in common
    assert (pair.test.paired, pair.verdict, pair.test.n_a, pair.test.n_b) == (False, "not shown", 2, 2)


@pytest.mark.parametrize("ok", [False, None])
def test_without_good_parity_nothing_counts(ok: bool | None) -> None:
    (pair,) = compare([*results("torch", [0.3, 0.3]), *results("tf", [0.3, 0.3], ok=ok)], 0.1)
    assert pair.verdict is None
    assert "0 of 2 seeds of tf finished with good parity" in sentence(pair)


def test_every_pair_of_every_setting_and_none_across() -> None:
    everything = [
        each
        for routing in (1, 3)
        for impl in ("torch", "tf", "jax")
        for each in results(impl, [routing, routing + 0.01], True, **{"model.routing": routing})
    ]
    pairs = compare(everything, 0.1)
    assert [(pair.a, pair.b, pair.params["model.routing"]) for pair in pairs] == [
        (a, b, routing) for routing in (1, 3) for a, b in (("torch", "tf"), ("torch", "jax"), ("tf", "jax"))
    ]
    assert {pair.test.difference for pair in pairs} == {0}
    assert sentence(pairs[-1]).startswith("L7 tf = jax, routing 3: ")


def test_one_seed_makes_no_pairs() -> None:
    assert compare([*results("torch", [0.3]), *results("tf", [0.3])], 0.1) == []


# A journal


def trial(impl: str, seed: int, margin: float = 0.1, test: int | None = None) -> Trial:
    return Trial(
        id=f"{impl}-{seed}", suite="small", impl=impl, seed=seed, params={},
        data=DataConfig(name="digits", test=test), model=ModelSpec(image=(28, 28, 1), classes=10),
        train=TrainConfig(epochs=1), runtime=RuntimeConfig(), parity=ParityConfig(margin_pct=margin), cpus=1, gpus=0,
    )  # fmt: skip


def journal_of(folder: Path, errors: dict[str, list[float]], margin: float = 0.1) -> Path:
    """A run directory in which each implementation ended with these test errors, a seed each."""
    trials = [trial(impl, seed, margin) for impl, each in errors.items() for seed in range(len(each))]
    with Journal(folder / "run").open() as journal:
        documents = [each.model_dump(mode="json") for each in trials]
        journal.write_plan({"suite": "small", "trials": documents}, "name: small\n")
        for each in trials:
            journal.append(each.id, event({"kind": "attempt", "attempt": 1}))
            journal.append(
                each.id, event({"kind": "parity", "ok": True, "max_rel_err": 1e-6, "worst": "L4 grad.digit.w"})
            )
            journal.append(each.id, event({"kind": "result", "test_err_pct": errors[each.impl][each.seed]}))
    return folder / "run"


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return int(ended.value.code or 0)


def test_exit_code_1_only_where_a_pair_is_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors = {"torch": [0.3, 0.4, 0.5], "tf": [0.5, 0.3, 0.4]}
    run_dir = journal_of(tmp_path, errors)
    assert command("parity", run_dir, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["level"], document["run_dir"]) == (True, "L7", str(run_dir))
    assert [pair["verdict"] for pair in document["equivalence"]] == ["not shown"]
    assert document["warnings"] == [
        "L7: one of 360 test images is 0.278 points, more than the margin of 0.1; "
        "use a larger test set, or set parity.margin_pct"
    ]
    run_dir = journal_of(tmp_path, {**errors, "jax": [1.3, 1.4, 1.5]})
    assert command("parity", run_dir, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert [(pair["a"], pair["b"], pair["verdict"]) for pair in document["equivalence"]] == [
        ("torch", "tf", "not shown"),
        ("torch", "jax", "different"),
        ("tf", "jax", "different"),
    ]


def test_the_margin_is_the_suite_s(tmp_path: Path) -> None:
    errors = {"torch": [0.3, 0.4, 0.5], "tf": [0.5, 0.3, 0.4]}
    wide = judge(journal_of(tmp_path, errors, margin=2.0))
    assert [(pair.verdict, pair.test.margin) for pair in wide.pairs] == [("equivalent", 2.0)]
    assert wide.caveat is None


def test_the_table_and_the_verdict(tmp_path: Path) -> None:
    errors = {"torch": [0.3, 0.4, 0.5], "tf": [0.3, 0.4, 0.5], "jax": [0.5, 0.3, 0.4], "numpy": [2.0]}
    console = Console(record=True, width=120)
    show(console, judge(journal_of(tmp_path, errors)))
    text = console.export_text()
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert rows[0] == "impls difference 90% interval margin p seeds verdict"
    assert rows[1] == "torch - tf 0 - 0.1 - 3 equivalent"
    assert rows[2] == "torch - jax 0 -0.292 to 0.292 0.1 0.211 3 needs more seeds"
    assert rows[3] == "torch - numpy -1.6 - 0.1 - 3, 1 no verdict"
    assert "L7 torch ? numpy: no verdict: 1 of 1 seeds of numpy finished with good parity" in text
    assert rows[-1] == "L7: 1 of 6 pairs equivalent."


@pytest.mark.parametrize(
    ("errors", "missing"),
    [
        (
            {"torch": [0.3], "tf": [0.3]},
            r"one seed \(0\); an equivalence needs at least 2: add grid\.seed: \[0, 1, 2\]",
        ),
        (
            {"torch": [0.3, 0.4]},
            r"one implementation \(torch\); an equivalence needs at least 2: add one to grid\.impl",
        ),
        ({"torch": [0.3, 0.4], "tf": [0.3]}, r"1 of 1 seeds of tf finished with good parity"),
    ],
)
def test_a_run_without_a_pair_says_what_is_missing(
    tmp_path: Path, errors: dict[str, list[float]], missing: str
) -> None:
    with pytest.raises(UserError, match=missing):
        judge(journal_of(tmp_path, errors))


def test_what_a_run_does_not_take_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = journal_of(tmp_path, {"torch": [0.3, 0.4], "tf": [0.3, 0.4]})
    given = ("--impl=torch", "--level=L6", "--precision=fp64", "-s train.epochs=1")
    for option in given:
        assert command("parity", run_dir, *option.split()) == 2
        message = capsys.readouterr().err
        assert option.split("=")[0].split()[0] in message
        assert "Drop the option, or give a suite's YAML file" in message
    assert command("parity", tmp_path) == 2
    assert "is not a run directory: it has no plan.json" in capsys.readouterr().err


def test_a_test_set_that_resolves_the_margin_needs_no_caveat() -> None:
    assert caveat([trial("torch", 0, margin=0.3)]) is None
    assert "one of 100 test images is 1 points" in str(caveat([trial("torch", 0, margin=0.3, test=100)]))


# The command


def test_a_run_of_several_seeds_ends_with_its_pairs_and_a_margin_changes_no_trial(tmp_path: Path) -> None:
    suite = write_suite(
        tmp_path,
        data={"train": 16, "validation": 0},
        train={"epochs": 1},
        parity={"level": "L1"},
        grid={"impl": ["numpy", TWIN], "seed": [0, 1]},
    )
    done = capsbench(tmp_path, "run", suite, "--executor", "inline", "--json", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (pair,) = document["equivalence"]
    assert (pair["a"], pair["b"], pair["verdict"], pair["n_a"], pair["n_b"]) == ("numpy", TWIN, "equivalent", 2, 2)
    assert (pair["difference"], pair["margin"], pair["paired"]) == (0, 0.1, True)
    assert f"L7 numpy = {TWIN}: test error differs by 0 points with every seed, within the margin of 0.1" in done.stderr

    again = capsbench(
        tmp_path, "run", suite, "--executor", "inline", "-s", "parity.margin_pct=7", "--json", "--no-mlflow"
    )
    assert again.returncode == 0, again.stderr
    trials = [(each["id"], each["attempts"]) for each in json.loads(again.stdout)["trials"]]
    assert trials == [(each["id"], 1) for each in document["trials"]]  # the same, and none of them run again
    assert "within the margin of 7 (2 seeds each)" in again.stderr
