"""Whatever a file holds, reading it succeeds or says what is wrong: never another exception, nor time or memory without end."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from harness.analysis.rows import all_rows
from harness.analysis.seeds import over_seeds
from harness.data import idx, matfile, own
from harness.data.files import CorruptFile
from harness.disk import finite
from harness.errors import UserError
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.kept import available
from harness.journal.results import finished_trials, named_files, summarise
from harness.journal.resume import resume_point
from harness.journal.seals import sealed_document, sealed_line
from harness.spec.trial import DataConfig, Trial
from harness.suite.keys import known
from harness.suite.suite import load_suite
from harness.weights.start import read_start
from harness.weights.whole import Damaged, read_checkpoint, read_header
from tests.helpers.fuzzing import JSON, changed, replaced
from tests.helpers.run_helpers import SMALL

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results" / "mnist-1-epoch"
TRIAL = "3e5d2b37bbe7"
HALF = settings(max_examples=max(10, (settings.default or settings()).max_examples // 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def refused_or_read(read: Callable[[], object]) -> object:
    """What `read` returns, or the sentence with which it refuses."""
    try:
        return read()
    except (UserError, CorruptFile) as error:
        return str(error)


# Suites

SUITES = [path.read_bytes() for path in sorted((ROOT / "suites").glob("*.yaml"))]
KEYS = st.sampled_from(sorted(known().all)) | st.text(max_size=5)
VALUES = JSON | st.sampled_from(
    ["torch", "folder", "auto", "../..", "/", "9" * 400, "1e999", "~", "2x2", "0x10", "\ud800", "\0"]
)


def planned(path: Path) -> int:
    suite = load_suite(path)
    return len(suite.trials(0, lambda _: {}))


@given(changed(SUITES))
@example(b"a: &a [x, x]\n" + b"".join(b"b%d: &b%d [*a, *a]\n" % (n, n) for n in range(9)))
@example(b"? [" * 5_000)
@example(b"&a [*a]")
@example(b"a: !!python/object/apply:os.system [id]")
def test_suites_as_text(folder: Path, content: bytes) -> None:
    path = folder / "suite.yaml"
    path.write_bytes(content)
    refused_or_read(lambda: planned(path))


@given(
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.dictionaries(KEYS, st.lists(VALUES, max_size=3), max_size=2),
    replaced(SMALL),
)
def test_suites_by_their_keys(folder: Path, own: dict[str, Any], grid: dict[str, Any], small: Any) -> None:
    document = small if not isinstance(small, dict) else {**small}
    if isinstance(document, dict):
        for key, value in own.items():
            section, _, name = key.partition(".")
            inner = document.get(section)
            document[section] = {**inner, name: value} if name and isinstance(inner, dict) else value
        if isinstance(document.get("grid"), dict):
            document["grid"] = {**document["grid"], **grid}
    path = folder / "keys.yaml"
    try:
        path.write_text(yaml.safe_dump(document, allow_unicode=False), encoding="utf-8")
    except (yaml.YAMLError, UnicodeError):
        return
    refused_or_read(lambda: planned(path))


@given(st.lists(st.tuples(KEYS, st.text(max_size=12)).map("=".join), max_size=3))
def test_settings_of_the_command_line(overrides: list[str]) -> None:
    refused_or_read(lambda: load_suite(ROOT / "suites" / "quickstart.yaml", overrides))


# Run directories


@cache
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RUN / "trials" / TRIAL / "events.jsonl").read_text().splitlines()]


def sealed() -> bytes:
    return "".join(sealed_line(line, number) for number, line in enumerate(lines(), start=1)).encode()


def copy(folder: Path) -> Path:
    """A run of one trial, made anew."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run" / "trials").mkdir(parents=True)
    shutil.copytree(RUN / "trials" / TRIAL, folder / "run" / "trials" / TRIAL, ignore=shutil.ignore_patterns("figures"))
    plan = json.loads((RUN / "plan.json").read_text())
    plan["trials"] = [each for each in plan["trials"] if each["id"] == TRIAL]
    (folder / "run" / "plan.json").write_text(sealed_document(plan))
    return folder / "run"


