"""Events: one model per kind, read and written in one form; what cannot be read is reported in words."""

from __future__ import annotations

import ast
import gc
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import Noted, Unread, UserError
from harness.events import TRIAL, AttemptEvent, FailedEvent, Malformed, UnknownEvent, WarningEvent
from harness.events.processes import EXAMINATION, GAUGE, PARITY, SPEED, ExaminedEvent, RefusedEvent, TraceEvent
from harness.journal.journal import Journal
from harness.supervisor.child import Child
from tests.helpers import event_table
from tests.helpers.event_helpers import event

ROOT = Path(__file__).parents[1]
RUN = ROOT / "results" / "mnist-1-epoch"  # of version 0.1
KINDS = {kind for each in (TRIAL, PARITY, SPEED, GAUGE, EXAMINATION) for kind in each.models}


def lines_of(run: Path) -> list[str]:
    return [line for path in sorted(run.glob("trials/*/events.jsonl")) for line in path.read_text().splitlines()]


# One form


def test_a_journal_of_version_0_1_is_read_and_would_be_written_as_it_is() -> None:
    lines = lines_of(RUN)
    assert len(lines) == 15
    for line in lines:
        read = TRIAL.read(line)
        assert type(read) is TRIAL.models[json.loads(line)["kind"]]
        assert read.to_json() == json.loads(line)


def test_what_is_not_given_is_not_written_and_what_is_given_as_none_is() -> None:
    first = event({"kind": "epoch", "epoch": 1, "val_loss": None})
    written = first.to_json()
    assert written["val_loss"] is None
    assert not {"joules", "weights", "files", "version", "time", "trial", "attempt"} & set(written)
    assert RefusedEvent(message="no").to_json() == {"kind": "refused", "message": "no"}
    assert TraceEvent().to_json() == {"kind": "trace"}


def test_an_event_is_marked_and_keeps_the_time_it_has() -> None:
    told = WarningEvent(message="hot", time=5.0)
    assert told.stamped(9.0).of("t1", 2).to_json() == {
        "kind": "warning",
        "message": "hot",
        "time": 5.0,
        "trial": "t1",
        "attempt": 2,
    }
    assert WarningEvent(message="hot").stamped(9.0).time == 9.0


def test_fields_that_no_model_has_are_passed_on() -> None:
    read = TRIAL.read(
        json.dumps(event({"kind": "epoch", "epoch": 1}).to_json() | {"train_margin": 0.5, "new": [1, None]})
    )
    assert (read.to_json()["train_margin"], read.to_json()["new"]) == (0.5, [1, None])
    assert ExaminedEvent(**{"layers": [1], "model": {}}).found() == {"layers": [1], "model": {}}


def test_files_are_named_by_field() -> None:
    named = event({"kind": "epoch", "epoch": 1, "checkpoint": "a", "weights": "b"})
    assert named.names() == {"checkpoint": "a", "weights": "b"}
    assert event({"kind": "attempt"}).names() == {}


def test_numbers_that_are_not_finite_pass_through_the_pipe() -> None:
    read: Any = TRIAL.read(
        json.dumps({"kind": "parity", "ok": False, "max_rel_err": float("inf"), "worst": "L2 x", "tensors": {}})
    )
    assert read.max_rel_err == float("inf")


def test_text_that_is_no_utf_8_can_be_told() -> None:
    """As of a file's name in an error."""
    told = FailedEvent(cause="no file \udce9", error="OSError", hint=None)
    assert TRIAL.read(json.dumps(told.to_json())) == told
    assert told.cause == "no file \\udce9"


def test_an_event_is_made_whole_or_not_at_all() -> None:
    with pytest.raises(ValidationError, match="hint"):
        FailedEvent(cause="why", error="E")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        WarningEvent(message="a").message = "b"  # type: ignore[misc]


