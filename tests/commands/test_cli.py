"""Requests that cannot be met: exit code 2, the reason, the nearest valid choice, and nothing started."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import __version__
from harness.commands.cli import main
from tests.helpers.run_helpers import SMALL, capsbench, write_suite

BAD_SUITES = {
    # name: (changes to a good suite, what the message must say)
    "unknown key": ({"train": {"epoch": 3}}, [r"train\.epoch: unknown key", r'did you mean "epochs"']),
    "unknown section": ({"trian": {"epochs": 3}}, ["trian", r'did you mean "train"']),
    "misspelt implementation": ({"grid": {"impl": ["torhc"]}}, ["impl", '"torhc"', r'did you mean "torch"']),
    "framework's own name": ({"grid": {"impl": ["tensorflow"]}}, ['"tensorflow"', r'did you mean "tf"']),
    "class without package": (
        {"grid": {"impl": ["absent_package:Net"]}},
        ['no package "absent_package"', "PYTHONPATH"],
    ),
    "wrong type": ({"train": {"epochs": "many"}}, [r"train\.epochs", '"many"', "whole number of at least 1"]),
    "not a whole number": ({"train": {"batch": 1.5}}, [r"train\.batch", r"1\.5", "whole number"]),
    "empty grid": ({"grid": {"impl": []}}, ["impl: found an empty list", "at least one value"]),
    "routing 0": ({"model": {"routing": 0}}, [r"model\.routing", "found 0", "from 1 to 10"]),
    "batch larger than the data": ({"train": {"batch": 65}}, [r"train\.batch", "found 65", "64 training images"]),
    "more data than there are": ({"data": {"train": 1800}}, [r"data\.train", "1,800", "1,437"]),
    "unknown data set": ({"data": {"name": "minst"}}, [r"data\.name", '"minst"', r'did you mean "mnist"']),
    "more GPUs than there are": ({"resources": {"gpus": 3}, "grid": {"impl": ["torch"]}}, ["gpus", "found 3", "auto"]),
    "more CPUs than there are": ({"resources": {"cpus": 4096}}, ["4096 CPUs", r"-s resources\.cpus=\d+"]),
    "image too small": ({"model": {"kernel": 15}}, [r"model\.kernel", "28x28", "29x29"]),
}
BAD_FILES = {
    # name: (content of the file, what the message must say)
    "empty": (b"", ["empty", r"grid\.impl"]),
    "not UTF-8": (b"name: x\nquestion: \xff\n", [r":2", "not UTF-8", "0xff"]),
    "not a mapping": (b"- torch\n- tf\n", ["a list", "expected a mapping"]),
    "Python tag": (
        b"name: !!python/object/apply:os.system ['touch pwned']\n",
        ["!!python/object/apply:os.system", "refused"],
    ),
    "not YAML": (b"name: [x\ndata: {\n", ["not valid YAML"]),
    "tab": (b"name: x\ndata:\n\tname: digits\n", [r":3", "tab; indent with spaces"]),
    "key twice": (b"name: x\nname: y\n", [r":2", "twice"]),
}
BAD_ARGUMENTS = {
    # arguments after a good suite: what the message must say
    "-s trian.epochs=3": [r"trian\.epochs", r'did you mean "train\.epochs"'],
    "-s model.routing=0,3": [r"model\.routing", "found 0", "from 1 to 10"],
    "-s train.epochs": ["key=value"],
    "-s grid.impl=": [r"grid\.impl"],
    "--quik": ['unknown option "--quik"', r'did you mean "--quick"'],
    "--executor rya": ["--executor", '"rya"', r'did you mean "ray"'],
    "--executor inline --ray-address auto": ["inline", "drop"],
    "another.yaml": ["another.yaml"],
}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused, in an empty folder, without and with --json; returns the message."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "data"))

    def refuse(*arguments: object) -> str:
        given = [str(argument) for argument in arguments]
        before = files_of(tmp_path)
        message = refusal(given, capfd)
        assert refusal([*given, "--json"], capfd) == message
        assert files_of(tmp_path) == before
        assert not psutil.Process().children()
        return message

    return refuse


def refusal(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What the command says when it refuses; with --json, after a look at the document."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    stdout, stderr = capfd.readouterr()
    assert end.value.code == 2
    assert stderr.startswith("capsbench: ")
    assert "Traceback" not in stderr
    message = stderr.removeprefix("capsbench: ").removesuffix("\n")
    assert stdout == ("" if "--json" not in arguments else json.dumps({"error": message}, indent=2) + "\n")
    return message


def files_of(folder: Path) -> dict[Path, bytes | None]:
    """Everything in `folder` but downloaded data."""
    paths = [path for path in folder.rglob("*") if folder / "data" not in (path, *path.parents)]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def assert_says(message: str, expected: list[str]) -> None:
    for pattern in expected:
        assert re.search(pattern, message), f"no {pattern!r} in: {message}"


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("name", BAD_SUITES)
def test_bad_suite(name: str, command: str, refused: Callable[..., str], tmp_path: Path) -> None:
    changes, expected = BAD_SUITES[name]
    suite = write_suite(tmp_path, **changes)
    message = refused(command, suite)
    assert_says(message, expected)
    if "CPUs" not in message:  # that depends on the machine, not on a line of the file
        assert str(suite) in message


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name: str, refused: Callable[..., str], tmp_path: Path) -> None:
    content, expected = BAD_FILES[name]
    suite = tmp_path / "bad.yaml"
    suite.write_bytes(content)
    message = refused("run", suite)
    assert_says(message, expected)
    assert str(suite) in message


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_bad_arguments(arguments: str, refused: Callable[..., str], tmp_path: Path) -> None:
    assert_says(refused("run", write_suite(tmp_path), *arguments.split()), BAD_ARGUMENTS[arguments])


def test_several_mistakes_are_told_at_once(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused("run", write_suite(tmp_path, train={"epoch": 1, "batch": 0}, model={"routing": 11}))
    assert [line.partition(": ")[2].partition(":")[0] for line in message.splitlines()] == [
        "model.routing",
        "train.batch",
        "train.epoch",
    ]


def test_missing_suite(refused: Callable[..., str], tmp_path: Path) -> None:
    good = write_suite(tmp_path)
    assert_says(refused("run", tmp_path / "smal.yaml"), ["smal.yaml: no such file", f'did you mean "{good}"'])
    assert_says(refused("run", tmp_path), ["a folder; name a .yaml file"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_suite_without_permission(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = write_suite(tmp_path)
    suite.chmod(0)
    assert_says(refusal(["run", str(suite)], capfd), ["cannot be read", "Permission denied"])


def unwritable(tmp_path: Path) -> list[Path]:
    """Folders in which nobody, root included, can write; and where permissions count, one without them."""
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "file" / "runs", Path("/proc/capsbench")]
    if os.geteuid() != 0:
        (tmp_path / "read-only").mkdir(mode=0o555)
        folders.append(tmp_path / "read-only" / "runs")
    return folders


def test_read_only_output(refused: Callable[..., str], tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    for out in unwritable(tmp_path):
        message = refused("run", suite, "--out", out)
        assert_says(message, [f"cannot write the run directory {out}/small", "--out DIR"])


def test_unknown_command(refused: Callable[..., str]) -> None:
    assert_says(refused("rnu"), ['unknown command "rnu"', 'did you mean "run"', "doctor", "capsbench --help"])
    assert_says(refused("data", "fecth"), ['unknown command "fecth"', 'did you mean "fetch"'])
    assert_says(refused("plan"), ["SUITE", "capsbench plan --help"])
    assert_says(refused(), ["COMMAND"])


def test_not_a_run(refused: Callable[..., str], tmp_path: Path) -> None:
    assert_says(refused("sync", tmp_path), [f"{tmp_path} is not a run directory"])


def test_unknown_data_set(refused: Callable[..., str]) -> None:
    assert_says(refused("data", "fetch", "minst"), ['"minst"', 'did you mean "mnist"'])


def test_no_network_and_no_cache(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    suite = write_suite(tmp_path, data={"name": "mnist"})
    for arguments in (("run", suite), ("data", "fetch", "mnist")):
        assert_says(
            refused(*arguments),
            [
                "could not be fetched from any mirror",
                "train-images-idx3-ubyte  SHA-256 ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                f"Put them into {tmp_path / 'data' / 'mnist'}",
                "CAPSBENCH_DATA",
                "data.name=digits",
            ],
        )


def test_really_from_a_shell(tmp_path: Path) -> None:
    """What `main` was asked for above, through the interpreter's own front door."""
    suite = write_suite(tmp_path, model={"routing": 0})
    before = files_of(tmp_path)
    for arguments in (["run", suite], ["run", suite, "--json"], ["run", "absent.yaml", "--executor", "ray"]):
        done = capsbench(tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("capsbench: ")
        assert "Traceback" not in done.stderr
        if "--json" in arguments:
            assert json.loads(done.stdout) == {"error": done.stderr.removeprefix("capsbench: ").rstrip("\n")}
    left = {path: content for path, content in files_of(tmp_path).items() if path.name != "tmp"}
    assert left == before


def test_without_ray_or_mlflow(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    for arguments, expected in {
        ("--executor", "ray"): ["Ray is not installed", 'pip install "capsbench\\[ray\\]"', "--executor inline"],
        ("--ray-address", "auto"): ["Ray is not installed"],
        ("--mlflow-uri", "sqlite:///x.db"): ["MLflow is not installed", 'pip install "capsbench\\[mlflow\\]"'],
    }.items():
        done = capsbench(tmp_path, "run", suite, *arguments, hide="ray,mlflow")
        assert done.returncode == 2
        assert_says(done.stderr, expected)
        assert not (tmp_path / "runs").exists()


def test_good_requests_that_run_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = write_suite(tmp_path, grid={"impl": ["numpy", "jax"], "train.lr": [0.001, 0.002]})
    out = ("--out", str(tmp_path / "runs"))
    document = json.loads(good(capfd, "plan", str(suite), *out, "--json"))
    assert document["suite"] == SMALL["name"]
    assert [(trial["impl"], trial["params"]) for trial in document["trials"]] == [
        (impl, {"train.lr": lr}) for lr in (0.001, 0.002) for impl in ("numpy", "jax")
    ]
    table = good(capfd, "plan", str(suite), *out)
    assert len([line for line in table.splitlines() if "pending" in line]) == 4
    assert re.search(r"4 of 4 trials to run: about .*, one after another", table)
    other = json.loads(good(capfd, "plan", str(suite), *out, "-s", "train.lr=0.002", "-s", "grid.impl=numpy", "--json"))
    assert [trial["id"] for trial in other["trials"]] == [document["trials"][2]["id"]]
    rows: list[dict[str, Any]] = json.loads(good(capfd, "data", "list", "--json"))["datasets"]
    assert {row["name"]: row["state"] for row in rows}["digits"] == "embedded"
    assert good(capfd, "--version") == f"capsbench {__version__}\n"
    assert "--quick" in good(capfd, "run", "--help")
    assert not (tmp_path / "runs").exists()


def good(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints on stdout; it must succeed."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    stdout, stderr = capfd.readouterr()
    assert end.value.code == 0, stderr
    return stdout