def read_all(run: Path) -> None:
    """As `table`, `report`, `plan` and a run that goes on would."""
    require_run(run)
    journal = Journal(run)
    for id in journal.trial_ids():
        trial, events = journal.trial(id), journal.events(id)
        json.dumps(summarise(trial, events).to_json(), allow_nan=False)
        named_files(events)
        available(journal, trial)
        resume_point(journal, trial)
        journal.contradiction(id)
        journal.next_attempt(id)
    all_rows(journal)
    over_seeds(run)
    list(finished_trials(run.parent))


@given(changed([sealed(), b"".join(json.dumps(line).encode() + b"\n" for line in lines())]))
def test_journals(folder: Path, content: bytes) -> None:
    run = copy(folder)
    (run / "trials" / TRIAL / "events.jsonl").write_bytes(content)
    refused_or_read(lambda: read_all(run))


@given(st.integers(0, len(lines()) - 1), st.data())
def test_events_with_other_values(folder: Path, number: int, data: st.DataObject) -> None:
    """Checksums included: as another program would write them."""
    document = data.draw(replaced(lines()[number]))
    run = copy(folder)
    told = [*lines()[:number], document, *lines()[number + 1 :]]
    written = [
        sealed_line(finite(each), at) if isinstance(each, dict) and "kind" in each else json.dumps(each) + "\n"
        for at, each in enumerate(told, start=1)
    ]
    (run / "trials" / TRIAL / "events.jsonl").write_text("".join(written), encoding="utf-8")
    refused_or_read(lambda: read_all(run))


@given(st.sampled_from(["plan.json", f"trials/{TRIAL}/trial.json", f"trials/{TRIAL}/result.json"]), st.data())
def test_documents_with_other_values(folder: Path, name: str, data: st.DataObject) -> None:
    run = copy(folder)
    document = data.draw(replaced(json.loads((run / name).read_text())))
    (run / name).write_text(json.dumps(document))
    refused_or_read(lambda: read_all(run))


@HALF
@given(st.sampled_from(["plan.json", f"trials/{TRIAL}/trial.json", f"trials/{TRIAL}/result.json"]), st.data())
def test_documents_with_other_bytes(folder: Path, name: str, data: st.DataObject) -> None:
    run = copy(folder)
    (run / name).write_bytes(data.draw(changed([(run / name).read_bytes()])))
    refused_or_read(lambda: read_all(run))


# Weights


def tensors() -> list[bytes]:
    numbers = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float16)}
    return [save(numbers), save(numbers, {"capsbench": '{"step": 1, "epoch": 1, "best": null}'})]


def a_trial() -> Trial:
    return Journal(RUN).trial(TRIAL)


@given(changed(tensors()))
@example((2**62).to_bytes(8, "little") + b"{}")
@example((90_000_000).to_bytes(8, "little") + b"{" * 100)
def test_safetensors(folder: Path, content: bytes) -> None:
    path = folder / "a.safetensors"
    path.write_bytes(content)
    refused_or_read(lambda: read_start(path))
    with pytest.raises(Damaged):  # of another model, at best
        read_checkpoint(path, a_trial(), None, 1)


@given(replaced({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"capsbench": "{}"}}))
def test_safetensors_headers(folder: Path, header: Any) -> None:
    path = folder / "b.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    refused_or_read(lambda: read_start(path))
    with suppress(ValueError):
        read_header(path)


# Data


@cache
def mats() -> list[bytes]:
    from scipy.io import savemat

    found: list[bytes] = []
    for compressed in (False, True):
        file = io.BytesIO()
        savemat(file, {"X": np.zeros((4, 4, 1, 2), np.uint8), "y": np.ones((2, 1))}, do_compression=compressed)
        found.append(file.getvalue())
    return found


@given(changed(mats()))
def test_matlab_files(content: bytes) -> None:
    found = refused_or_read(lambda: matfile.variables(content, "a.mat", "X", "y"))
    if isinstance(found, dict):
        refused_or_read(lambda: matfile.checked(found["X"], found["y"], (4, 4, 1), 10, "a.mat"))


def idx_bytes(*shape: int) -> bytes:
    head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return head + bytes(int(np.prod(shape)))