# What cannot be read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epoch": None}, '"epoch" is None'),
        ({"epoch": "1"}, "\"epoch\" is '1': Input should be a valid integer"),
        ({"epoch_s": True}, '"epoch_s" is True: Input should be a valid number'),
        ({"checkpoint": 3}, '"checkpoint" is 3: Input should be a valid string'),
        ({"version": "2"}, "\"version\" is '2'"),
        ({"version": 0}, '"version" is 0'),
        ({"files": {"a": 1}}, '"files.a" is 1'),
        ({"kind": None}, 'not a JSON object with a "kind"'),
    ],
)
def test_a_field_of_another_type_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed) as raised:
        TRIAL.read(json.dumps(event({"kind": "epoch", "epoch": 1}).to_json() | change))
    assert said in str(raised.value)


@pytest.mark.parametrize("field", sorted(event({"kind": "epoch", "epoch": 1}).to_json().keys() - {"kind"}))
def test_a_missing_field_is_named(field: str) -> None:
    document = event({"kind": "epoch", "epoch": 1}).to_json()
    del document[field]
    with pytest.raises(Malformed, match=f'a "epoch" event without "{field}"'):
        TRIAL.read(json.dumps(document))


@pytest.mark.parametrize("line", ["[]", "3", "null", "{}", '"epoch"'])
def test_other_json_is_no_event(line: str) -> None:
    with pytest.raises(Malformed, match='not a JSON object with a "kind"'):
        TRIAL.read(line)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "moved", "version": 3}, 'kind "moved", version 3'),
        ({"kind": "moved"}, 'kind "moved", version 1'),
        ({"version": 2}, 'kind "epoch", version 2'),
        ({"version": 2, "epoch": "one"}, 'kind "epoch", version 2'),  # what it means there is not for us to say
    ],
)
def test_what_only_a_newer_capsbench_can_read_is_no_error_of_the_file(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownEvent) as raised:
        TRIAL.read(json.dumps(event({"kind": "epoch", "epoch": 1}).to_json() | change))
    assert said in str(raised.value)
    assert "newer" in str(raised.value)


def copied(folder: Path, insert: dict[int, str]) -> tuple[Path, Path]:
    """A copy of the run and the journal of its first trial, into which lines are inserted before those numbered."""
    run = folder / "copy"
    shutil.copytree(RUN, run)
    path = sorted(run.glob("trials/*/events.jsonl"))[0]
    lines = path.read_text().splitlines()
    for number, line in sorted(insert.items(), reverse=True):
        lines.insert(number - 1, line)
    path.write_text("\n".join(lines) + "\n")
    return run, path


NEWER = {
    2: '{"kind": "moved", "version": 1, "to": "another node"}',
    4: '{"kind": "epoch", "version": 7, "epoch": "IV"}',
}


def test_events_of_a_newer_capsbench_are_left_out_and_named(tmp_path: Path) -> None:
    run, path = copied(tmp_path, NEWER)
    with pytest.warns(Unread) as told:
        found = Journal(run).events(path.parent.name)
    assert [each.to_json() for each in found] == [json.loads(line) for line in lines_of(RUN)[:5]]
    assert [str(each.message).split(": a newer")[0] for each in told] == [
        f'{run}: an event of kind "moved", version 1, is not known to this capsbench',
        f'{run}: an event of kind "epoch", version 7, is not known to this capsbench',
    ]


@pytest.mark.parametrize("command", [["compare", "{run}", "{old}"], ["report", "{run}", "--out", "{out}"]])
def test_commands_say_so_once_and_go_on(tmp_path: Path, command: list[str]) -> None:
    run, _ = copied(tmp_path, NEWER)
    filled = [each.format(run=run, old=RUN, out=tmp_path / "out") for each in command]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *filled, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert sum(line.startswith("capsbench: ") for line in done.stderr.splitlines()) == 2
    for kind, version in (("moved", 1), ("epoch", 7)):
        assert done.stderr.count(f'{run}: an event of kind "{kind}", version {version}, is not known') == 1
    assert "Traceback" not in done.stderr
    assert "UserWarning" not in done.stderr


