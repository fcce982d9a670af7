"""`capsbench parity` as a user meets it: the user's own implementations, right and wrong, and impossible requests."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from rich.console import Console

from harness import data, modules, registry
from harness.commands.cli import main
from harness.commands.common import log_folder
from harness.commands.parity import ParityRequest, parity
from harness.errors import UserError
from harness.events.processes import SuspectsEvent
from harness.parity import Check, Ladder, Report
from harness.parity.words import described, figure, sentence, telling
from harness.spec import Impl, ModelSpec, OptimSpec, Runtime
from harness.spec.trial import RuntimeConfig, Trial
from harness.suite.suite import load_suite
from harness.supervisor import parity as process
from harness.supervisor.parity import Climb
from harness.supervisor.seat import Seat
from harness.views.mlflow.parity import metrics, run_name
from harness.views.mlflow.server import newest_experiment
from harness.views.parity import show
from harness.worker import parity as worker
from impls.numpy import NumpyImpl
from tests.helpers.impl_helpers import batch_of, small_model
from tests.helpers.run_helpers import ROOT, capsbench, environment, started, wait_for, write_suite

ADAPTER = """
import os, signal, sys, time
from dataclasses import replace
import numpy as np
from harness.spec import Loss, Outputs
from impls.numpy import NumpyImpl


class Right:
    '''Only what an adapter has.'''

    def __init__(self, model, optim, runtime):
        self.inner = NumpyImpl(model, optim, runtime)

    def load(self, weights):
        self.inner.load(weights)

    def forward(self, images):
        print("noise on stdout")
        return self.inner.forward(images)

    def loss_and_grads(self, images, labels):
        return self.inner.loss_and_grads(images, labels)
"""
BAD = {
    # class: (its body; base class Right), what the message must say
    "Hangs": (
        "    def loss_and_grads(self, images, labels):\n        time.sleep(600)\n",
        r"L3 the time limit of 12 s ran out in its loss_and_grads",
    ),
    "WrongGradient": (
        """
    def loss_and_grads(self, images, labels):
        loss, grads = super().loss_and_grads(images, labels)
        grads["digit.w"] = 1.3 * grads["digit.w"]
        return loss, grads
""",
        r"L4 gradient of digit\.w: relative error 0\.3 \(tolerance 1e-8\) at \[\d+, \d+, \d+, \d+\]: "
        r"found -?[\d.e-]+, expected -?[\d.e-]+",
    ),
    "NoGradient": (
        """
    def loss_and_grads(self, images, labels):
        loss, grads = super().loss_and_grads(images, labels)
        return loss, {name: grad for name, grad in grads.items() if name != "conv1.b"}
""",
        r"L4 gradient of conv1\.b: missing",
    ),
    "WrongShape": (
        """
    def forward(self, images):
        outputs = super().forward(images)
        return replace(outputs, digit=outputs.digit.swapaxes(1, 2))
""",
        r"L1 output digit: shape \(19, 4, 10\), expected \(19, 10, 4\)",
    ),
    "NotFinite": (
        """
    def loss_and_grads(self, images, labels):
        loss, grads = super().loss_and_grads(images, labels)
        grads["conv1.w"][2, 0, 0, 1] = np.nan
        return loss, grads
""",
        r"L4 gradient of conv1\.w: not finite at \[2, 0, 0, 1\]: found nan, expected",
    ),
    "Single": (
        """
    def __init__(self, model, optim, runtime):
        super().__init__(model, optim, runtime.model_copy(update={"precision": "fp32"}))
""",
        r"L1 output \w+: float32, expected float64 \(4 checks of L1 fail\)",
    ),
    "Casts": (
        """
    def __init__(self, model, optim, runtime):
        super().__init__(model, optim, runtime.model_copy(update={"precision": "fp32"}))

    def forward(self, images):
        return Outputs(*(np.asarray(array, np.float64) for array in vars(super().forward(images)).values()))

    def loss_and_grads(self, images, labels):
        loss, grads = super().loss_and_grads(images, labels)
        return loss, {name: grad.astype(np.float64) for name, grad in grads.items()}
""",
        r"L2 .*relative error .*as large as the rounding of float32: does it compute in float64 throughout\?",
    ),
    "Raises": (
        """
    def loss_and_grads(self, images, labels):
        raise RuntimeError("no [such] kernel\\nmore")
