"""`capsbench report` as users meet it: forms, several runs, runs of which little or nothing is left."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from harness.commands.cli import main
from harness.journal.journal import Journal
from harness.views.report.latex import latex
from harness.views.report.page import Section
from tests.helpers import report_helpers, seeds_helpers
from tests.helpers.executor_helpers import tiny_trial
from tests.views.test_parts import told

pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_helpers.write_run(tmp_path_factory.mktemp("runs") / "first")


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(ended.value.code or 0), said.out, said.err


def own(page: Path) -> str:
    """The page without the charts' library."""
    return re.sub("<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)


def test_every_form_on_request(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    forms = "html,md,csv", "--format", "parquet", "--format", "latex,png,svg"
    code, out, _ = called(capsys, run_dir, "--out", tmp_path / "all", "--format", *forms, "--json")
    assert code == 0
    document = json.loads(out)
    pages = [Path(path).name for path in document["pages"]]
    assert pages == ["report.md", "report.html", "report.tex"]
    named = {Path(path).name for path in document["tables"] + document["figures"]}
    assert {"cells.csv", "cells.parquet", "epochs.csv", "parity.csv", "costs.parquet"} <= named
    assert {"test_error.png", "test_error.svg", "model.routing.svg"} <= named
    assert {path.name for path in (tmp_path / "all").iterdir()} == named | set(pages)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all" / "cells.csv").read_text())))
    assert [row["impl"] for row in rows] == ["torch", "torch", "tf", "tf"]
    assert float(rows[0]["test_err_pct"]) == pytest.approx(0.31)
    stored = parquet.read_table(tmp_path / "all" / "cells.parquet").to_pylist()
    assert [row["test_err_pct"] for row in stored] == [float(row["test_err_pct"]) for row in rows]
    epochs = list(csv.DictReader(io.StringIO((tmp_path / "all" / "epochs.csv").read_text())))
    assert len(epochs) == 12 * 7
    tex = (tmp_path / "all" / "report.tex").read_text()
    assert tex.count(r"\begin{longtable}") == tex.count(r"\end{longtable}") == tex.count(r"\toprule") > 3
    assert r"0.31 $\pm$ 0.025" in tex


def test_latex_prints_every_sign_as_it_is() -> None:
    table = Table("one", "two")
    table.add_column("three", justify="right")
    table.add_row(
        "[x] --out_put $1", "so many words that the column would be wider than a page of a report is", "*1 \u2264 2"
    )
    text = latex("50% & {more}", ["a#b ~ c^d \\e `f`"], [Section("T", "", table, ["[first] <note>"])])
    assert r"\section*{50\% \& \{more\}}" in text
    assert r"a\#b \textasciitilde{} c\textasciicircum{}d \textbackslash{}e \textasciigrave{}f\textasciigrave{}" in text
    assert r"{}[x] -{}-out\_put \$1 & so many words" in text
    assert r"{}*1 $\le$ 2 \\" in text
    assert r"\begin{longtable}{l>{\raggedright\arraybackslash}p{60mm}r}" in text
    assert r"\item{} [first] \textless{}note\textgreater{}" in text


def test_one_form_alone(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = called(capsys, run_dir, "--format", "md", "--out", tmp_path / "one")
    assert code == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["report.md"]
    code, _, said = called(capsys, run_dir, "--format", "md,pdf", "--out", tmp_path / "none")
    assert (code, (tmp_path / "none").exists()) == (2, False)
    assert 'unknown form "pdf"' in said
    assert "Valid: csv, html, latex, md, parquet, png, svg" in said


def test_the_answer_and_which_epoch_counts(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = called(capsys, run_dir, "--format", "html", "--out", tmp_path, "--json")
    assert code == 0
    document = json.loads(out)
    # seconds: median of 7 epochs less the first, so 1.045 times as given; torch 11, 11.1, 11.2 against tf's, 1.25 times less
    first, *_ = document["answer"]["speed"]
    assert (first["a"], first["b"], first["over"]) == ("torch", "tf", "seeds")
    assert first["value"] == pytest.approx(1.25)
    assert first["low"] < 1.25 < first["high"] < 1.3
    sentence = document["answer"]["sentences"][0]
    assert sentence.startswith("With routing 1, TensorFlow is 1.25 times as fast as PyTorch [1.2")
    assert "equal within 0.1 points: shown" in sentence
    assert sentence in said.replace("\n", " ")
    page = own(tmp_path / "report.html")
    assert f'<p class="lead">{sentence}</p>' in page
    choice = document["choice"][0]
    assert (choice["known"], choice["epochs"]) == (2, 7)  # of the last epoch and the best one
    assert choice["last"]["mean"] == pytest.approx(0.31)
    assert choice["validated"]["mean"] == pytest.approx(0.41)
    assert choice["claimed"]["mean"] == pytest.approx(0.31)
    assert "at most 0.31 ± 0.025" in page


def test_what_choosing_on_the_test_set_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [seeds_helpers.make_trial("torch", seed) for seed in range(2)]
    found = [report_helpers.events(0.9 + 0.2 * trial.seed, tests_all=True) for trial in trials]
    run = seeds_helpers.write_run(tmp_path / "run", list(zip(trials, found, strict=True)))
    code, out, _ = called(capsys, run, "--format", "md", "--json")
    assert code == 0
    (choice,) = json.loads(out)["choice"]
    assert (choice["known"], choice["epochs"]) == (7, 7)
    assert choice["last"]["mean"] == pytest.approx(1.0)
    # after epoch k the error is 0.1 (7 - k) above the last's; less 0.8 in the second, so 0.3 below
    assert choice["claimed"]["mean"] == pytest.approx(0.7)
    assert choice["validated"]["mean"] == pytest.approx(1.1)


def test_hostile_names_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\\end{document}\u2028"
    trials = [seeds_helpers.make_trial(impl, seed) for impl in ("torch", "tf") for seed in range(2)]
    for trial in trials:
        trial.params["data.name"] = evil
    run = tmp_path / "run"
    runs = [(trial, report_helpers.events(0.5)) for trial in trials]
    seeds_helpers.write_run(run, runs)
    plan = json.loads((run / "plan.json").read_text())
    with Journal(run).open() as journal:
        journal.write_plan({**plan, "question": evil}, f"name: {evil}\n")
    report_helpers.add_pictures(run)
    code, _, _ = called(capsys, run, "--format", "html,latex")
    assert code == 0
    page = own(run / "report" / "report.html")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(2)&gt;" in page
    assert (run / "report" / "report.tex").read_text().count(r"\end{document}") == 1


def test_runs_side_by_side(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = report_helpers.write_run(tmp_path / "first", impls=("torch",), seeds=2)  # of the same name
    code, out, _ = called(capsys, run_dir, other, "--format", "html,md,csv", "--out", tmp_path / "both", "--json")
    assert code == 0
    document = json.loads(out)
    assert [Path(run["run_dir"]) for run in document["runs"]] == [run_dir, other]
    (comparison,) = document["comparisons"]
    assert {row["impl"] for row in comparison["rows"]} == {"torch"}
    page = own(tmp_path / "both" / "report.html")
    assert f"{run_dir}: Cells" in page
    assert "only in" in page
    shared, first, second = re.findall(r"<ul>.*?</ul>", page[page.index("<nav") : page.index("</nav>")], re.DOTALL)
    assert "Error against time" in shared
    assert str(run_dir) not in shared  # whose parts are listed under its name
    assert ">Cells</a>" in first
    assert ">Cells</a>" in second
    assert [*re.findall("<summary>(/.*?)</summary>", page)] == [str(run_dir), str(other)]
    assert len(re.findall('id="([^"]*)"', page)) == len(set(re.findall('id="([^"]*)"', page)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "both" / "cells.csv").read_text())))
    assert [row["run"] for row in rows] == [str(run_dir)] * 4 + [str(other)] * 2


def test_runs_that_share_no_trial(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = report_helpers.write_run(tmp_path / "other", impls=("jax",), seeds=2)
    code, _, said = called(capsys, run_dir, other, "--format", "html", "--out", tmp_path / "both")
    assert code == 2
    assert "first and other share no trial, so each stands alone." in said
    page = own(tmp_path / "both" / "report.html")
    assert "share no trial" in page
    assert "first: Cells" in page
    assert "other: Cells" in page


def test_what_can_be_shown_is_shown(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, newer, torn = tmp_path / "empty", tmp_path / "newer", tmp_path / "torn"
    empty.mkdir()
    for copy in (newer, torn):
        shutil.copytree(run_dir, copy, ignore=shutil.ignore_patterns("report*"))
    plan = json.loads((newer / "plan.json").read_text())
    (newer / "plan.json").write_text(json.dumps({**plan, "schema": "99.0"}))
    (torn / "plan.json").write_bytes((torn / "plan.json").read_bytes()[:300])
    code, _, said = called(capsys, run_dir, empty, newer, torn, "--format", "html", "--out", tmp_path / "out")
    assert code == 2
    assert f"{empty} is not a run directory" in said
    assert "newer" in said
    assert f"{torn / 'plan.json'} is not the plan of a run" in said
    page = own(tmp_path / "out" / "report.html")
    assert "is not a run directory" in page
    assert "With routing 1, TensorFlow is 1.25 times as fast" in page
    code, _, said = called(capsys, empty, newer, "--out", tmp_path / "none")
    assert (code, (tmp_path / "none").exists()) == (2, False)
    assert "is not a run directory" in said


def test_a_run_in_which_nothing_has_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with Journal(run).open() as journal:
        journal.write_plan({"suite": "s", "trials": [tiny_trial().model_dump(mode="json")]}, "")
    code, out, said = called(capsys, run, "--format", "html", "--json")
    assert code == 2
    assert "nothing has finished" in said
    assert "nothing has finished" in json.loads(out)["error"]
    page = own(run / "report" / "report.html")
    assert "nothing has finished" in page
    assert "<td>pending</td>" in page


def test_failed_and_gated_trials_are_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, gated, failed = (seeds_helpers.make_trial("torch", seed) for seed in range(3))
    failure = [{"kind": "attempt"}, {"kind": "failed", "cause": "no room left", "error": "MemoryError", "hint": None}]
    run = seeds_helpers.write_run(
        tmp_path / "run",
        [(good, report_helpers.events(0.5)), (gated, report_helpers.events(0.1, parity_ok=False)), (failed, failure)],
    )
    code, _, _ = called(capsys, run, "--format", "html")
    assert code == 0
    page = own(run / "report" / "report.html")
    assert "parity failed" in page
    assert "<td>FAILED</td>" in page
    assert "no room left" in page
    assert "1 of 3" in page
    assert "<td>1 beyond</td>" in page  # the parity matrix
    assert page.count("One seed in each cell") == 1


MEASURED = {
    "name": "torch, batch 64", "impl": "torch", "precision": "fp32", "batch": 64, "model": "capsnet", "routing": 3,
    "params": {}, "status": "ok", "step_s": 0.1, "step_s_ci": None, "epoch_s": 93.8, "img_per_s": 640.0, "floor_s": 0.04,
    "step_over_floor": 2.5, "eval_over_train": 0.3, "compile_s": 1.0, "peak_bytes": 10**8,
    "breakdown": {"forward": 0.06, "backward": 0.07, "other": -0.03},
}  # fmt: skip


def test_the_parts_of_a_step(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed = tmp_path / "speed.json"
    speed.write_text(json.dumps({"cells": [MEASURED]}))
    code, _, _ = called(capsys, run_dir, "--speed", speed, "--format", "html,md", "--out", tmp_path / "out")
    assert code == 0
    page = own(tmp_path / "out" / "report.html")
    assert page.count("A step and its floor</h2>") == 1
    parts = page[page.index("Parts of a step</h2>") :]
    assert "torch, batch 64: each part was timed alone" in parts
    assert re.search(r"<td>other</td>\s*<td class=right>-</td>", parts)  # no time: its parts take longer one by one
    assert re.search(r"<td>of step</td>\s*<td class=right>130%</td>", parts)
    assert "| torch | fp32 | 64 | 3 | 0.100 |" in (tmp_path / "out" / "report.md").read_text()


def test_the_parts_of_a_step_in_place(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed = tmp_path / "speed.json"
    speed.write_text(json.dumps({"cells": [MEASURED, told("tf"), told("jax")]}))
    code, _, _ = called(capsys, run_dir, "--speed", speed, "--format", "html,md", "--out", tmp_path / "out")
    assert code == 0
    page = own(tmp_path / "out" / "report.html")
    for cell in ("jax-fp32-b128-r3", "routing", "2.23"):
        assert f">{cell}</td>" in page, cell  # the table behind the bars
    text = (tmp_path / "out" / "report.md").read_text()
    assert re.search(r"\| conv1 \| - \| 40 \(\d+-\d+\) \| 40 ", text)
    assert re.search(r"\| loss \| - \| &lt; |\| loss \| - \| \\< ", text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "is an empty file"),
        ("[1, 2]", "is not what capsbench speed measures"),
        ('{"error": "interrupted"}', "has no step that was measured"),
        ('{"cells": 7}', "is not what capsbench speed measures"),
        ('{"cells": [{"status": "ok"}]}', "is not what capsbench speed measures"),
        (json.dumps({"cells": [{**MEASURED, "step_s": "fast"}]}), "is not what capsbench speed measures"),
    ],
)
def test_what_is_no_measurement_is_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    speed = tmp_path / "speed.json"
    if content is not None:
        speed.write_text(content)
    code, _, told = called(capsys, run_dir, "--speed", speed, "--out", tmp_path / "out")
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert f"--speed {speed} " in told
    assert said in told