def test_a_malformed_line_is_named_by_file_and_line_and_all_others_count(tmp_path: Path) -> None:
    run, path = copied(tmp_path, {3: '{"kind": "warning", "message": 5}'})
    done = subprocess.run(
        [sys.executable, "-m", "harness", "report", run, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    said = f'{path}, line 3 is damaged: a "warning" event whose "message" is 5'
    assert done.stderr.count(said) == 1
    assert "Traceback" not in done.stderr


def test_the_collector_is_put_back_whatever_was_read(tmp_path: Path) -> None:
    run, path = copied(tmp_path, {3: "{"})
    assert gc.isenabled()
    with pytest.warns(Noted, match="line 3"):
        Journal(run).events(path.parent.name)
    assert gc.isenabled()
    gc.disable()
    try:
        Journal(RUN).events(path.parent.name)
        assert not gc.isenabled()
    finally:
        gc.enable()


def said_by(text: str) -> Iterator[Any]:
    """What a supervisor hears of a worker that writes `text` to its pipe."""
    reading, writing = os.pipe()
    code = "import os, sys; os.write(int(sys.argv[1]), sys.argv[2].encode())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(writing), text],
        stdin=subprocess.PIPE,
        pass_fds=(writing,),
        start_new_session=True,
    )
    os.close(writing)
    child = Child(process, reading, TRIAL, "harness.worker.trial")
    try:
        yield from filter(None, child.events)
    finally:
        child.end()
        os.close(reading)


def test_a_worker_is_heard_by_the_same_models() -> None:
    warned = WarningEvent(message="hot")
    with pytest.warns(Unread, match=r'harness\.worker\.trial: an event of kind "moved", version 2'):
        heard = list(said_by('{"kind": "moved", "version": 2}\n' + json.dumps(warned.to_json()) + '\n{"kind": "torn'))
    assert heard == [warned]
    with pytest.raises(
        UserError, match=r'harness\.worker\.trial said what is no event: a "warning" event without "message"'
    ):
        list(said_by('{"kind": "warning"}\n'))


def test_what_is_known_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in RUN.glob("trials/*"):
            first, *_ = Journal(RUN).events(path.name)
            assert isinstance(first, AttemptEvent)


# One definition


def offences(source: str) -> list[int]:
    """Lines where a dictionary is made an event, or an event is read as a dictionary."""
    found: list[int] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                is_one = any(_is(key, {"kind"}) and _is(value, KINDS) for key, value in pairs)
            case ast.Compare(left=left, comparators=others):
                is_one = any(_reads_kind(each) for each in (left, *others))
            case ast.Match(subject=subject):
                is_one = _reads_kind(subject)
            case _:
                continue
        found += [node.lineno] * is_one
    return found


def _is(node: ast.expr | None, texts: set[str]) -> bool:
    return isinstance(node, ast.Constant) and node.value in texts


def _reads_kind(node: ast.expr) -> bool:
    return isinstance(node, ast.Subscript) and _is(node.slice, {"kind"})


@pytest.mark.parametrize(
    "source",
    ['x = {"kind": "epoch", **y}', 'x = event["kind"] == "epoch"', 'match event["kind"]:\n    case _:\n        pass'],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert offences(source) == [1]


def test_no_event_is_made_or_read_as_a_dictionary() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "harness").rglob("*.py")
        for line in offences(path.read_text())
    }
    assert not found


def test_the_definitions_stand_on_the_ground() -> None:
    for path in (ROOT / "harness" / "events").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
                assert (node.module or "").startswith(("harness.events", "harness.errors"))


def test_every_kind_and_every_field_says_what_it_is() -> None:
    classes = event_table.classes()
    modelled = [node for node in classes.values() if event_table.kind_of(node)]
    assert {event_table.kind_of(node) for node in modelled} == KINDS
    for node in modelled:
        assert ast.get_docstring(node), node.name
    for name in classes:
        for field, _, _, meaning in event_table.fields(name):
            assert meaning.endswith("."), f"{name}.{field}"


def test_the_page_of_the_run_directory_is_that_of_the_models() -> None:
    """If not: `python -m tests.helpers.event_table`, and read what has changed."""
    assert event_table.PAGE.read_text() == event_table.page()
