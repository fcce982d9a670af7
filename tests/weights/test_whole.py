"""Files are trusted only if intact: every reader, every kind of damage, with a recorded SHA-256 and without."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from harness.commands.cli import main
from harness.errors import TrialFailed, UserError
from harness.events import EpochEvent, ResultEvent, TrialEvent
from harness.journal.journal import Journal
from harness.journal.resume import resume_point
from harness.spec import EvalTotals, Moments, Weights
from harness.spec.trial import Trial
from harness.suite.suite import load_suite
from harness.views.figures.draw import draw_missing
from harness.weights import digest, initial_weights
from harness.weights.files import FIRST, SECOND, load_weights, read_facts, save_checkpoint, save_weights
from harness.weights.progress import Best, Progress
from harness.weights.whole import Damaged, fingerprint, read_checkpoint, read_weights
from harness.worker.training import Diverged, run_trial
from impls.numpy import NumpyImpl
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import write_suite

Edit = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
Table = dict[str, tuple[Callable[[Path], object], str | None]]


def trials_in(folder: Path, impl: str = "numpy", **changes: Any) -> tuple[Trial, ...]:
    folder.mkdir(exist_ok=True)
    grid = {"impl": [impl], "seed": [0, 1]}
    suite = write_suite(folder, train={"epochs": 3}, parity={"gate": False}, grid=grid, **changes)
    return load_suite(suite).trials(0, lambda _: {})


class BrokenOff(Exception):
    """The driver's end, before the event of the result."""


def ran(folder: Path, *, finishes: bool) -> Path:
    """A run directory as the driver leaves it, of two trials trained here; of unfinished ones only the result is missing."""
    trials = trials_in(folder)
    run_dir = folder / "runs" / "small"
    with Journal(run_dir).open() as journal:
        documents = [trial.model_dump(mode="json") for trial in trials]
        journal.write_plan({"suite": "small", "source": "small.yaml", "trials": documents}, "")
        for trial in trials:

            def emit(told: TrialEvent, trial: Trial = trial) -> None:
                if told.kind == "result" and not finishes:
                    raise BrokenOff
                journal.append(trial.id, told.stamped(1.0).of(trial.id, 1))

            emit(event({"kind": "attempt"}))
            try:
                run_trial(trial, emit, journal.trial_dir(trial.id))
            except BrokenOff:
                assert not finishes
    return run_dir


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("finished"), finishes=True)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("unfinished"), finishes=False)


def copied(run_dir: Path, tmp_path: Path, *, recorded: bool = True) -> Path:
    """The folder of the first trial in a copy of the run; not `recorded`: as runs were before events had a SHA-256."""
    shutil.copytree(run_dir, tmp_path / "small")
    folders = sorted((tmp_path / "small").glob("trials/*"))
    for folder in folders if not recorded else ():
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        lines = [
            json.dumps({key: value for key, value in event.items() if key not in ("files", "line", "check")})
            for event in events
        ]
        (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folders[0]


def rewrite(path: Path, change: Edit, **facts: Any) -> None:
    """Other tensors, and facts, in a file that is otherwise the same; None takes a fact away."""
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] | None = file.metadata()
    if facts:
        merged = {**read_facts(path), **facts}
        metadata = {"capsbench": json.dumps({key: value for key, value in merged.items() if value is not None})}
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    path.unlink()
    save_file(change(tensors), path, metadata=metadata)


