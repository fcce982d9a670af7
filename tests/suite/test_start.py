"""Weights travel: from one framework to another, and from one trial to the start of the next."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands.cli import main
from harness.errors import Noted, UserError
from harness.spec import Impl
from harness.spec.plans import plan_epoch
from harness.suite.start import weights_file
from harness.suite.suite import load_suite
from harness.weights import digest, initial_weights
from harness.weights.files import FIRST, load_weights, read_facts, save_weights
from harness.weights.start import read_start, starting_weights
from tests.helpers.impl_helpers import FRAMEWORKS, batch_of, build, small_model
from tests.helpers.run_helpers import capsbench, write_suite

MODEL = small_model()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture(scope="module")
def trained() -> dict[str, Impl]:
    """Each framework's network after a few steps, each at another place, by name."""
    for package in ("torch", "tensorflow", "jax"):
        pytest.importorskip(package)
    impls: dict[str, Impl] = {}
    for seed, name in enumerate(("numpy", *FRAMEWORKS)):
        images, labels = batch_of(MODEL, 12, seed)
        impls[name] = build(name, MODEL, "fp32", lr=0.01)
        impls[name].load(initial_weights(MODEL, seed))
        impls[name].stage(images, labels)
        impls[name].compile(6)
        impls[name].train(plan_epoch(seed, 1, 12, 6, 1))
    return impls


def test_weights_of_one_framework_predict_the_same_in_every_other(trained: dict[str, Impl], tmp_path: Path) -> None:
    images, labels = batch_of(MODEL, 9, seed=7)
    for source in trained:
        save_weights(tmp_path / f"{source}.safetensors", trained[source].dump())
    assert len({digest(impl.dump()) for impl in trained.values()}) == len(trained)
    for source in trained:
        weights = load_weights(tmp_path / f"{source}.safetensors")
        lengths, predicted = {}, {}
        for target, impl in trained.items():
            impl.load(weights)
            lengths[target] = impl.forward(images).lengths
            predicted[target] = impl.evaluate(images, labels).predicted.tolist()
        for target in FRAMEWORKS:
            np.testing.assert_allclose(lengths[target], lengths["numpy"], rtol=1e-4, atol=1e-6)
            assert predicted[target] == predicted["numpy"]