""",
        r"L3 its loss_and_grads raised RuntimeError: no \[such\] kernel more",
    ),
    "RaisesLate": (
        """
    def __init__(self, model, optim, runtime):
        super().__init__(model, optim, runtime)
        self.routing = model.routing

    def forward(self, images):
        if self.routing == 10:
            raise ValueError("at most 9 iterations")
        return super().forward(images)
""",
        r"L2 with 10 routing iterations it raised ValueError: at most 9 iterations",
    ),
    "Exits": ("    def load(self, weights):\n        sys.exit(3)\n", r"L1 its load raised SystemExit: 3"),
    "CannotBeBuilt": (
        "    def __init__(self):\n        pass\n",
        r"L1 its __init__ raised TypeError: .*positional argument",
    ),
    "ReturnsNothing": (
        "    def forward(self, images):\n        pass\n",
        r"L1 output \w+: missing, expected shape \(19, ",
    ),
    "LossAlone": (
        "    def loss_and_grads(self, images, labels):\n        return super().loss_and_grads(images, labels)[0]\n",
        r"L3 what its loss_and_grads returned cannot be compared: TypeError",
    ),
    "NoNumbers": (
        """
    def forward(self, images):
        outputs = super().forward(images)
        return replace(outputs, lengths=np.full(outputs.lengths.shape, "long"))
""",
        r"L1 output lengths: str\d+, expected float64; then L2 what its forward returned cannot be compared: \w*TypeError",
    ),
    "Killed": (
        "    def loss_and_grads(self, images, labels):\n        os.kill(os.getpid(), signal.SIGSEGV)\n",
        r"L3 its process was killed by SIGSEGV in its loss_and_grads",
    ),
    "Leaves": (
        "    def forward(self, images):\n        os._exit(7)\n",
        r"L1 its process ended by itself \(exit code 7\) in its forward",
    ),
    "GoneAtTheEnd": (
        """
    calls = 0

    def loss_and_grads(self, images, labels):
        self.calls += 1
        if self.calls > 5:  # all has been compared
            os._exit(7)
        loss, grads = super().loss_and_grads(images, labels)
        return loss, {name: 3.7 * grad for name, grad in grads.items()}
""",
        r"L4 gradient of [\w.]+: relative error 2\.7",
    ),
    "TwoFaults": (
        """
    def forward(self, images):
        outputs = super().forward(images)
        return replace(outputs, lengths=1.5 * outputs.lengths)

    def loss_and_grads(self, images, labels):
        raise RuntimeError("no gradients here")
