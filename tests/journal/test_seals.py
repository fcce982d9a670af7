"""Whatever is wrong with what a run directory holds is told by file and line, and costs no more than what is wrong."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands.cli import main
from harness.errors import Noted
from harness.events import EpochEvent, WarningEvent
from harness.journal.documents import LostLines
from harness.journal.journal import Journal
from harness.journal.results import finished_trials, summarise
from harness.journal.seals import digest, sealed_document, verdict
from tests.helpers.event_helpers import event
from tests.helpers.run_helpers import write_suite

RESULTS = Path(__file__).parents[2] / "results" / "mnist-1-epoch"  # of version 0.1, without checksums
TOLD = [
    {"kind": "attempt"},
    {"kind": "parity", "ok": True, "max_rel_err": 1e-7, "worst": "L2 x"},
    {"kind": "ready"},
    *({"kind": "epoch", "epoch": number} for number in (1, 2, 3)),
]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "run").open() as journal:
        for each in TOLD:
            journal.append("t1", event(each).of("t1", 1))
        yield journal


def path_of(journal: Journal) -> Path:
    return journal.trial_dir("t1") / "events.jsonl"


def changed(journal: Journal, change: Callable[[list[bytes]], list[bytes]]) -> tuple[list[Any], list[str]]:
    """The events after `change` to the journal's lines, and what was told."""
    path = path_of(journal)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        events = Journal(journal.run_dir).events("t1")
    return events, [str(each.message) for each in caught if issubclass(each.category, Noted)]


def epochs(events: list[Any]) -> list[int]:
    return [each.epoch for each in events if isinstance(each, EpochEvent)]


def test_a_line_carries_its_version_number_and_checksum(journal: Journal) -> None:
    lines = path_of(journal).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        document = json.loads(line)
        assert list(document)[-3:] == ["version", "line", "check"]
        assert (document["version"], document["line"]) == (1, number)
        assert document["check"] == digest(line[: line.index(b', "check"')])
    assert "line" not in journal.events("t1")[0].to_json()


def test_every_single_byte_counts(journal: Journal) -> None:
    """Any byte that becomes another one costs its line, and no other."""
    whole = path_of(journal).read_bytes()
    begin = len(b"".join(whole.splitlines(keepends=True)[:4]))
    end = whole.index(b"\n", begin)
    for place in range(begin, end, 3):
        for byte in (whole[place] ^ 1, 0, ord("7")):
            if byte == whole[place] or byte == ord("\n"):
                continue
            damaged = whole[:place] + bytes([byte]) + whole[place + 1 :]
            events, told = changed(journal, lambda _, damaged=damaged: [damaged])
            assert epochs(events) == [1, 3], damaged[begin:end]
            assert len(told) == 1
            assert "events.jsonl, line 5 is damaged" in told[0]


