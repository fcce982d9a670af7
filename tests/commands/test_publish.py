"""`capsbench publish` and `verify`: a crate is confirmed as it was written, and any change of it is found."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.commands.cli import main
from harness.publishing import checks, crate
from harness.publishing.metadata import NAME
from harness.publishing.recompute import Answers
from tests.helpers.run_helpers import capsbench, write_suite

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    suite = write_suite(folder, grid={"impl": ["numpy"], "seed": [0, 1]})
    done = capsbench(folder, "run", suite.name, "--executor", "inline", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "small"


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("published") / "crate"
    with pytest.raises(SystemExit) as ended:
        main(["publish", str(run), "--to", str(target), "--license", "CC-BY-4.0", "--author", "A Person"])
    assert not ended.value.code
    return target


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def states(out: str) -> dict[str, str]:
    return {row["what"]: row["state"] for row in json.loads(out)["checks"]}


def test_what_was_published_is_confirmed(published: Path, command: Command) -> None:
    code, out, err = command("verify", published, "--impl", "numpy", "--sample", 8, "--json")
    assert code == 0
    assert states(out) == {
        "origin": "not checked", "files": "confirmed", "results": "confirmed", "test error": "confirmed",
        "labels": "confirmed", "weights": "confirmed",
    }  # fmt: skip
    assert "of 2 trials, in numpy: they predict 8 test images as stored" in " ".join(err.split())
    assert {path.name for path in published.iterdir()} >= {"README.md", "suite.yaml", "report", "trials", NAME}
    assert not list(published.rglob("*.log"))
    assert not list(published.rglob("epoch-*"))


def test_it_is_a_run_directory(published: Path, command: Command) -> None:
    assert command("table", published)[0] == 0
    assert command("compare", published, published)[0] == 0


def test_what_is_made_of_it_leaves_it_as_it_is(
    published: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trial = next((published / "trials").iterdir()).name
    assert command("report", published, "--format", "md,csv")[0] == 0
    assert command("figures", published)[0] == 0
    assert command("export", published, trial, "--to", "torch")[0] == 0
    made = tmp_path / f"from-{published.name}"
    assert {path.name for path in made.iterdir()} == {"report", "figures", "exports"}
    assert (made / "figures" / trial).is_dir()
    assert command("verify", published, "--impl", "numpy", "--sample", 8)[0] == 0


def test_its_metadata_are_an_ro_crate(published: Path) -> None:
    """What RO-Crate 1.1 demands of the descriptor, the root and files (sections "Root Data Entity", "Data Entities")."""
    document = json.loads((published / NAME).read_text())
    graph = {each["@id"]: each for each in document["@graph"]}
    assert len(graph) == len(document["@graph"])
    assert graph[NAME]["about"] == {"@id": "./"}
    assert graph[NAME]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = graph["./"]
    assert root["@type"] == "Dataset"
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    assert graph[root["license"]["@id"]]["name"] == "CC-BY-4.0"
    assert graph["#author"]["name"] == "A Person"

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [value["@id"]] if value.keys() == {"@id"} else [r for v in value.values() for r in references(v)]
        return [r for v in value for r in references(v)] if isinstance(value, list) else []

    assert {r for each in graph.values() for r in references(each)} - graph.keys() == {"https://w3id.org/ro/crate/1.1"}
    reached, waiting = set[str](), ["./"]
    while waiting:
        for part in graph[waiting.pop()].get("hasPart", []):
            reached.add(part["@id"])
            waiting.append(part["@id"])
    files = {each["@id"] for each in graph.values() if each["@type"] == "File"}
    assert files <= reached
    assert files == {
        path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()
    } - {NAME, crate.SEAL}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_one_changed_byte_of_any_file_is_found(published: Path, tmp_path: Path, packed: bool) -> None:
    """Every file, and 200 bytes drawn from all of them; as a ZIP, 200 bytes of that."""
    rng = random.Random(5)
    copy = tmp_path / "crate"
    shutil.copytree(published, copy)
    if packed:
        crate.pack(copy, whole := tmp_path / "crate.zip")
        targets = [whole] * 200
    else:
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        targets = [*files, *rng.choices(files, [path.stat().st_size for path in files], k=200)]
    for path in targets:
        content = path.read_bytes()
        at = rng.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :])
        try:
            with crate.opened(whole if packed else copy) as folder:
                found = [row.state for row in checks.files(whole if packed else copy, folder)]
        except crate.NoCrate:
            found = ["false"]
        assert "false" in found, (path, at)
        path.write_bytes(content)


def test_additions_and_another_seal_are_found(published: Path, tmp_path: Path, command: Command) -> None:
    digest = crate.sha256(published / NAME)
    copy = tmp_path / "crate"
    shutil.copytree(published, copy)
    (copy / "trials" / "more.txt").write_text("more")
    code, out, _ = command("verify", copy, "--impl", "none", "--json")
    assert (code, states(out)["files"]) == (1, "false")
    (copy / "trials" / "more.txt").unlink()
    document = (copy / NAME).read_text().replace("A Person", "B Person")
    (copy / NAME).write_text(document)
    (copy / crate.SEAL).write_text(f"{crate.sha256(copy / NAME)}  {NAME}\n")
    code, out, _ = command("verify", copy, "--impl", "none", "--json")
    assert (code, states(out)["files"]) == (0, "confirmed")  # whoever can write can seal; hence:
    code, out, _ = command("verify", copy, "--impl", "none", "--json", "--sha256", digest)
    assert (code, states(out)["origin"]) == (1, "false")
    code, out, _ = command("verify", published, "--impl", "none", "--json", "--sha256", digest.upper())
    assert (code, states(out)["origin"]) == (0, "confirmed")


def forged(published: Path, copy: Path, forge: Callable[[Path], None]) -> Path:
    """A crate whose trial was changed, sealed anew by someone who knows how."""
    shutil.copytree(published, copy)
    forge(next((copy / "trials").iterdir()))
    document = json.loads((copy / NAME).read_text())
    for each in document["@graph"]:
        if each["@type"] == "File":
            path = copy / each["@id"]
            each.update(contentSize=str(path.stat().st_size), sha256=crate.sha256(path))
    (copy / NAME).write_text(json.dumps(document))
    (copy / crate.SEAL).write_text(f"{crate.sha256(copy / NAME)}  {NAME}\n")
    return copy


def in_json(name: str, key: str, value: Any) -> Callable[[Path], None]:
    def forge(trial: Path) -> None:
        document = json.loads((trial / name).read_text())
        (trial / name).write_text(json.dumps({**document, key: value}))

    return forge


def other_predictions(trial: Path) -> None:
    arrays = load_file(trial / "predictions.safetensors")
    arrays["predicted"] = arrays["labels"].copy()
    save_file(arrays, trial / "predictions.safetensors")


@pytest.mark.parametrize(
    ("forge", "what"), [(in_json("result.json", "test_err_pct", 0.0), "results"), (other_predictions, "test error")]
)
def test_a_forgery_that_is_sealed_anew_contradicts_itself(
    published: Path, tmp_path: Path, command: Command, forge: Callable[[Path], None], what: str
) -> None:
    code, out, _ = command("verify", forged(published, tmp_path / "crate", forge), "--impl", "none", "--json")
    assert code == 1
    assert states(out)["files"] == "confirmed"
    assert "false" in {row["state"] for row in json.loads(out)["checks"] if row["what"] == what}


def test_predictions_that_the_weights_do_not_make_are_false() -> None:
    scores = np.array([[0.9, 0.2, 0.1], [0.5, 0.5001, 0.1], [0.1, 0.2, 0.7]])
    said = Answers(scores.argmax(1), scores)
    assert said.against(np.array([0, 1, 2])) == (0, 0)
    assert said.against(np.array([0, 0, 2])) == (0, 1)
    assert said.against(np.array([1, 1, 1])) == (2, 0)
    two = Answers(np.array([[0, 1], [1, 0], [2, 1]]), scores)
    assert two.against(np.array([[1, 0], [0, 1], [0, 1]])) == (1, 0)


def test_a_zip_and_without_weights(run: Path, tmp_path: Path, command: Command) -> None:
    target = tmp_path / "small.zip"
    code, out, err = command("publish", run, "--to", target, "--no-weights", "--json")
    assert code == 0
    assert json.loads(out)["sha256"] in err
    assert "no licence is stated" in err
    with zipfile.ZipFile(target) as packed:
        names = packed.namelist()
    assert not any("weights" in name or "best" in name for name in names)
    code, out, err = command("verify", target, "--impl", "numpy", "--json")
    assert (code, states(out)["weights"], states(out)["test error"]) == (0, "not checked", "confirmed")
    assert "the crate has no weights of it" in " ".join(err.split())


def test_weights_of_chosen_trials(run: Path, tmp_path: Path, command: Command) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    chosen, *others = sorted(path.name for path in (run / "trials").iterdir())
    assert others
    (run / "trials" / chosen / "figures").mkdir()
    (run / "trials" / chosen / "figures" / "confusion.png").write_bytes(b"a picture")
    code, out, _ = command("publish", run, "--to", tmp_path / "crate", "--weights-of", chosen[:9], "--no-figures")
    assert code == 0
    assert not [*(tmp_path / "crate").glob("trials/*/figures")]
    assert f"with weights of {chosen} alone" in out
    assert {path.parent.name for path in (tmp_path / "crate").glob("trials/*/weights.safetensors")} == {chosen}
    code, _, err = command("publish", run, "--to", tmp_path / "other", "--weights-of", "zzz")
    assert code == 2
    assert 'has no trial "zzz"' in err
    assert not (tmp_path / "other").exists()


def test_folders_of_the_machine_stay_behind(run: Path, tmp_path: Path, command: Command) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    environment = json.loads((own / "environment.json").read_text())
    kept = {"PYTHONPATH": "/home/me/secret/mine:/opt/shared/yours", "XLA_FLAGS": "--xla_dump_to=/home/me/dump --a=1"}
    environment["variables"]["kept"] = kept
    (own / "environment.json").write_text(json.dumps(environment))
    assert command("publish", own, "--to", tmp_path / "crate")[0] == 0
    said = json.loads((tmp_path / "crate" / "environment.json").read_text())["variables"]["kept"]
    assert said == {"PYTHONPATH": ".../mine:.../yours", "XLA_FLAGS": "--xla_dump_to=.../dump --a=1"}
    assert command("verify", tmp_path / "crate", "--impl", "numpy", "--sample", 8)[0] == 0


def test_nothing_is_overwritten_and_nothing_half_is_left(run: Path, tmp_path: Path, command: Command) -> None:
    (taken := tmp_path / "taken").mkdir()
    (taken / "mine.txt").write_text("mine")
    code, _, err = command("publish", run, "--to", taken)
    assert code == 2
    assert "exists already; nothing is overwritten" in err
    (empty := tmp_path / "empty").mkdir()
    assert command("publish", run, "--to", empty)[0] == 0
    code, _, err = command("publish", tmp_path, "--to", tmp_path / "new")
    assert code == 2
    assert "is not a run directory" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "taken"]


def test_what_is_no_crate_is_told(run: Path, published: Path, tmp_path: Path, command: Command) -> None:
    for path, said in (
        (tmp_path / "nowhere", "there is no such file or folder"),
        (run, "It is a run: `capsbench publish` makes a crate of it."),
        (published / "suite.yaml", "it is not a whole ZIP file"),
    ):
        code, _, err = command("verify", path)
        assert code == 2
        assert said in err
    with zipfile.ZipFile(evil := tmp_path / "evil.zip", "w") as packed:
        packed.writestr("../outside.txt", "x")
    code, _, err = command("verify", evil)
    assert code == 2
    assert "outside its own folder" in err
    shutil.copytree(published, copy := tmp_path / "copy")
    next(copy.rglob("predictions.safetensors")).unlink()
    code, _, err = command("verify", copy, "--impl", "none", "--json")
    assert code == 2
    assert "lacks 1 of its files: trials/" in err