""",
        r"L2 .*relative error 0\.5 .*; then L3 its loss_and_grads raised RuntimeError: no gradients here$",
    ),
}
OUTPUTS = {f"forward.{output}" for output in ("digit", "lengths", "coupling", "reconstruction")}
"""The checks of L3 before the first call of `loss_and_grads`."""
REFUSED = {
    # arguments: what the message must say
    "--impl torhc": ['unknown implementation "torhc"', r'did you mean "torch"'],
    "--impl nosuch:Net": ['no package "nosuch"'],
    "--impl nets:right": ["nets has no class right", 'did you mean "Right"'],
    "--impl nets:": ["does not name an implementation"],
    "--impl partial:Net": [r"partial:Net lacks forward, loss_and_grads; harness\.spec\.Impl says what they do$"],
    "--impl broken:Net": ["importing broken failed: ModuleNotFoundError: No module named 'no_such_dependency'"],
    "--impl numpy --level L9": ['unknown --level "L9"', "L6"],
    "--impl numpy --precision fp16": ['unknown --precision "fp16"', "fp32, fp64"],
    "--impl numpy --time-limit 0": ["--time-limit: found 0"],
    "--impl numpy --time-limit soon": ["--time-limit", "soon"],
    "--impl numpy -s model.routing=11": [r"model\.routing: found 11", "from 1 to 10"],
    "--impl numpy -s model.kernel=15": [r"model\.kernel", "29x29", "the built-in setting|-s"],
    "--impl numpy --out /proc/x": ["cannot write logs to /proc/x/parity", "--out DIR"],
    "smal.yaml": [r"smal\.yaml: no such file", "small.yaml"],
    "small.yaml another.yaml": [r"another\.yaml"],
    "small.yaml --imple numpy": ['unknown option "--imple"', 'did you mean "--impl"'],
}


def write_modules(folder: Path) -> None:
    """`nets.py` with a right adapter and every bad one, and modules that cannot be used."""
    classes = [f"\n\nclass {name}(Right):\n{body.lstrip(chr(10))}" for name, (body, _) in BAD.items()]
    (folder / "nets.py").write_text(ADAPTER + "".join(classes))
    (folder / "partial.py").write_text(
        "class Net:\n    def __init__(self, *a): ...\n    def load(self, weights): ...\n"
    )
    (folder / "broken.py").write_text("import no_such_dependency\n\nclass Net: ...\n")


def reports_of(stdout: str) -> dict[str, dict[str, Any]]:
    return {report["impl"].rpartition(":")[2]: report for report in json.loads(stdout)["reports"]}


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """The right adapter and all bad ones in one command: stdout with --json, stderr, and the folder."""
    folder = tmp_path_factory.mktemp("bad")
    write_modules(folder)
    suite = write_suite(folder)
    impls = [argument for name in ("Right", *BAD) for argument in ("--impl", f"nets:{name}")]
    done = capsbench(
        folder, "parity", suite.name, *impls, "--precision", "fp64", "--time-limit", 12, "--json", "--no-mlflow"
    )
    assert done.returncode == 1, done.stderr
    return done.stdout, done.stderr, folder


def test_json_of_many(climbed: tuple[str, str, Path]) -> None:
    stdout, stderr, folder = climbed
    document = json.loads(stdout)
    assert document["ok"] is False
    assert [report["impl"] for report in document["reports"]] == [f"nets:{name}" for name in ("Right", *BAD)]
    assert "Traceback" not in stderr
    assert "noise" not in stdout + stderr
    assert f"Parity: {len(BAD)} of {len(BAD) + 1} failed." in stderr
    for report in document["reports"]:
        assert report["precision"] == "fp64"
        assert (folder / report["log"]).is_file()


def test_a_right_adapter_passes_without_the_levels_of_training(climbed: tuple[str, str, Path]) -> None:
    right = reports_of(climbed[0])["Right"]
    assert right["ok"]
    assert {check["level"] for check in right["checks"]} == {"L1", "L2", "L3", "L4"}
    assert list(right["skipped"]) == ["L5", "L6"]
    assert "train" in right["skipped"]["L5"]
    assert re.search(r"nets:Right: L5, L6 skipped: .*train", climbed[1])


@pytest.mark.parametrize("name", BAD)
def test_bad_implementation_gets_a_clear_verdict(name: str, climbed: tuple[str, str, Path]) -> None:
    stdout, stderr, _ = climbed
    lines = [line for line in stderr.splitlines() if line.startswith(f"nets:{name} fp64: L")]
    assert len(lines) == 1
    pattern = BAD[name][1]
    assert re.search(pattern, lines[0]), lines[0]
    report = reports_of(stdout)[name]
    assert not report["ok"]
    if level := re.match(r"L\d", pattern):
        assert report["failed_level"] == level[0]


def test_a_traceback_is_in_the_log_that_is_named(climbed: tuple[str, str, Path]) -> None:
    stdout, stderr, folder = climbed
    log = reports_of(stdout)["Raises"]["log"]
    assert f"log: {log}" in stderr
    assert "Traceback" in (folder / log).read_text()
    assert "no [such] kernel" in (folder / log).read_text()


def test_what_was_right_before_an_exception_is_reported(climbed: tuple[str, str, Path]) -> None:
    checks = reports_of(climbed[0])["Raises"]["checks"]
    assert [check["name"] for check in checks if not check["ok"]] == ["exception"]
    assert {check["level"] for check in checks if check["ok"]} == {"L1", "L2", "L3"}  # outputs are of L3, as losses are


@pytest.mark.parametrize(("name", "ending"), [("Hangs", "time limit"), ("Killed", "process")])
def test_what_was_right_before_the_end_of_a_process_is_reported(
    name: str, ending: str, climbed: tuple[str, str, Path]
) -> None:
    checks = reports_of(climbed[0])[name]["checks"]
    assert [check["name"] for check in checks if not check["ok"]] == [ending]
    right = reports_of(climbed[0])["Right"]["checks"]
    assert checks[:-1] == [check for check in right if check["level"] < "L3" or check["name"] in OUTPUTS]


def test_where_a_process_was() -> None:
    assert process._place("", False) == "before its first call"
    assert process._place("forward", True) == "in its forward"
    assert process._place("forward", False) == "after its forward, outside of its methods"


def test_a_diagnosis_spoils_no_report(
    climbed: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it takes the process with it, or raises."""
    gone = reports_of(climbed[0])["GoneAtTheEnd"]
    assert gone["suspects"] == []
    assert {check["name"].partition(".")[0] for check in gone["checks"] if not check["ok"]} == {"grad"}
    assert list(gone["skipped"]) == ["L5", "L6"]

    def raising(ladder: Ladder) -> None:
        raise SystemExit("no diagnosis")

    monkeypatch.setattr("harness.parity.diagnosis.diagnose.diagnose", raising)
    nothing = SuspectsEvent(suspects=[], conventions=[], unexplained=[], checks=[])
    assert worker._diagnosis(cast(Ladder, None), "L4", cast(Any, None)) == nothing
    assert "SystemExit: no diagnosis" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", REFUSED)