@pytest.mark.parametrize(
    ("change", "left", "said"),
    [
        (lambda ls: [*ls[:4], ls[4].replace(b'"epoch_s": 1.0', b'"epoch_s": 0.1'), *ls[5:]], [1, 3],
         "line 5 is damaged: it was changed"),
        (lambda ls: [*ls[:4], ls[4][:50] + b"\n", *ls[5:]], [1, 3], "line 5 is damaged: it has no checksum"),
        (lambda ls: [*ls[:4], ls[4][:50], *ls[5:]], [1], "line 5 is damaged"),
        (lambda ls: [*ls[:4], *ls[5:]], [1, 3], "before line 5, lines are missing"),
        (lambda ls: [*ls[:4], b"<<<<<<< HEAD\n", *ls[4:]], [1, 2, 3], "line 5 is damaged: it has no checksum"),
        (lambda ls: [*ls[:5], ls[4], *ls[5:]], [1, 2, 3], "line 6 is damaged: it is a second line 5"),
        (lambda ls: [*ls[:3], ls[4], ls[3], ls[5]], [2, 3], "before line 4, lines are missing; line 5 is damaged"),
        (lambda ls: [*ls[:4], bytes(100) + b"\n", *ls[5:]], [1, 3], "line 5 is damaged"),
        (lambda ls: [*ls, b'{"kind": "epoch", "epoch": 4}\n'], [1, 2, 3], "line 7 is damaged: it has no checksum"),
        (lambda ls: [*ls, b"[" * 100_000 + b"\n"], [1, 2, 3], "line 7 is damaged"),
        (lambda ls: ls[3:], [1, 2, 3], "before line 1, lines are missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_costs_no_more(
    journal: Journal, change: Callable[[list[bytes]], list[bytes]], left: list[int], said: str
) -> None:
    events, told = changed(journal, change)
    assert epochs(events) == left
    assert len(told) == 1
    assert told[0].startswith(str(path_of(journal)))
    assert said in told[0]
    assert any(isinstance(each, LostLines) for each in events)


def test_a_line_of_another_trial_is_foreign(journal: Journal) -> None:
    journal.append("t2", event({"kind": "epoch", "epoch": 9}).of("t2", 1))
    foreign = (journal.trial_dir("t2") / "events.jsonl").read_bytes().replace(b'"line": 1', b'"line": 7')
    begun = foreign[: foreign.index(b', "check"')]
    events, told = changed(journal, lambda ls: [*ls, begun + f', "check": "{digest(begun)}"}}\n'.encode()])
    assert epochs(events) == [1, 2, 3]
    assert "line 7 is damaged: it is of trial 't2'" in told[0]


def test_line_ends_of_other_systems_are_no_damage(journal: Journal) -> None:
    events, told = changed(journal, lambda ls: [line.replace(b"\n", b"\r\n") for line in ls])
    assert (epochs(events), told) == ([1, 2, 3], [])


def test_damage_without_end_is_told_in_a_line(journal: Journal) -> None:
    events, told = changed(journal, lambda ls: [*ls, *([b"x\n", ls[0]] * 5000)])
    assert epochs(events) == [1, 2, 3]
    assert len(told) == 1
    assert len(told[0]) < 1000
    assert "; and 9999 more." in told[0]


def test_what_follows_is_numbered_on_whatever_stands_before(journal: Journal) -> None:
    path = path_of(journal)
    with path.open("ab") as file:
        file.write(b"<<<<<<< HEAD\n")
    journal.append("t1", event({"kind": "epoch", "epoch": 4}))
    with Journal(journal.run_dir / "other").open() as other:  # a driver that has not written there yet
        shutil.copytree(journal.trial_dir("t1"), other.trial_dir("t1"))
        other.append("t1", event({"kind": "epoch", "epoch": 5}))
        with pytest.warns(Noted, match="line 7 is damaged") as told:
            assert epochs(other.events("t1")) == [1, 2, 3, 4, 5]
    assert len(told) == 1


def test_lines_without_checksums_are_read_and_gone_on_from(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Journal(tmp_path / "run").open() as journal:
            id = journal.trial_ids()[0]
            before = journal.events(id)
            journal.append(id, event({"kind": "warning", "message": "new"}).of(id, 1))
            assert len(journal.events(id)) == len(before) + 1
    last = json.loads((journal.trial_dir(id) / "events.jsonl").read_text().splitlines()[-1])
    assert last["line"] == len(before) + 1


def test_pandas_reads_a_journal_in_one_line(journal: Journal) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_json(path_of(journal), lines=True)
    assert list(frame[frame.kind == "epoch"].epoch) == [1, 2, 3]


def test_a_lost_line_is_a_warning_of_its_trial_and_a_lost_verdict_is_none() -> None:
    trial = Journal(RESULTS).trial(Journal(RESULTS).trial_ids()[0])
    lost = LostLines(message="trials/t/events.jsonl: line 2 is damaged")
    events = [event({"kind": "attempt"}), lost, event({"kind": "ready"}), event({"kind": "epoch", "epoch": 1})]
    good = event({"kind": "parity", "ok": True, "max_rel_err": 1e-7, "worst": "L2 x", "attempt": 2})
    events += [event({"kind": "attempt", "attempt": 2, "resumed_epoch": 1}), good]
    events += [event({"kind": "epoch", "epoch": 2, "attempt": 2})]
    assert isinstance(lost, WarningEvent)
    result = summarise(trial, events)
    assert lost.message in result.warnings
    assert (result.parity_ok, result.timing_withheld) == (None, "parity was not checked")


def test_epochs_are_void_though_the_line_that_said_so_is_lost() -> None:
    trial = Journal(RESULTS).trial(Journal(RESULTS).trial_ids()[0])
    events = [event({"kind": "attempt"}), *(event({"kind": "epoch", "epoch": number}) for number in (1, 2, 3))]
    events += [event({"kind": "epoch", "epoch": 2, "attempt": 2})]
    assert [each["epoch"] for each in summarise(trial, events).epochs] == [1, 2]


# Documents


@pytest.mark.parametrize("document", [{}, {"a": 1.5, "b": {"check": [None, "x"]}}, {"a": "ü\n"}])
def test_a_document_is_intact_until_something_in_it_changes(document: dict[str, Any]) -> None:
    written = sealed_document(document)
    assert {key: value for key, value in json.loads(written).items() if key != "check"} == document
    assert verdict(written.encode()) == "intact"
    assert verdict(json.dumps(json.loads(written)).encode()) == "intact"  # by another program
    assert verdict(json.dumps(json.loads(written) | {"more": 1}).encode()) == "changed"
    assert verdict(written.replace("1.5", "1.6").encode()) == ("changed" if "1.5" in written else "intact")
    assert verdict(written[:-8].encode()) == "changed"
    assert verdict(json.dumps(document).encode()) == "without"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    suite = write_suite(folder, grid={"impl": ["numpy"], "seed": [0, 1]}, parity={"gate": False})
    assert bench("run", suite, "--executor", "inline", "--no-mlflow", "--no-figures", "--out", folder / "runs") == 0
    return folder


def bench(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "small"


def again(run_dir: Path, *more: object) -> int:
    out = run_dir.parent
    return bench(
        "run", out.parent / "small.yaml", "--executor", "inline", "--no-mlflow", "--no-figures", "--out", out, *more
    )


READERS: list[Callable[[Path], list[object]]] = [
    lambda run: ["report", run],
    lambda run: ["table", run],
    lambda run: ["compare", run, run],
    lambda run: ["plan", run.parent.parent / "small.yaml", "--out", run.parent],
]


@pytest.mark.parametrize("reader", READERS, ids=["report", "table", "compare", "plan"])
def test_every_reader_tells_an_edited_number_and_goes_on(
    run_dir: Path, reader: Callable[[Path], list[object]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("events.jsonl", "result.json"):
        path = min(run_dir.glob(f"trials/*/{name}"))
        text = path.read_text()
        path.write_text(text.replace('"train_err_pct": ', '"train_err_pct": 1', 1))
        assert path.read_text() != text
    plan = run_dir / "plan.json"
    plan.write_text(plan.read_text().replace('"epochs": 2', '"epochs": 3', 1))
    assert bench(*reader(run_dir)) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("events.jsonl, line 3 is damaged: it was changed or damaged after") == 1
    assert told.count("result.json was changed or damaged after it was written") == 1
    assert told.count("plan.json was changed or damaged after it was written") == 1


def test_an_edited_result_is_written_anew_by_the_next_run(run_dir: Path) -> None:
    path, gone = sorted(run_dir.glob("trials/*/result.json"))
    whole = path.read_bytes(), gone.read_bytes()
    path.write_text(path.read_text().replace('"test_err_pct": ', '"test_err_pct": 1', 1))
    gone.unlink()
    assert len(list(finished_trials(run_dir.parent))) == 0
    assert again(run_dir) == 0
    assert (path.read_bytes(), gone.read_bytes()) == whole


@pytest.mark.parametrize("lines", [0, 3])
def test_a_finished_trial_whose_journal_is_gone_is_not_trained_again_unasked(
    run_dir: Path, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = min(run_dir.glob("trials/*/events.jsonl"))
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:lines])
    path.write_bytes(kept) if lines else path.unlink()
    assert again(run_dir, "--json") == 1
    said = capsys.readouterr()
    trial = next(each for each in json.loads(said.out)["trials"] if each["id"] == path.parent.name)
    assert (trial["status"], trial["error"]) == ("failed", "Unavailable")
    assert "result.json says that the trial has finished (epoch 2), but its events.jsonl" in trial["cause"]
    assert "restore events.jsonl from a copy; or, to train it again, delete" in trial["hint"]
    assert (path.read_bytes() if lines else b"") == kept
    path.with_name("result.json").unlink()
    assert again(run_dir) == 0
    assert path.with_name("result.json").exists()


def test_if_only_the_end_is_lost_no_epoch_is_trained_again(run_dir: Path) -> None:
    path = min(run_dir.glob("trials/*/events.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b'"test_images": 16', b'"test_images": 17'))
    assert again(run_dir) == 0
    events = Journal(run_dir).events(path.parent.name)
    assert epochs(events) == [1, 2]
    assert events[-1].kind == "result"


def test_a_damaged_epoch_costs_a_trial_no_other_one(run_dir: Path) -> None:
    path = min(run_dir.glob("trials/*/events.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"epoch": 1,', b'"epoch": 8,'))
    journal = Journal(run_dir)
    with pytest.warns(Noted, match="line 3 is damaged"):
        result = summarise(journal.trial(path.parent.name), journal.events(path.parent.name))
    assert result.status == "finished"
    assert [each["epoch"] for each in result.epochs] == [2]
    assert any("line 3 is damaged" in each for each in result.warnings)