@given(changed([idx_bytes(6, 3, 3), idx_bytes(6)]), st.booleans())
@example(bytes([0, 0, 8, 3]) + b"\xff" * 12, False)
@example(bytes([0, 0, 14, 255]) + bytes(1020), True)
@example(bytes([0, 0, 14, 40]) + bytes(160), True)
def test_idx_files(content: bytes, any_type: bool) -> None:
    refused_or_read(lambda: idx.parse(content, "a-idx3", any_type))


@given(changed([idx_bytes(6, 3, 3)]), changed([idx_bytes(6)[:8] + bytes([0, 0, 0, 1, 1, 1])]))
def test_own_idx_files(folder: Path, images: bytes, labels: bytes) -> None:
    place = folder / "idx"
    place.mkdir(exist_ok=True)
    (place / "train-images-idx3-ubyte").write_bytes(images)
    (place / "train-labels-idx1-ubyte").write_bytes(labels)
    refused_or_read(lambda: own.resolve(DataConfig(name="idx", path=str(place)), folder))


@cache
def archives() -> list[bytes]:
    found: list[bytes] = []
    for save_as in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save_as(file, images=np.arange(96, dtype=np.uint8).reshape(6, 4, 4), labels=np.array([0, 0, 0, 1, 1, 1]))
        found.append(file.getvalue())
    return found


@given(changed(archives()))
def test_npz_files(folder: Path, content: bytes) -> None:
    path = folder / "a.npz"
    path.write_bytes(content)
    refused_or_read(lambda: own.resolve(DataConfig(name="npz", path=str(path)), folder))


@HALF
@given(
    st.dictionaries(st.sampled_from(["images", "labels", "x_test", "y_test", "classes", "../a", "/etc/b"]), st.tuples(
        st.sampled_from(["u1", "f4", "i8", "U2", "S2", "c8", "M8[s]", "?", "O"]), st.lists(st.integers(0, 4), max_size=4),
    ), max_size=4),
)  # fmt: skip
def test_npz_arrays(folder: Path, arrays: dict[str, tuple[str, list[int]]]) -> None:
    path = folder / "b.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, (dtype, shape) in arrays.items():
            file = io.BytesIO()
            np.save(file, np.zeros(shape, dtype))
            archive.writestr(f"{name}.npy", file.getvalue())
    refused_or_read(lambda: own.resolve(DataConfig(name="npz", path=str(path)), folder))
    assert not (folder / "a").exists()


TABLE = "".join(f"{row % 2},{','.join(str((row * at) % 256) for at in range(16))}\n" for row in range(8)).encode()


@given(changed([TABLE, b"label," + b",".join(b"pixel%d" % at for at in range(16)) + b"\n" + TABLE]))
def test_csv_files(folder: Path, content: bytes) -> None:
    path = folder / "a.csv"
    path.write_bytes(content)
    refused_or_read(lambda: own.resolve(DataConfig(name="csv", path=str(path)), folder))


BOMBS = """
import gzip, io, resource, sys, zipfile
from pathlib import Path
import numpy as np
from harness.data import own
from harness.errors import UserError
from harness.spec.trial import DataConfig
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
folder = Path(sys.argv[1])

head = io.BytesIO()
np.lib.format.write_array_header_2_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 28, 28)})
with zipfile.ZipFile(folder / "claim.npz", "w") as archive:
    archive.writestr("images.npy", head.getvalue())
    archive.writestr("labels.npy", head.getvalue())

(folder / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
images = bytes([0, 0, 8, 3]) + b"".join(count.to_bytes(4, "big") for count in (1 << 19, 64, 64))
zeros = gzip.compress(bytes(1 << 24))  # a file of many members unpacks to all of them in a row
(folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images) + 128 * zeros)
for name, path in (("npz", folder / "claim.npz"), ("idx", folder)):
    try:
        own.resolve(DataConfig(name=name, path=str(path)), folder)
        print("read")
    except UserError as error:
        print("refused:", error)
"""


def test_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    """Small files that claim terabytes, or unpack to 2 GiB, in a process that may have 1."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT
    )
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert len(said) == 2
    assert all(line.startswith("refused: ") for line in said), said