def test_request_that_cannot_be_met(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_modules(tmp_path)
    write_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))  # leases of its own
    with pytest.raises(SystemExit) as ending:
        main(["parity", *arguments.split(), "--json", "--no-mlflow"])
    stdout, stderr = capsys.readouterr()
    assert ending.value.code == 2, stderr
    message = json.loads(stdout)["error"]
    assert f"capsbench: {message}" in stderr
    for pattern in REFUSED[arguments]:
        assert re.search(pattern, message), f"no {pattern!r} in: {message}"


def test_without_a_framework_or_mlflow(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, grid={"impl": ["numpy", "tf"]})
    arguments = ("parity", suite, "--precision", "fp64", "--level", "l1")
    done = capsbench(tmp_path, *arguments, "--impl", "tf", "--no-mlflow", hide="tensorflow")
    assert done.returncode == 2
    assert "tf: not installed: tensorflow" in done.stderr
    done = capsbench(tmp_path, *arguments, hide="tensorflow,mlflow")
    assert done.returncode == 0
    assert "tf: not installed: tensorflow" in done.stdout
    assert "MLflow is not installed, so nothing was recorded" in done.stdout
    done = capsbench(tmp_path, *arguments, "--mlflow-uri", "sqlite:///x.db", hide="mlflow")
    assert done.returncode == 2
    assert "MLflow is not installed" in done.stderr


