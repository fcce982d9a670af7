"""`capsbench speed` as a user meets it: figures that fit together, cells that fail beside good ones, bad requests."""

from __future__ import annotations

import gzip
import io
import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from harness import registry
from harness.analysis.speed import EPOCH_IMAGES, document
from harness.commands.cli import main
from harness.commands.speed import SpeedRequest, speed
from harness.cost.operations import moved_bytes, step_flops
from harness.machine import rates
from harness.machine.environment import available_cores, available_memory_bytes
from harness.registry import resolve
from harness.spec import ModelSpec
from harness.spec.trial import Trial
from harness.suite.suite import load_suite
from harness.supervisor import speed as process
from harness.supervisor.speed import Failure, Method, Record, Session, measure
from harness.views.speed import show
from tests.commands.test_report import SETTINGS, law, model
from tests.helpers.impl_helpers import start_tensorflow
from tests.helpers.run_helpers import HELPERS, capsbench, started, wait_for, write_suite

GOOD = ("numpy", "speed_helpers:Parted", "speed_helpers:Cutting")
BAD = {
    # implementation: its verdict, and what its cause and hint must say
    "speed_helpers:Starved": ("out of memory", r"MemoryError: unable to allocate 16 images .*lower train\.batch"),
    "speed_helpers:Wrong": ("parity", r"ParityFailed: .* L4 gradient of digit\.w: relative error 0\.3 "),
    "speed_helpers:Dies": ("process", r"its process was killed by SIGKILL"),
}
FIGURES = ("step_s", "floor_s", "epoch_s", "img_per_s", "eval_over_train", "compile_s", "import_s", "build_s", "warmup_s",
           "peak_bytes", "flops_per_step", "flops_per_s")  # fmt: skip