def ran(folder: Path, *arguments: Any) -> dict[str, Any]:
    done = capsbench(folder, "run", *arguments, "--executor", "inline", "--no-mlflow", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["trials"][0]


def test_a_trial_starts_from_another_s_weights(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, parity={"gate": False})
    first = ran(tmp_path, suite)
    weights = tmp_path / "runs/small/trials" / first["id"] / "weights.safetensors"
    second = ran(tmp_path, suite, "-s", f"train.start_from=runs/small/{first['id']}", "-s", "train.lr=1e-12")
    assert second["weights_sha256"] == digest(load_weights(weights)) != first["weights_sha256"]
    assert second["test_loss"] == pytest.approx(first["test_loss"], rel=1e-3)  # it learns next to nothing more

    # the same content elsewhere is the same trial; other content under the same name is another
    shutil.copy(weights, tmp_path / "elsewhere.safetensors")
    again = ("-s", f"train.start_from={tmp_path}/elsewhere.safetensors", "-s", "train.lr=1e-12")
    assert ran(tmp_path, suite, *again)["attempts"] == 1
    save_weights(tmp_path / "elsewhere.safetensors", {k: w + 1 for k, w in load_weights(weights).items()})
    assert ran(tmp_path, suite, *again)["id"] not in (first["id"], second["id"])


def test_weights_that_do_not_fit_are_refused_before_anything_starts(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    trial = load_suite(suite).trials(0, lambda _: {})[0]
    weights = initial_weights(trial.model, 0)
    good = {**weights}
    bad: dict[str, Any] = {
        "dec3.b is missing": {name: w for name, w in good.items() if name != "dec3.b"},
        "extra does not belong there": {**good, "extra": good["conv1.b"]},
        "conv1.b is 5, expected 4": {**good, "conv1.b": np.zeros(5, np.float32)},
    }
    for complaint, arrays in bad.items():
        save_weights(tmp_path / f"{len(complaint)}.safetensors", arrays)
        path = tmp_path / f"{len(complaint)}.safetensors"
        with pytest.raises(UserError, match=r"-s train\.start_from") as refusal:
            load_suite(suite, [f"train.start_from={path}"])
        assert f"{path} holds the weights of another model: {complaint}. Give" in str(refusal.value)
    (tmp_path / "text").write_text("no weights")
    (tmp_path / "trial").mkdir()
    for name in ("trial.json", "epoch-0001.safetensors"):
        (tmp_path / "trial" / name).touch()
    for start, complaint in (
        (tmp_path / "text", "is no readable safetensors file"),
        (tmp_path / "absent", "expected a safetensors file, or RUN/TRIAL of a finished trial"),
        (tmp_path / "trial", "has no weights.safetensors; a trial has it once it has finished"),
    ):
        with pytest.raises(UserError, match=r"train\.start_from: ") as refusal:
            load_suite(suite, [f"train.start_from={start}"])
        assert complaint in str(refusal.value)


def write_raw(path: Path, dtype: str, tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> None:
    """A safetensors file of any type of number, by hand."""
    header: dict[str, Any] = {}
    content = b""
    for name, (shape, values) in tensors.items():
        place = [len(content), len(content) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        content += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def read_where_warnings_are_errors(path: Path) -> dict[str, np.ndarray]:
    """As with PYTHONWARNINGS=error."""
    warnings.simplefilter("error")
    return read_start(path)


def bfloat16(array: np.ndarray) -> bytes:
    """The upper halves of float32 values."""
    return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_taken_exactly_and_told(
    dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, path = write_suite(tmp_path), tmp_path / "half.safetensors"
    weights = initial_weights(load_suite(suite).trials(0, lambda _: {})[0].model, 1)
    if dtype == "float16":
        save_weights(path, {name: array.astype(np.float16) for name, array in weights.items()})
        exact = {name: array.astype(np.float16).astype(np.float32) for name, array in weights.items()}
    else:
        write_raw(path, "BF16", {name: (array.shape, bfloat16(array)) for name, array in weights.items()})
        exact = {
            name: np.ascontiguousarray((array.view("<u4") >> 16 << 16).view("<f4")) for name, array in weights.items()
        }
    with pytest.warns(Noted, match="exactly these, in float32"):
        taken = read_start(path)
    with pytest.warns(Noted, match="exactly these, in float32"):
        assert digest(read_where_warnings_are_errors(path)) == digest(taken)
    assert digest(taken) == digest(exact) != digest(weights)
    assert {array.dtype.name for array in taken.values()} == {"float32"}
    arguments = ["plan", str(suite), "-s", f"train.start_from={path}", "--executor", "inline", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = (
        f"capsbench: train.start_from: {path} holds {dtype} numbers. Training starts from exactly these, in float32\n"
    )
    assert told in capsys.readouterr().err
    assert ended.value.code == 0


def test_what_is_no_file_of_weights_is_named_with_what_to_do(tmp_path: Path) -> None:
    suite, path = write_suite(tmp_path), tmp_path / "w.safetensors"
    weights = initial_weights(load_suite(suite).trials(0, lambda _: {})[0].model, 1)
    quantised = {name: (array.shape, bytes(array.size)) for name, array in weights.items()}
    bad = {**weights, "conv1.b": weights["conv1.b"] * np.float32("nan")}
    cases: list[tuple[Any, str]] = [
        (lambda: write_raw(path, "F8_E4M3", quantised), "conv1.b is F8_E4M3; "),
        (
            lambda: write_raw(path, "F8_E5M2", quantised),
            "8 bits or fewer are quantised: start from the weights that they",
        ),
        (lambda: save_weights(path, bad), "conv1.b has 4 of 4 values that are not finite numbers"),
        (lambda: save_weights(path, {FIRST + "conv1.b": weights["conv1.b"]}), "is a checkpoint, with the state of the"),
        (lambda: path.write_bytes(LFS), "it is a Git LFS pointer; fetch the file itself: git lfs pull"),
        (lambda: path.write_bytes(b"<html>"), "it is an HTML page; download it again"),
        (lambda: path.write_bytes(b""), "it is an empty file; download or copy it again"),
        (
            lambda: np.savez(path.open("wb"), allow_pickle=False, **weights),
            "it is a NumPy archive (.npz); convert it: safetensors.numpy.save",
        ),
        (
            lambda: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)),
            "an HDF5 file, as Keras and h5py write them; load it",
        ),
        (lambda: path.write_bytes(pickle.dumps({"a": 1})), "it is a Python pickle; reading it could run any program"),
        (lambda: grown(path, weights, 2), "it is no readable safetensors file: it is 2 bytes too long"),
        (lambda: grown(path, weights, -1), "it is no readable safetensors file: it is 1 byte too short"),
    ]
    for make, said in cases:
        make()
        with pytest.raises(UserError) as refusal:
            load_suite(suite, [f"train.start_from={path}"])
        assert said in str(refusal.value)
        assert str(path) in str(refusal.value)


def grown(path: Path, weights: dict[str, Any], by: int) -> None:
    save_weights(path, weights)
    content = path.read_bytes()
    path.write_bytes(content + bytes(by) if by > 0 else content[:by])


def test_a_pytorch_file_is_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(
        UserError, match=r"it is a PyTorch file; convert it: .*If `capsbench export` made it, give its trial"
    ):
        read_start(tmp_path / "w.pt")


def test_a_folder_says_what_it_holds(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "trials" / "0123456789ab").mkdir(parents=True)
    save_weights(run / "trials" / "0123456789ab" / "weights.safetensors", {"w": np.zeros(1)})
    for given in (run, run / "trials"):
        with pytest.raises(UserError, match=rf"it is a run: give RUN/TRIAL, such as {run}/0123456789ab\."):
            weights_file(str(given))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"give a file of it: .*model\.safetensors"):
        weights_file(str(tmp_path))
    (run / "plan.json").write_text('{"schema": "3.0", "made_by": "capsbench 0.4", "trials": []}')
    with pytest.raises(UserError, match=r": train\.start_from: .* was made by capsbench 0\.4, schema 3\.0"):
        load_suite(write_suite(tmp_path), [f"train.start_from={run}/0123456789ab"])
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(UserError, match=r"is a link to gone, which does not exist; expected a safetensors file"):
        weights_file(str(tmp_path / "link"))


def test_the_nearest_trial_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "0123456789ab"
    folder.mkdir(parents=True)
    save_weights(folder / "weights.safetensors", {"w": np.zeros(1)}, {"epoch": 3})
    assert read_facts(weights_file(f"{tmp_path}/0123456789ab")) == {"epoch": 3}
    with pytest.raises(UserError, match=r'there is no ".*0123456789aa"; did you mean "0123456789ab"\?'):
        weights_file(f"{tmp_path}/0123456789aa")


def test_weights_that_changed_after_planning_are_noticed(tmp_path: Path) -> None:
    suite, path = write_suite(tmp_path), tmp_path / "start.safetensors"
    weights = initial_weights(load_suite(suite).trials(0, lambda _: {})[0].model, 1)
    save_weights(path, weights)
    trial = load_suite(suite, [f"train.start_from={path}"]).trials(0, lambda _: {})[0]
    assert digest(starting_weights(trial, path)) == trial.start_sha256 == digest(weights)
    save_weights(path, {**weights, "conv1.b": weights["conv1.b"] + 1})
    with pytest.raises(UserError, match="has changed since the trial was planned"):
        starting_weights(trial, path)