def test_a_user_s_folder_does_not_pass_for_a_package(tmp_path: Path) -> None:
    """A module of the current directory comes after ours and all that is installed."""
    for name in ("harness", "pydantic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    # -P: like the installed command, and unlike -m alone, this has no current directory first in its path
    command = [sys.executable, "-P", "-m", "harness", "parity", write_suite(tmp_path), "--level", "L1"]
    done = subprocess.run(
        [*command, "--precision", "fp64", "--no-mlflow"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


BROKEN_EXAMPLES = {
    # name: (in the example, what it becomes, what the message must say)
    "softmaxed": (
        "softmax(dim=1)",
        "softmax(dim=2)",
        r"L2 coupling after 1 routing iteration: .*found 0\.0\d+, expected 0\.1",
    ),
    "reshaped": (
        ".view(len(x), self.types, self.dim, -1).transpose(2, 3).reshape(len(x), -1, self.dim)",
        ".reshape(len(x), -1, self.dim)",
        r"L2 digit after 1 routing iteration: relative error \d",
    ),
    "averaged": ("margin.sum(1).mean()", "margin.mean()", r"L3 margin loss: relative error 0\.9 "),
}


def test_the_example(tmp_path: Path) -> None:
    """Its readers copy it: it has to be right in every level that an adapter can climb, and wrong where they break it."""
    source = (ROOT / "examples" / "third_party_torch.py").read_text()
    (tmp_path / "third_party_torch.py").write_text(source)
    for name, (old, new, _) in BROKEN_EXAMPLES.items():
        assert source.count(old) == 1
        (tmp_path / f"{name}.py").write_text(source.replace(old, new))
    arguments = ("parity", write_suite(tmp_path), "--impl", "third_party_torch:Adapter", "--no-mlflow")
    impls = [argument for name in BROKEN_EXAMPLES for argument in ("--impl", f"{name}:Adapter")]
    done = capsbench(tmp_path, *arguments, *impls, "--precision", "fp64", "--json")
    right, *wrong = json.loads(done.stdout)["reports"]
    assert right["ok"], done.stderr
    assert {check["level"] for check in right["checks"]} == {"L1", "L2", "L3", "L4"}
    for report, (name, (_, _, pattern)) in zip(wrong, BROKEN_EXAMPLES.items(), strict=True):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"{name}:Adapter fp64: L")]
        assert re.search(pattern, line), line
        assert not report["ok"]
    done = capsbench(tmp_path, *arguments, "--precision", "fp32", "-s", "model.profile=official")
    assert done.returncode == 1
    assert "L1 its __init__ raised ValueError: model.profile is" in done.stdout


def test_run_refuses_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapternets.py").write_text(ADAPTER)
    with modules.importable(tmp_path):
        entry = registry.resolve("adapternets:Right")
        with pytest.raises(UserError, match=r"lacks dump, .*train.*an adapter: `capsbench parity` can check it"):
            registry.load(entry)
        assert registry.load(entry, adapter=True).__name__ == "Right"
    assert str(tmp_path) not in sys.path


def test_recorded_in_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    write_modules(tmp_path)
    suite = write_suite(tmp_path)
    arguments = ("parity", suite, "--impl", "numpy", "--impl", "nets:WrongGradient", "--precision", "fp64", "--json")
    done = capsbench(tmp_path, *arguments)
    assert done.returncode == 1, done.stderr
    uri = json.loads(done.stdout)["mlflow_uri"]
    assert uri == f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("capsbench-parity/small")
    assert newest_experiment(tmp_path / "runs", uri) == experiment.experiment_id  # what `capsbench ui` opens
    good, bad = sorted(
        client.search_runs([experiment.experiment_id]), key=lambda run: run.data.tags["impl"], reverse=True
    )
    assert (good.info.run_name, bad.info.run_name) == ("numpy fp64 parity", "WrongGra fp64 parity")
    assert good.info.status == bad.info.status == "FINISHED"
    assert {run.data.tags["capsbench.kind"] for run in (good, bad)} == {"parity"}
    assert (good.data.tags["parity"], bad.data.tags["parity"]) == ("good", "failed")
    assert "L4 gradient of digit.w" in bad.data.tags["mlflow.note.content"]
    assert bad.data.metrics["L4.max_rel_err"] == pytest.approx(0.3)
    assert (bad.data.metrics["L3.ok"], bad.data.metrics["L4.ok"]) == (1, 0)
    assert {f"L{level}.ok" for level in range(1, 7)} <= set(good.data.metrics)
    stored = next((tmp_path / "runs" / "mlartifacts").rglob(f"{bad.info.run_id}/**/parity.json"))
    table = json.loads(stored.read_text())
    assert table["columns"][:2] == ["level", "name"]
    assert ["L4", "grad.digit.w"] in [row[:2] for row in table["data"]]


def test_an_mlflow_that_does_not_answer_changes_no_verdict(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    arguments = ("--impl", "numpy", "--precision", "fp64", "--level", "L1", "--mlflow-uri", "http://127.0.0.1:9")
    done = capsbench(tmp_path, "parity", write_suite(tmp_path), *arguments)
    assert done.returncode == 0, done.stderr
    assert "MLflow at http://127.0.0.1:9 did not take the reports" in done.stdout
    assert "Traceback" not in done.stderr


HELD = """
import os, time
from pathlib import Path
from nets import Right

class Net(Right):
    def forward(self, images):
        Path("pid").write_text(str(os.getpid()))
        while True:
            pass
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_command(ending: signal.Signals, tmp_path: Path) -> None:
    write_modules(tmp_path)
    (tmp_path / "held.py").write_text(HELD)
    with started(tmp_path, "parity", write_suite(tmp_path), "--impl", "held:Net", "--no-mlflow") as running:
        pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "worker", running))
        running.send_signal(ending)
        running.wait(30)
        if ending != signal.SIGKILL:
            assert running.returncode == 130
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    assert not psutil.pid_exists(pid)


def test_the_built_in_setting_is_the_quickstart_s_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    monkeypatch.setattr("harness.commands.parity.run_climbs", lambda climbs, tell: seen.extend(climbs) or [])
    outcome = parity(ParityRequest(impls=["numpy"], track=False, level="L2"), print)
    assert outcome.ok
    trial = seen[0].trial
    quickstart = load_suite(ROOT / "suites" / "quickstart.yaml")
    assert trial.model == data.model(quickstart.data, quickstart.model)
    assert (trial.data.name, trial.suite, trial.cpus, trial.gpus) == ("digits", "compact", 1, 0)
    assert [climb.who for climb in seen] == ["numpy fp64", "numpy fp32"]
    assert {climb.level for climb in seen} == {"L2"}


def climb_of(impl: str, precision: str, gpus: int = 0) -> Climb:
    trial = Trial.model_construct(
        impl=impl, runtime=RuntimeConfig.model_validate({"precision": precision}), gpus=gpus
    )  # no more of it is looked at
    return Climb(trial, "L6", 60, Path("log"))


def test_the_longest_begin_first_and_reports_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores: list[tuple[int, ...]] = []

    def supervised(climb: Climb, _base: object, seat: Seat, _stop: object) -> Report:
        cores.append(seat.cores)
        return Report(climb.trial.impl, climb.trial.runtime.precision, "paper", ())

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # leases of its own
    monkeypatch.setattr(process, "_supervise", supervised)
    monkeypatch.setattr(process, "local_cores", lambda: (0,))
    told: list[str] = []
    asked = [climb_of(impl, precision) for impl in ("mine:Net", "torch", "jax") for precision in ("fp64", "fp32")]
    reports = process.run_climbs(asked, told.append)
    assert [f"{report.impl} {report.precision}" for report in reports] == [climb.who for climb in asked]
    assert [line for line in told if line.endswith("started")] == [
        f"{who}: started"
        for who in ("jax fp32", "jax fp64", "mine:Net fp64", "mine:Net fp32", "torch fp64", "torch fp32")
    ]
    assert cores == [(0,)] * 6
    # two at once are no reason to say that another command has the cores
    told.clear()
    monkeypatch.setattr(process, "local_cores", lambda: (0, 1))
    process.run_climbs(asked, told.append)
    assert sorted(told) == sorted(f"{climb.who}: {what}" for climb in asked for what in ("started", "ok"))


def test_one_climb_a_core_and_one_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [climb_of("numpy", "fp64")] * 3
    with_gpu = [*plain, climb_of("torch", "fp32", gpus=1)]
    for cores, gpus, expected in ((1, 0, (1, 1)), (2, 0, (2, 1)), (64, 1, (3, 1)), (64, 2, (3, 2))):
        monkeypatch.setattr(process, "local_cores", lambda cores=cores: tuple(range(cores)))
        monkeypatch.setattr(process, "local_gpus", lambda gpus=gpus: tuple(map(str, range(gpus))))
        assert (process.at_once(plain), process.at_once(with_gpu)) == expected


def test_two_commands_at_once_have_logs_of_their_own(tmp_path: Path) -> None:
    with (
        log_folder(tmp_path, "parity") as first,
        log_folder(tmp_path, "parity") as second,
        log_folder(tmp_path, "parity") as third,
    ):
        assert [first, second, third] == [tmp_path / name for name in ("parity", "parity-2", "parity-3")]
        assert third.is_dir()
    with log_folder(tmp_path, "parity") as again:
        assert again == first


FAILED = Report(
    "torch",
    "fp32",
    "paper",
    (
        Check("L1", "shape.digit", 0.0, 1e-12),
        Check("L4", "grad.digit.w", 0.31, 1e-4, (17, 3, 0, 5), 0.12, 0.09),
        Check("L4", "grad.conv1.b", math.inf, 1e-4, note="missing"),
        Check("L4", "grad.conv1.w", 1e-6, 1e-4, (0, 0, 0, 0), 1.0, 1.0),
    ),
    {"L5": "an adapter without train", "L6": "an adapter without train"},
    ("the softmax over the input capsules",),
)


def test_sentence() -> None:
    one = Report("torch", "fp32", "paper", FAILED.checks[:2], {}, FAILED.suspects)
    assert sentence(one) == (
        "torch fp32: L4 gradient of digit.w: relative error 0.31 (tolerance 1e-4) at [17, 3, 0, 5]: "
        "found 0.12, expected 0.09; looks like the softmax over the input capsules"
    )
    assert sentence(FAILED) == (
        "torch fp32: L4 gradient of conv1.b: missing; looks like the softmax over the input capsules (2 checks of L4 fail)"
    )


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        # one iteration before two, couplings before capsules
        ({"L2": {"squash_tiny.digit": 1, "r1.digit": 0.9, "r1.coupling": 0.5, "r2.coupling": 2}}, "r1.coupling"),
        # ... unless it is much less wrong
        ({"L2": {"squash_tiny.digit": 1, "r1.digit": 1e-6, "r10.coupling": 1e-5}}, "squash_tiny.digit"),
        ({"L2": {"squash_huge.digit": math.inf, "r1.digit": 0.9}}, "squash_huge.digit"),
        # a term before the sum
        ({"L3": {"loss.total": 0.9, "loss.margin": 0.7}}, "loss.margin"),
        (
            {"L3": {"forward.reconstruction": 0.5, "loss.total": 0.9, "loss.reconstruction": 0.7}},
            "forward.reconstruction",
        ),
        # nearest to the loss: the others pass through it
        ({"L4": {"grad.conv1.w": 0.9, "grad.primary.w": 0.9, "grad.digit.w": 0.8}}, "grad.digit.w"),
        ({"L4": {"grad.conv1.w": 0.9, "grad.digit.w": 1e-3}}, "grad.conv1.w"),
        # the first step that differs, however little
        ({"L6": {"step2.total": 0.1, "step2.margin": 0.1, "step10.margin": 5, "evaluation.margin": 3}}, "step2.margin"),
        ({"L6": {"step2.total": 0.1, "step10.margin": 5}}, "step2.total"),
        # and of the lowest level alone
        ({"L2": {"r3.digit": 0.1}, "L3": {"loss.margin": 4}}, "r3.digit"),
    ],
)
def test_the_failure_that_is_told_is_what_the_others_follow_from(errors: dict[str, Any], told: str) -> None:
    checks = [Check(level, name, error, 1e-9) for level, named in errors.items() for name, error in named.items()]
    passed = Check("L2", "r1.coupling", 0.0, 1e-9)
    assert telling(Report("torch", "fp64", "paper", (passed, *checks))).name == told


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.31, "0.31"), (1e-4, "1e-4"), (3.21e-9, "3.2e-9"), (1e-12, "1e-12"), (1.0, "1")]
)
def test_figure(value: float, text: str) -> None:
    assert figure(value) == text


def test_every_check_of_the_ladder_has_words(climbed: tuple[str, str, Path]) -> None:
    names = {check["name"] for report in reports_of(climbed[0]).values() for check in report["checks"]}
    names -= {"exception", "process", "time limit"}
    model, optim = small_model(), OptimSpec()
    for precision in ("fp32", "fp64"):
        runtime = Runtime.model_validate({"precision": precision})

        def make(
            model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False, runtime: Runtime = runtime
        ) -> Impl:
            return NumpyImpl(model, optim or OptimSpec(), runtime)

        impl = make(model)
        ladder = Ladder(impl, model, optim, runtime, *batch_of(model, 2), steps=2, make=make)
        ladder.climb()  # L5 and L6, which adapters do not climb
        names |= {check.name for check in ladder.checks}
    assert {"r10.coupling", "step@1000", "evaluation.total"} <= names
    assert {name for name in names if described(name) == name} == set()


def test_table_says_what_was_skipped_and_what_was_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(width=200), [FAILED], [Path("torch.log")], "L6")
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[2]: line.split()[-1] for line in lines if line.startswith("torch  fp32")}
    assert states == {"L1": "ok", "L2": "reached", "L3": "reached", "L4": "FAILED", "L5": "skipped", "L6": "skipped"}
    assert "torch: L5, L6 skipped: an adapter without train" in lines
    assert "  log: torch.log" in lines
    assert lines[-1] == "Parity: 1 of 1 failed."


def test_metrics_and_names() -> None:
    assert metrics(FAILED) == {
        "parity_ok": 0,
        "L1.ok": 1,
        "L1.checks": 1,
        "L1.max_rel_err": 0,
        "L4.ok": 0,
        "L4.checks": 3,
    }
    long = Report("package.module:AVeryLongClassName", "fp64", "paper", ())
    assert len(run_name(long)) == 20
    assert run_name(long).endswith(" fp64 parity")