REFUSED = {
    # arguments: what the message must say
    "--impl torhc": ['"torhc"', 'did you mean "torch"'],
    "--precision fp16": ["--precision fp16", '"fp16"', "Valid: .*fp32"],
    "--batch 0": ["--batch 0", "found 0", "at least 1"],
    "--batch many": ["--batch many", '"many"'],
    "--routing 3 --routing 99": ["--routing 3,99", "found 99", "from 1 to 10"],
    "--rounds 0": ["--rounds: found 0"],
    "--matmul 0": ["--matmul: found 0"],
    "--time-limit nan": ["--time-limit: found nan"],
    "--trace setup.cfg": ["--trace: cannot write to setup.cfg"],
    "absent.yaml": [r"absent\.yaml"],
    "--prescision fp32": ['unknown option "--prescision"', 'did you mean "--precision"'],
    "-s resources.cpus=4096": ["asked for 4096 x core"],
    "--impl torch -s resources.gpus=1": ["resources.gpus", "there are 0"],
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """The document of a command with good and bad cells, what it printed, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("speed")
    impls = [argument for name in (*GOOD, *BAD) for argument in ("--impl", name)]
    sizes = ("--rounds", 6, "--steps", 1, "--matmul", 200, "--trace", "traces")
    done = capsbench(
        folder,
        "speed",
        write_suite(folder),
        *impls,
        *sizes,
        "--json",
        hide="torch,tensorflow,jax",
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout), done.stderr, folder


def cell_of(document: dict[str, Any], impl: str) -> dict[str, Any]:
    (cell,) = [cell for cell in document["cells"] if cell["impl"] == impl]
    return cell


def test_figures_fit_together(measured: tuple[dict[str, Any], str, Path]) -> None:
    document = measured[0]
    assert (document["ok"], document["rounds"], document["steps"], document["epoch_images"]) == (False, 6, 1, 60_000)
    best = max(document["matmul"]["flops_per_s"].values())
    assert {"numpy"} == set(document["matmul"]["flops_per_s"])
    for name in GOOD:
        cell = cell_of(document, name)
        assert cell["status"] == "ok"
        assert all(cell[figure] > 0 for figure in FIGURES), cell
        assert (cell["device"], cell["batch"], cell["routing"], cell["precision"]) == ("cpu", 16, 2, "fp32")
        assert cell["floor_s"] == pytest.approx(cell["flops_per_step"] / best)
        assert cell["step_over_floor"] == pytest.approx(cell["step_s"] / cell["floor_s"])
        assert cell["img_per_s"] == pytest.approx(16 / cell["step_s"])
        assert cell["epoch_s"] == pytest.approx(EPOCH_IMAGES / 16 * cell["step_s"])
        assert cell["flops_per_s"] == pytest.approx(cell["flops_per_step"] / cell["step_s"])
        low, high = cell["step_s_ci"]
        assert low <= cell["step_s"] <= high
        assert cell["step_over_floor_ci"] == pytest.approx([low / cell["floor_s"], high / cell["floor_s"]])
        assert [len(cell["samples"][name]) for name in ("step_s", "eval_s", "matmul_flops_per_s")] == [6, 6, 6]
        assert max(cell["samples"]["matmul_flops_per_s"]) <= best
        assert "device_peak_bytes" not in cell
        assert cell["peak_bytes"] > 50e6
        assert cell.get("joules_per_step", 1) > 0
    assert len({cell_of(document, name)["floor_s"] for name in GOOD}) == 1


def test_what_is_optional(measured: tuple[dict[str, Any], str, Path]) -> None:
    document, text, folder = measured
    parted = cell_of(document, "speed_helpers:Parted")
    assert list(parted["breakdown"]) == ["conv", "routing", "other"]
    assert parted["breakdown"]["conv"] > 0.002
    assert sum(parted["breakdown"].values()) == pytest.approx(parted["step_s"])
    with gzip.open(parted["trace"]) as file:
        assert json.load(file) == {"traceEvents": []}
    assert Path(parted["trace"]) == folder / "traces" / f"{parted['name']}.json.gz"
    plain = cell_of(document, "numpy")
    assert not {"breakdown", "parts", "trace"} & {*plain}
    assert "no trace: the implementation has no trace()" in plain["warnings"]
    cutting = cell_of(document, "speed_helpers:Cutting")
    parts = cutting["parts"]
    rows = {row["part"]: row for row in parts["rows"]}
    assert list(rows) == list(cutting["breakdown"]) == ["conv", "idle", "optimiser", "other"]
    assert {part: row["s"] for part, row in rows.items()} == cutting["breakdown"]
    assert parts["passes"] == 6
    assert rows["conv"]["s_ci"][0] <= rows["conv"]["s"] <= rows["conv"]["s_ci"][1]
    assert parts["sum_s"] == pytest.approx(sum(cutting["breakdown"].values()))
    assert parts["of_step"] == pytest.approx(parts["sum_s"] / parts["step_s"])
    table = text[text.index("ms a step") :].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[1:]][:6] == ["conv", "routing", "idle", "optimiser", "other", "sum"]


@pytest.mark.parametrize("impl", BAD)
def test_a_cell_that_fails_is_a_row(impl: str, measured: tuple[dict[str, Any], str, Path]) -> None:
    document, text, folder = measured
    cell, (verdict, pattern) = cell_of(document, impl), BAD[impl]
    assert (cell["status"], cell["verdict"]) == ("failed", verdict)
    assert re.search(pattern, f"{cell['cause']} {cell['hint']}"), cell
    assert not set(FIGURES) & set(cell)
    assert f"FAILED: {verdict}" in text
    assert f"{cell['name']}: {cell['cause']}" in text
    assert (folder / cell["log"]).exists()


@pytest.mark.parametrize("arguments", REFUSED)
def test_request_that_cannot_be_met(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "setup.cfg").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # leases of its own
    with pytest.raises(SystemExit) as ending:
        main(["speed", *arguments.split(), "--json"])
    stdout, stderr = capsys.readouterr()
    assert ending.value.code == 2, stderr
    message = json.loads(stdout)["error"]
    for pattern in REFUSED[arguments]:
        assert re.search(pattern, message), f"no {pattern!r} in: {message}"
    assert not list(tmp_path.rglob("*.log"))


def asked_for(request: SpeedRequest, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Record]:
    """The cells that a request would measure; none is."""
    seen: list[Record] = []

    def measured(records: list[Record], _setting: Method, _tell: object) -> Session:
        seen.extend(replace(record, failure=Failure("failed", "not begun")) for record in records)
        return Session(seen)

    monkeypatch.setattr("harness.commands.speed.measure", measured)
    monkeypatch.chdir(folder)
    assert not speed(request, print)["ok"]
    return seen


def test_the_built_in_setting_is_the_paper_s_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = asked_for(SpeedRequest(impls=["numpy"]), monkeypatch, tmp_path)
    (trial,) = (record.trial for record in seen)
    assert trial.model == ModelSpec(image=(28, 28, 1), classes=10)
    assert (trial.data.name, trial.train.batch, trial.cpus) == ("digits", 128, available_cores())
    assert step_flops(trial.model, 128) == pytest.approx(153.9e9, rel=1e-3)
    assert (seen[0].name, seen[0].log_path) == ("numpy-fp32-b128-r3", Path("runs/speed/numpy-fp32-b128-r3.log"))


def test_options_and_the_suite_s_grid_make_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = write_suite(tmp_path, grid={"impl": ["numpy"], "model.decoder": [True, False], "seed": [3, 4]})
    asked = SpeedRequest(
        suite, precisions=["fp64", "fp32", "fp64"], batches=["8", "16"], overrides=["model.digit_dim=5"]
    )
    seen = asked_for(asked, monkeypatch, tmp_path)
    assert sorted(record.name for record in seen) == sorted(
        f"numpy-{precision}-b{batch}-r2-decoder{decoder}"
        for precision in ("fp64", "fp32")
        for batch in (8, 16)
        for decoder in (True, False)
    )
    assert {(record.trial.seed, record.trial.model.digit_dim) for record in seen} == {(3, 5)}


@pytest.mark.parametrize(("option", "taken"), [("--parts", True), ("--no-parts", False), (None, True)])
def test_parts_are_taken_unless_they_are_left_out(
    option: str | None, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Method] = []

    def measured(records: list[Record], method: Method, _tell: object) -> Session:
        seen.append(method)
        return Session([replace(record, failure=Failure("failed", "not begun")) for record in records])

    monkeypatch.setattr("harness.commands.speed.measure", measured)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["speed", "--impl", "numpy", *([option] if option else [])])
    assert [method.parts for method in seen] == [taken]


def test_no_process_outlives_the_command(tmp_path: Path) -> None:
    arguments = ("speed", write_suite(tmp_path), "--impl", "speed_helpers:Held", "--matmul", "64")
    with started(tmp_path, *arguments, hide="torch,tensorflow,jax", CUDA_VISIBLE_DEVICES="") as running:
        pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "worker", running))
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert not psutil.pid_exists(pid)


def trials_of(folder: Path, *overrides: str) -> tuple[Trial, ...]:
    return load_suite(write_suite(folder), overrides).trials(0, lambda _: {})


def setting_of(folder: Path, **changes: Any) -> Method:
    return replace(Method(rounds=1, steps=1, matmul=64, gate=False, time_limit_s=60, logs=folder), **changes)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `measure` runs with nothing but the cells: no other command's leases, no other libraries."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(process, "installed_libraries", list)
    monkeypatch.syspath_prepend(HELPERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_groups_where_memory_does_not_hold_all(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "available_memory_bytes", lambda: 0)
    trials = trials_of(alone, "impl=speed_helpers:Untold,speed_helpers:Parted")
    records = [Record(str(number), trial, alone / f"{number}.log") for number, trial in enumerate(trials)]
    told: list[str] = []
    session = measure(records, setting_of(alone, trace=alone / "traces"), told.append)
    assert records[0].warnings == ["no breakdown: RuntimeError: no parts today"]
    assert [len(record.parts) for record in records] == [0, 1]
    assert records[1].trace == str(alone / "traces" / "1.json.gz")
    assert [(record.failure, len(record.rounds)) for record in records] == [(None, 1), (None, 1)]
    assert told.count("round 1 of 1") == 2
    assert "1 and those after it were measured after the others" in session.warnings[0]
    assert document(session, setting_of(alone))["cells"][0]["step_s_ci"] is None  # of one round


@pytest.mark.parametrize(
    ("impl", "failure"),
    [
        ("Held", Failure("time limit", "the time limit of 1.5 s ran out", None)),
        ("Diverges", Failure("refused", "the training loss is nan; lower train.lr (0.001)", None)),
    ],
)
def test_a_cell_that_does_not_train(impl: str, failure: Failure, alone: Path) -> None:
    (trial,) = trials_of(alone, f"impl=speed_helpers:{impl}")
    record = Record("a", trial, alone / "a.log")
    measure([record], setting_of(alone, time_limit_s=1.5 if impl == "Held" else 60), lambda _: None)
    assert record.failure == failure


def gpu_record(folder: Path, precision: str, step_s: float, flops_per_s: float, bytes_per_s: float | None) -> Record:
    """A cell as a GPU's worker would describe it; nothing of it was measured."""
    (trial,) = trials_of(folder, "impl=torch")
    runtime = trial.runtime.model_copy(update={"precision": precision})
    record = Record("gpu", trial.model_copy(update={"gpus": 1, "runtime": runtime}), folder / "gpu.log")
    flops, moved = step_flops(trial.model, 16), moved_bytes(trial.model, 16)
    record.ready = dict.fromkeys(("import_s", "build_s", "compile_s", "warmup_s", "peak_bytes"), 1.0)
    record.ready |= {"device_peak_bytes": 5, "flops_per_step": flops, "bytes_per_step": moved}
    rate = {"library": "torch", "flops_per_s": flops_per_s} | ({"bytes_per_s": bytes_per_s} if bytes_per_s else {})
    turn = {"rate": rate, "step_s": step_s, "eval_s": step_s / 4, "observed": [], "device_peak_bytes": 7}
    record.rounds = [turn, {**turn, "joules_per_step": 30.0}]
    return record


def test_the_floor_of_a_gpu_is_of_its_precision_or_of_its_memory(tmp_path: Path) -> None:
    fast, slow = gpu_record(tmp_path, "bf16", 1.0, 8e14, 3e12), gpu_record(tmp_path, "fp32", 2.0, 5e13, 3e12)
    starved = gpu_record(tmp_path, "tf32", 2.0, 4e14, 1.0)
    found = document(Session([fast, slow]), setting_of(tmp_path))["cells"]
    flops, moved = fast.ready["flops_per_step"], fast.ready["bytes_per_step"]
    assert [cell["floor_s"] for cell in found] == pytest.approx(
        [max(flops / 8e14, moved / 3e12), max(flops / 5e13, moved / 3e12)]
    )
    (alone,) = document(Session([starved]), setting_of(tmp_path))["cells"]
    assert alone["floor_s"] == moved
    assert (alone["device_peak_bytes"], alone["joules_per_step"], alone["eval_over_train"]) == (7, 30.0, 0.25)
    without = document(Session([gpu_record(tmp_path, "fp32", 2.0, 5e13, None)]), setting_of(tmp_path))["cells"][0]
    assert without["floor_s"] == flops / 5e13
    console = Console(width=200, record=True, file=io.StringIO())
    show(console, document(Session([fast, slow]), setting_of(tmp_path)))
    assert re.search(r"torch +fp32 +16 +2 +2\.00 .* 0\.50x", console.export_text())


def test_a_cost_model_of_enough_cells(tmp_path: Path) -> None:
    cells = [gpu_record(tmp_path, "fp32", 1.0, 5e13, None) for _ in SETTINGS]
    for index, (record, (batch, routing, side)) in enumerate(zip(cells, SETTINGS, strict=True)):
        train = record.trial.train.model_copy(update={"batch": batch})
        record.trial = record.trial.model_copy(update={"model": model(routing, side), "train": train})
        record.name = f"cell-{index}"
        record.rounds = [turn | {"step_s": law(record.trial.model, batch)} for turn in record.rounds]
    cells[-1].rounds = [turn | {"step_s": 2 * turn["step_s"]} for turn in cells[-1].rounds]
    made = document(Session(cells), setting_of(tmp_path))
    (found,) = made["cost_models"]
    assert (found["impl"], found["precision"], found["device"]) == ("torch", "fp32", "gpu")
    assert found["errors"]["cell-11"] == pytest.approx(-0.5, abs=0.05)
    assert len(found["errors"]) == len(SETTINGS)
    console = Console(width=220, record=True, file=io.StringIO())
    show(console, made)
    text = console.export_text()
    assert re.search(r"\n.* -(49|50|51)\.\d%\n", text)
    assert "trials predicted from the others are off by at most" in text
    (few,) = (document(Session(cells[:5]), setting_of(tmp_path)),)
    assert few["cost_models"] == []


def test_tf32_is_no_format_of_a_cpu(alone: Path) -> None:
    (trial,) = trials_of(alone)
    runtime = trial.runtime.model_copy(update={"precision": "tf32"})
    record = Record("a", trial.model_copy(update={"runtime": runtime}), alone / "a.log")
    measure([record], setting_of(alone), lambda _: None)
    assert record.failure
    assert record.failure.verdict == "unsupported"
    assert not record.log_path.exists()  # no process was started


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_library_multiplies_and_waits(name: str) -> None:
    entry = resolve(name)
    pytest.importorskip(entry.library)
    if name == "tf":
        start_tensorflow()
    assert entry in rates.installed()
    product = rates.product(entry, 128)
    assert 0 < rates.product_rate(product, 128) < 1e15  # an answer that was not waited for would come at once


def test_the_library_of_an_implementation() -> None:
    own = [rates.library_of(resolve(name)).library for name in ("tf", "numpy", "jax", "torch")]
    assert own == ["tensorflow", "numpy", "jax", "torch"]
    assert [rates.on_gpu(resolve(name)) for name in registry.BUILT_IN] == [False, True, True, True]
    assert rates.copy_rate(resolve("numpy")) is None


def test_available_memory_is_less_than_all() -> None:
    available = available_memory_bytes()
    assert available is None or 0 < available < 1 << 50
