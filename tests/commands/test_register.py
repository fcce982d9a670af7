"""`--register`: a trial's weights in MLflow's registry as a model that answers, over HTTP too."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands import registering
from harness.commands.cli import main
from harness.errors import UserError
from harness.models import probing
from harness.prediction import pyfunc
from harness.prediction.trained import of_trial
from harness.views.mlflow import packing, registration
from harness.views.mlflow.client import prepare
from harness.views.mlflow.tracking import default_uri
from tests.helpers.run_helpers import write_suite


def called(arguments: list[str]) -> int:
    """The command's exit code."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(str(end.value.code))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two seeds that was registered as it ended, and what was printed."""
    folder = tmp_path_factory.mktemp("register")
    suite = write_suite(folder, grid={"impl": ["numpy"], "seed": [0, 1]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", (folder / "out").open("w+"))
        options = ["--executor", "inline", "--figures", "none", "--out", str(folder / "runs"), "--register"]
        assert called(["run", str(suite), *options]) == 0
        sys.stdout.flush()
    return folder / "runs" / "small", (folder / "out").read_text()


@pytest.fixture
def client(done: tuple[Path, str]) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(default_uri(done[0].parent))


def best(run: Path) -> str:
    """The trial with the lower validation error of its best epoch."""
    results = [json.loads(path.read_text()) for path in run.glob("trials/*/result.json")]
    errors = {each["id"]: min(epoch["val_err_pct"] for epoch in each["epochs"]) for each in results}
    return min(
        sorted(errors, key=lambda id: next(r["seed"] for r in results if r["id"] == id)), key=lambda id: errors[id]
    )


def test_the_best_trial_is_registered_as_the_run_ends(done: tuple[Path, str], client: Any) -> None:
    run, printed = done
    model, version = (
        client.get_registered_model("capsbench-small"),
        client.get_model_version_by_alias("capsbench-small", "numpy"),
    )
    assert model.tags == {"capsbench.suite": "small", "capsbench.shape": "images 28x28x1, 10 classes, capsnet"}
    assert f"Registered: models:/capsbench-small@numpy (version 1): trial {best(run)}, best weights" in printed
    facts = {
        "capsbench.trial": best(run),
        "capsbench.suite": "small",
        "parity": "good",
        "weights": "best",
        "computes": "numpy",
    }
    assert facts.items() <= version.tags.items()
    assert float(version.tags["max_error"]) < 1e-5
    assert 0 <= float(version.tags["test_err_pct"]) <= 100
    trial_run = client.get_run(version.run_id)
    assert trial_run.data.tags["capsbench.trial"] == best(run)
    names = {client.get_logged_model(each.model_id).tags["capsbench.kind"] for each in trial_run.outputs.model_outputs}
    assert names == {"weights", "pyfunc"}


def test_what_a_model_needs_can_be_installed() -> None:
    needs = packing.requirements("torch")
    assert {each.partition("==")[0] for each in needs} >= {"mlflow", "numpy", "safetensors", "pydantic", "torch"}
    assert not [each for each in needs if "+" in each or "==" not in each]


def test_again_nothing_new_is_registered_and_another_trial_is(
    done: tuple[Path, str], client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = done
    assert called(["sync", str(run), "--register", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["registered"]
    assert (found["version"], found["is_new"], found["uri"]) == ("1", False, "models:/capsbench-small@numpy")
    (other,) = {path.name for path in run.glob("trials/*")} - {best(run)}
    chosen = registering.choose(run, other[:8])
    assert [(each.result.id, each.weights, each.why) for each in chosen] == [(other, "best", "named by the user")]


def request(port: int, body: bytes) -> tuple[int, Any]:
    address = f"http://127.0.0.1:{port}/invocations"
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def served(done: tuple[Path, str], tmp_path: Path) -> Iterator[int]:
    """The port of the server that the printed command starts."""
    import mlflow

    line = next(line for line in done[1].splitlines() if line.startswith("To serve it: "))
    words = shlex.split(line.removeprefix("To serve it: "))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert words[-2:] == ["--port", "5001"]
    assert words[words.index("mlflow") + 1 :][:2] == ["models", "serve"]
    uri = next(word for word in words if word.startswith("MLFLOW_TRACKING_URI=")).partition("=")[2]
    scripts = Path(mlflow.__file__).parents[4] / "bin"  # mlflow's and uvicorn's, wherever they were installed
    path = os.pathsep.join([str(Path(sys.executable).parent), str(scripts), os.environ["PATH"]])
    command = [sys.executable, "-P", "-m", *words[words.index("mlflow") : -1], str(port)]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # the model has its own code
    env |= {"MLFLOW_TRACKING_URI": uri, "PATH": path, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_the_registered_model_answers_over_http(done: tuple[Path, str], served: int) -> None:
    run, _ = done
    trained = of_trial(run, best(run), "best")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    status, answer = request(served, json.dumps({"inputs": images.tolist()}).encode())
    assert status == 200, answer
    found = {key: np.array(value) for key, value in answer["predictions"].items()}
    expected = probing.specification(trained.model, trained.weights).forward(images)
    np.testing.assert_allclose(found["lengths"], expected.lengths, atol=1e-5)
    assert found["class"].tolist() == np.argmax(expected.lengths, axis=1).tolist()
    np.testing.assert_allclose(found["reconstruction"], expected.reconstruction.reshape(3, 28, 28, 1), atol=1e-5)
    assert request(served, json.dumps({"inputs": [[1, 2]]}).encode())[0] == 400
    assert request(served, b"no JSON")[0] == 400


def test_another_implementation_computes_where_that_is_asked_for(done: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = done
    pyfunc.pack(of_trial(run, best(run), "last"), "torch", tmp_path)
    served = pyfunc._load_pyfunc(str(tmp_path), {"impl": "numpy"})
    assert served.impl == "numpy"
    images = np.zeros((65, 28, 28, 1), np.uint8)
    assert {key: value.shape for key, value in served.predict(images).items()} == {
        "lengths": (65, 10), "class": (65,), "reconstruction": (65, 28, 28, 1),
    }  # fmt: skip
    assert {key: value.shape for key, value in served.predict(images[:0]).items()} == {
        "lengths": (0, 10), "class": (0,), "reconstruction": (0, 28, 28, 1),
    }  # fmt: skip
    with pytest.raises(UserError, match="expected values 0 to 255"):
        served.predict(images - 1.0)
    with pytest.raises(UserError, match="expected images Nx28x28x1, of values 0 to 255; found 65x28x28"):
        served.predict(images[..., 0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--register", "a/b"], "a model's name has no /"),
        (["--register", " "], "a model's name has no /"),
        (["--register", "x" * 300], "a name of 300 characters; at most 200"),
        (["--register", "taken"], 'the registry has a model "taken" that is not of capsbench'),
        (["--register", "--trial", "zzz"], 'has no trial "zzz"'),
        (["--trial", "0"], "--trial says what --register puts into the registry: add --register, or drop it"),
        (["--register", "--impl", "nunpy"], 'unknown implementation "nunpy"; did you mean "numpy"?'),
        (["--register", "--mlflow-uri", "sqlite:////dev/null/mlflow.db"], "/dev/null"),
        (["--register", "--mlflow-uri", "http://127.0.0.1:1"], "nothing listens on port 1 of 127.0.0.1"),
    ],
)
def test_what_cannot_be_registered_is_told_before_anything_is_sent(
    done: tuple[Path, str], client: Any, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    if "taken" in given:
        client.create_registered_model("taken")
    before = (done[0] / "mlflow.json").read_bytes()
    assert called(["sync", str(done[0]), *given]) == 2
    assert said in capsys.readouterr().err
    assert (done[0] / "mlflow.json").read_bytes() == before


def test_a_run_that_could_not_be_registered_does_not_start(
    done: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, out = write_suite(tmp_path), tmp_path / "runs"
    for given, said in (
        (["--no-mlflow", "--register"], "--register and --no-mlflow exclude each other"),
        (["--register", "a:b"], "a model's name has no /"),
        (["--register", "--mlflow-uri", "http://127.0.0.1:1"], "Nothing was started."),
    ):
        assert called(["run", str(suite), "--out", str(out), *given]) == 2
        assert said in capsys.readouterr().err
    assert not (out / "small").exists()
    assert called(["run", "--register", str(suite)]) == 2
    assert f'--register has taken "{suite}": SUITE stands before --register' in capsys.readouterr().err


def test_a_folder_is_no_registry_and_still_takes_the_runs(
    done: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run, store = Path(shutil.copytree(done[0], tmp_path / "small")), tmp_path / "store"
    assert called(["sync", str(run), "--mlflow-uri", str(store), "--register"]) == 2
    assert "is a folder, which is no registry of models" in capsys.readouterr().err
    assert not store.exists()
    assert called(["sync", str(run), "--mlflow-uri", str(store)]) == 0
    assert called(["sync", str(run), "--mlflow-uri", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["events"] == 0


def test_a_moved_folder_brings_its_models_along(done: tuple[Path, str], tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    moved = Path(shutil.copytree(done[0].parent, tmp_path / "moved"))
    prepare(default_uri(moved), moved)
    client = MlflowClient(default_uri(moved))
    version = client.get_model_version_by_alias("capsbench-small", "numpy")
    places = {version.source, client.get_model_version_download_uri(version.name, version.version)}
    experiment = client.get_run(str(version.run_id)).info.experiment_id
    models = client.search_logged_models([experiment], "tags.`capsbench.kind` = 'pyfunc'")
    places |= {model.artifact_location for model in models}
    (place,) = places
    assert place.startswith(f"{moved.as_uri()}/mlartifacts/capsbench/small/models/")
    assert (Path(place.removeprefix("file://")) / "MLmodel").is_file()


def test_weights_that_are_gone_and_a_choice_without_validation_images(done: tuple[Path, str], tmp_path: Path) -> None:
    run = Path(shutil.copytree(done[0], tmp_path / "small"))
    for path in run.glob("trials/*/*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="has no weights"):
        registering.choose(run)
    results = [each.result for each in registering.choose(done[0])]
    assert registration.validated_pct(results[0], "best") is not None
    without = [replace(results[0], id=id, best_epoch=None) for id in (results[0].id, "other")]
    with pytest.raises(UserError, match="test images choose nothing"):
        registering._best(done[0], without, None)