def with_first(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """The change of one tensor: a matrix, or the predictions."""

    def edit(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        name = next(name for name in ("dec1.w", "predicted") if name in tensors)
        return {**tensors, name: np.ascontiguousarray(change(tensors[name]))}

    return edit


def first_set_to(value: float) -> Edit:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return with_first(change)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def another(path: Path) -> None:
    """The file of the same name of the other trial."""
    other = next(each for each in sorted(path.parent.parent.iterdir()) if each != path.parent)
    shutil.copy(other / path.name, path)


# Of any file; what is said of weights where no SHA-256 is recorded, None where nothing can be.
DAMAGE: Table = {
    "flipped bit": (flip, None),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "it is no readable safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "it is no readable safetensors file"),
    "not safetensors": (lambda path: path.write_bytes(b"PK\x03\x04" * 40), "it is no readable safetensors file"),
    "a folder": (lambda path: path.unlink() or path.mkdir(), "it cannot be read: Is a directory"),
    "missing": (lambda path: rewrite(path, lambda t: dict(list(t.items())[1:])), "conv1.b is missing"),
    "extra": (lambda path: rewrite(path, lambda t: {**t, "more": np.ones(2)}), "more does not belong there"),
    "swapped": (lambda path: rewrite(path, with_first(lambda a: a[None].swapaxes(0, -1))), "dec1.w is 8x40x1, expected 40x8"),
    "scrambled": (lambda path: rewrite(path, with_first(lambda a: a[::-1])), None),
    "float16": (lambda path: rewrite(path, with_first(lambda a: a.astype(np.float16))), "dec1.w is float16, expected float32"),
    "float64": (lambda path: rewrite(path, with_first(lambda a: a.astype(np.float64))), "dec1.w is float64, expected float32"),
    "another trial's": (another, "it holds the weights of trial "),
}  # fmt: skip
OF_NUMBERS: Table = {
    "int32": (
        lambda path: rewrite(path, with_first(lambda a: a.astype(np.int32))),
        "dec1.w is int32, expected float32",
    ),
    "NaN": (lambda path: rewrite(path, first_set_to(np.nan)), "dec1.w has 1 of 320 values that are not finite numbers"),
    "infinite": (lambda path: rewrite(path, first_set_to(-np.inf)), "dec1.w has 1 of 320 values that are not finite"),
}
WEIGHTS = DAMAGE | OF_NUMBERS
PREDICTIONS: Table = {
    "flipped bit": DAMAGE["flipped bit"],
    **{name: (spoil, said) for name, (spoil, said) in DAMAGE.items() if said and said.startswith("it ")},
    "missing": (DAMAGE["missing"][0], "labels is missing"),
    "extra": (DAMAGE["extra"][0], "more does not belong there"),
    "float16": (DAMAGE["float16"][0], "predicted is float16, expected int8 or int16"),
    "too few": (lambda path: rewrite(path, with_first(lambda a: a[1:])), "predicted is 15, expected 16"),
    "no class": (lambda path: rewrite(path, first_set_to(10)), "predicted has values outside the 10 classes, from "),
    "below": (lambda path: rewrite(path, first_set_to(-1)), "predicted has values outside the 10 classes, from -1 to "),
    "another trial's": (another, "its test error is "),
}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command says as it ends with exit code 2."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    said = capsys.readouterr()
    assert left.value.code == 2, said.out
    assert "Traceback" not in said.err
    return said.err


def cases(table: Table, but: Sequence[str] = ()) -> list[tuple[str, bool]]:
    """Every kind with a recorded SHA-256, and those that show, except for `but`, without."""
    return [(kind, True) for kind in table] + [
        (kind, False) for kind, (_, said) in table.items() if said is not None and kind not in but
    ]


def damage(path: Path, table: Table, kind: str, recorded: bool) -> str:
    """Damages the file; a part of what every reader must say of it."""
    spoil, said = table[kind]
    spoil(path)
    if not recorded:
        return f"{path} is damaged: {said}"
    size = "it has " if kind in ("truncated", "empty", "not safetensors") else "it"
    return f"{path} is damaged: {size if said else 'its SHA-256'}"


@pytest.mark.parametrize(("kind", "recorded"), cases(WEIGHTS))
def test_damaged_weights_are_named_by_every_reader(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, recorded: bool
) -> None:
    folder = copied(finished, tmp_path, recorded=recorded)
    said = damage(folder / "weights.safetensors", WEIGHTS, kind, recorded)
    run_dir = folder.parent.parent
    assert said in refusal(capsys, "export", run_dir, folder.name, "--to", "jax", "--out", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    assert said in refusal(capsys, "report", run_dir)
    assert not (run_dir / "report").exists()
    assert said in refusal(capsys, "figures", run_dir, folder.name)
    assert not (folder / "figures").exists()


def test_figures_of_other_trials_are_drawn(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(finished, tmp_path)
    flip(folder / "weights.safetensors")
    run_dir = folder.parent.parent
    assert f"trial {folder.name} has no new figures: " in refusal(capsys, "figures", run_dir)
    (other,) = run_dir.glob("trials/*/figures/figures.json")
    assert other.parent.parent != folder
    said: list[str] = []
    (warning,) = draw_missing(Journal(run_dir), [folder.name], said.append)  # at the end of a run
    assert f"trial {folder.name} has no figures: {folder / 'weights.safetensors'} is damaged: " in warning


@pytest.mark.parametrize(("kind", "recorded"), cases(PREDICTIONS))
def test_damaged_predictions_are_named_by_every_reader(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, recorded: bool
) -> None:
    folder = copied(finished, tmp_path, recorded=recorded)
    said = damage(folder / "predictions.safetensors", PREDICTIONS, kind, recorded)
    run_dir = folder.parent.parent
    assert said in refusal(capsys, "report", run_dir)
    assert said in refusal(capsys, "figures", run_dir, folder.name)


@pytest.mark.parametrize(
    ("kind", "recorded"), cases(WEIGHTS, but=("float64", "float16", "another trial's"))
)  # as good as others
def test_no_trial_starts_from_damaged_weights(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, recorded: bool
) -> None:
    folder = copied(finished, tmp_path, recorded=recorded)
    suite = write_suite(tmp_path)
    path = folder / "weights.safetensors"
    said = damage(path, WEIGHTS, kind, recorded)
    found = said.removeprefix(f"{path} is damaged: ").partition(", expected")[0]
    for start in (path.parent, path) if kind != "a folder" else (path.parent,):
        refused = refusal(capsys, "plan", suite, "-s", f"train.start_from={start}")
        assert "train.start_from: " in refused
        assert str(path if kind != "a folder" else folder) in refused
        assert recorded or kind == "a folder" or found in refused


def test_other_files_that_are_no_whole_weights_are_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is in no run directory."""
    suite, path = write_suite(tmp_path), tmp_path / "start.safetensors"
    model = load_suite(suite).trials(0, lambda _: {})[0].model
    torch = pytest.importorskip("torch")
    save_file_of_torch = pytest.importorskip("safetensors.torch").save_file
    weights = initial_weights(model, 0)
    tensors = {name: torch.tensor(array) for name, array in weights.items()}
    for dtype, name in ((torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"), (torch.int32, "int32")):
        save_file_of_torch({name: tensor.to(dtype) for name, tensor in tensors.items()}, path)
        refused = refusal(capsys, "plan", suite, "-s", f"train.start_from={path}")
        assert f"{path}: conv1.b is {name}; " in refused
        assert "weights to start from are float32, float64, bfloat16 or float16" in refused
    save_file_of_torch({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, path)
    (taken,) = load_suite(suite, [f"train.start_from={path}"]).trials(0, lambda _: {})
    assert taken.start_sha256 == digest({n: t.to(torch.bfloat16).to(torch.float32).numpy() for n, t in tensors.items()})
    save_weights(path, {name: array.astype(np.float64) for name, array in weights.items()})
    (rounded,) = load_suite(suite, [f"train.start_from={path}"]).trials(0, lambda _: {})
    save_weights(path, weights)
    (exact,) = load_suite(suite, [f"train.start_from={path}"]).trials(0, lambda _: {})
    assert rounded.start_sha256 == exact.start_sha256


def test_what_no_event_names_is_not_believed(
    unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trial broke off between its last files and the event that names them."""
    folder = copied(unfinished, tmp_path)
    assert (folder / "weights.safetensors").exists()
    run_dir, suite = folder.parent.parent, write_suite(tmp_path)
    assert "it has not finished. Valid: 2, 3." in refusal(capsys, "export", run_dir, folder.name, "--to", "jax")
    refused = refusal(capsys, "plan", suite, "-s", f"train.start_from={folder}")
    assert f"no event of trial {folder.name} names {folder / 'weights.safetensors'}" in refused


# Going on


CHECKPOINT: Table = {
    **{name: each for name, each in WEIGHTS.items() if name != "another trial's"},
    "missing": (
        lambda path: rewrite(path, lambda t: {k: a for k, a in t.items() if k != "conv1.b"}),
        "conv1.b is missing",
    ),
    "no moments": (
        lambda path: rewrite(path, lambda t: {k: a for k, a in t.items() if not k.startswith("adam.")}),
        "adam.first.conv1.b is missing; adam.first.conv1.w is missing; adam.first.dec1.b is missing; and ",
    ),
    "moment of another shape": (
        lambda path: rewrite(path, lambda t: {**t, f"{FIRST}conv1.b": np.zeros(5, np.float32)}),
        "adam.first.conv1.b is 5, expected 4",
    ),
    "NaN as a moment": (
        lambda path: rewrite(path, lambda t: {**t, f"{FIRST}conv1.b": t["conv1.b"] * np.float32(np.nan)}),
        "adam.first.conv1.b has 4 of 4 values that are not finite",
    ),
    "negative second moment": (
        lambda path: rewrite(path, lambda t: {**t, f"{SECOND}conv1.b": -1 - t[f"{SECOND}conv1.b"]}),
        "adam.second.conv1.b has values below zero",
    ),
    "step": (lambda path: rewrite(path, dict, step=-1), "its header says step is -1: "),
    "step of half": (lambda path: rewrite(path, dict, step=1.5), "its header says step is 1.5: "),
    "no end": (lambda path: rewrite(path, dict, is_over="no"), "its header says is_over is 'no': "),
    "another epoch's": (lambda path: rewrite(path, dict, epoch=2), "it is of epoch 2, not of 3"),
    "best of no epoch": (
        lambda path: rewrite(path, dict, best={"epoch": -1, "val_err_pct": 1.0, "val_loss": 0.1}),
        "its header says best.epoch is -1: ",
    ),
    "no header": (lambda path: save_file({k: a.copy() for k, a in load_file(path).items()}, path), "its header says "),
}


@pytest.mark.parametrize(("kind", "recorded"), cases(CHECKPOINT))
def test_training_goes_on_from_the_last_whole_checkpoint(
    unfinished: Path, tmp_path: Path, kind: str, recorded: bool
) -> None:
    folder = copied(unfinished, tmp_path, recorded=recorded)
    journal = Journal(folder.parent.parent)
    trial = journal.trial(folder.name)
    newest, before = (folder / f"epoch-000{epoch}.safetensors" for epoch in (3, 2))
    assert resume_point(journal, trial).epoch == 3
    assert resume_point(journal, trial).warning is None
    said = damage(newest, CHECKPOINT, kind, recorded)
    point = resume_point(journal, trial)
    assert (point.epoch, point.checkpoint) == (2, before)
    assert str(point.warning).startswith(said)
    went_on = "training goes on after epoch 2, from epoch-0002.safetensors, the last whole checkpoint"
    assert str(point.warning).endswith(f"; {went_on}")
    before.unlink()
    point = resume_point(journal, trial)
    assert (point.epoch, point.checkpoint) == (0, None)
    assert str(point.warning).startswith(said)
    assert str(point.warning).endswith("; there is no whole checkpoint: training starts from the beginning")


def test_a_given_up_epoch_is_no_place_to_go_on(unfinished: Path, tmp_path: Path) -> None:
    folder = copied(unfinished, tmp_path)
    trial = Journal(folder.parent.parent).trial(folder.name)
    with Journal(folder.parent.parent).open() as journal:
        journal.append(trial.id, event({"kind": "attempt", "attempt": 2, "resumed_epoch": 2}))
    assert resume_point(journal, trial).epoch == 2


def test_nothing_trained_is_no_damage(tmp_path: Path) -> None:
    (trial, _) = trials_in(tmp_path)
    point = resume_point(Journal(tmp_path / "none"), trial)
    assert (point.epoch, point.checkpoint, point.recorded, point.warning) == (0, None, None, None)


def test_a_checkpoint_of_an_epoch_is_exported_only_whole(
    unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(unfinished, tmp_path)
    run_dir, path = folder.parent.parent, folder / "epoch-0003.safetensors"
    flip(path)
    refused = refusal(capsys, "export", run_dir, folder.name, "--to", "jax", "--weights", 3)
    assert f"{path} is damaged: its SHA-256 begins with " in refused


def test_best_weights_are_as_the_best_epoch_s(tmp_path: Path) -> None:
    """A checkpoint holds the best epoch's weights if that is another: then they are checked, and else must not be there."""
    (trial, _) = trials_in(tmp_path)
    weights = initial_weights(trial.model, 0)
    moments = Moments(1, weights, {name: array**2 for name, array in weights.items()})
    path = tmp_path / "epoch-0002.safetensors"
    save_checkpoint(path, weights, moments, Progress(2, 3.0, Best(1, 2.0, 0.1, weights)))
    *_, progress = read_checkpoint(path, trial, fingerprint(path), 2)
    assert progress.best is not None
    assert progress.best.epoch == 1
    rewrite(path, lambda tensors: {**tensors, "best.conv1.b": np.full(4, np.inf, np.float32)})
    with pytest.raises(Damaged, match=r"best\.conv1\.b has 4 of 4 values"):
        read_checkpoint(path, trial, None, 2)
    rewrite(path, lambda tensors: {name: array for name, array in tensors.items() if name != "best.conv1.b"})
    with pytest.raises(Damaged, match=r"best\.conv1\.b is missing"):
        read_checkpoint(path, trial, None, 2)
    save_checkpoint(path, weights, moments, Progress(2, 3.0, Best(2, 3.0, 0.1, weights)))
    rewrite(path, lambda tensors: {**tensors, "best.conv1.b": weights["conv1.b"]})
    with pytest.raises(Damaged, match=r"best\.conv1\.b does not belong there"):
        read_checkpoint(path, trial, None, 2)


# Writing


def test_events_say_what_was_written(finished: Path) -> None:
    for folder in finished.glob("trials/*"):
        *_, last, result = Journal(finished).events(folder.name)
        assert isinstance(last, EpochEvent)
        assert isinstance(result, ResultEvent)
        assert last.files is not None
        assert result.files is not None
        assert set(last.files) == {"epoch-0003.safetensors"}
        assert set(result.files) == {"weights.safetensors", "best.safetensors", "predictions.safetensors"}
        for name, said in {**last.files, **result.files}.items():
            assert said == fingerprint(folder / name)
            assert said["bytes"] == (folder / name).stat().st_size


def test_a_write_that_breaks_off_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": np.ones(3)})

    def fails(tensors: Weights, to: Path, metadata: Any) -> None:
        to.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.weights.files._save", fails)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, {"a": np.zeros(3)})
    assert load_weights(path)["a"].tolist() == [1, 1, 1]
    assert [each.name for each in tmp_path.glob("*.safetensors")] == [path.name]


def test_a_transposed_view_is_written_as_it_reads(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_weights(tmp_path / "w", {"a": matrix, "number": np.array(2, np.float32)})
    found = load_weights(tmp_path / "w")
    assert found["a"].tolist() == matrix.tolist()
    assert found["number"].shape == ()


class SpoiledNet(NumpyImpl):
    """After an epoch one weight is not a number, though no loss has seen it yet."""

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> EvalTotals:
        totals = super().evaluate(images, labels)
        self.weights["digit.w"] = self.weights["digit.w"] * np.float32(np.nan)
        return totals


class ShortNet(NumpyImpl):
    """Dumps one weight in another precision than the trial's."""

    def dump(self) -> Weights:
        weights = super().dump()
        return {**weights, "digit.w": weights["digit.w"].astype(np.float16)}


@pytest.mark.parametrize(
    ("net", "error", "said"),
    [
        ("SpoiledNet", Diverged, r"after epoch 1, digit\.w has .* not finite numbers; lower train\.lr"),
        ("ShortNet", TrialFailed, r"ShortNet dumps after epoch 1 is not the model's: digit\.w is float16, expected"),
    ],
)
def test_what_would_not_be_whole_is_not_written(tmp_path: Path, net: str, error: type[Exception], said: str) -> None:
    (trial, _) = trials_in(tmp_path, f"tests.weights.test_whole:{net}")
    events: list[dict[str, Any]] = []
    with pytest.raises(error, match=said):
        run_trial(trial, lambda event: events.append(event.to_json()), tmp_path)
    assert [event["kind"] for event in events] == ["ready"]
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_worker_checks_what_it_was_sent(unfinished: Path, tmp_path: Path) -> None:
    """It may be on another node, where there is no journal."""
    folder = copied(unfinished, tmp_path)
    trial = Journal(folder.parent.parent).trial(folder.name)
    path = folder / "epoch-0003.safetensors"
    record = fingerprint(path)
    flip(path)
    with pytest.raises(UserError, match=r"epoch-0003\.safetensors is damaged: its SHA-256"):
        run_trial(trial, lambda _: None, tmp_path, path, 3, record)


def test_weights_in_double_precision_are_whole(tmp_path: Path) -> None:
    (trial, _) = trials_in(tmp_path, runtime={"precision": "fp64"})
    events: list[dict[str, Any]] = []
    run_trial(trial, lambda event: events.append(event.to_json()), tmp_path)
    weights = read_weights(tmp_path / "weights.safetensors", trial, events[-1]["files"]["weights.safetensors"])
    assert {array.dtype.name for array in weights.values()} == {"float64"}
