"""`capsbench doctor --report`: everything that a maintainer needs, and nothing about whose machine it is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from harness import __version__
from harness.commands import doctor
from harness.commands.cli import main
from harness.views.bug_report import Anonymous, bug_report, markdown

HOME, USER, HOST = "/home/anna.smith", "anna.smith", "gpu7.lab.example.org"
CLEAN = Anonymous(
    {"~": HOME, "CWD": "/srv/My Drive/x", "CAPSBENCH_DATA": "/data/sets"}, [USER, "root"], [HOST, "localhost"]
)
ENVIRON = {
    "HOME": HOME,
    "PYTHONPATH": f"{HOME}/secret project/src:/opt/some thing/lib:/data/sets/x",
    "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "XLA_FLAGS": f"--xla_dump_to={HOME}/dump/here --xla_gpu_x=1",
    "MLFLOW_TRACKING_URI": f"https://{USER}:hunter2@{HOST}/tracking",
    "MLFLOW_TRACKING_PASSWORD": "hunter2",
    "MLFLOW_EXPERIMENT_NAME": "secret project",
    "RAY_ADDRESS": "secret-head:6379",
    "RAY_DEDUP_LOGS": "1",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_SUBMIT_DIR": "/secret",
    "TF_FLAGS": "at 10.20.30.40:6379\nand more",
    "TF_LOG": f"on {HOST}",
    "UNRELATED": "hunter2",
    "CAPSBENCH_GATE_CACHE": "off",
    "TERM": "dumb",
}


def check(group: str, name: str, state: str, detail: str, advice: str | None = None, **versions: str) -> dict[str, Any]:
    return {"group": group, "name": name, "state": state, "detail": detail, "advice": advice, "versions": versions}


FOUND = {
    "ok": True,
    "ready": ["torch"],
    "checks": [
        check("implementation", "torch", "ok", "2.9, CPU", torch="2.9"),
        check("implementation", "mine", "broken", f"No module in\n{HOME}/net/a|b.py", "reinstall it"),
        check("data", "mnist", "absent", "not there (/mnt/big disk/anna.smith/mnist)", "see http://10.0.0.1/x"),
        check("machine", "disk", "ok", "5.0 GB free for /srv/My Drive/x/runs"),
    ],
    "environment": {
        "host": HOST,
        "os": "Linux-6.1-x86_64",
        "cpu": "AMD EPYC 7/64",
        "cores": 4,
        "memory_bytes": 8e9,
        "gpus": ["NVIDIA H200"],
        "python": "3.11.4",
        "versions": {"ray": "2.55"},
        "git": {"commit": "0123456789abcdef", "dirty": True},
    },
}


def test_what_it_says() -> None:
    text = markdown(FOUND, ENVIRON, CLEAN)
    for expected in (
        f"### capsbench {__version__}, commit 0123456789ab, modified",
        "- Python 3.11.4, Linux-6.1-x86_64",
        "- AMD EPYC 7/64, 4 cores, 8.0 GB",
        "- GPU: NVIDIA H200",
        "- Libraries: ray 2.55, torch 2.9",
        "| implementation | torch | ok | 2.9, CPU |",
        "| implementation | mine | broken | No module in ~/.../a/b.py -> reinstall it |",
        "| machine | disk | ok | 5.0 GB free for CWD/runs |",
        "CAPSBENCH_GATE_CACHE=off",
        "HOME=~",
        "LD_PRELOAD=.../libjemalloc.so.2",
        "MLFLOW_TRACKING_PASSWORD=(set)",
        "MLFLOW_TRACKING_URI=https://...",
        "PYTHONPATH=~/.../src:.../lib:CAPSBENCH_DATA/x",
        "RAY_ADDRESS=(set)",
        "RAY_DEDUP_LOGS=1",
        "SLURM_CPUS_PER_TASK=4",
        "SLURM_SUBMIT_DIR=(set)",
        "TF_FLAGS=at ADDRESS:6379\\nand more",
        "TERM=dumb",
        "TF_LOG=on HOST",
        "XLA_FLAGS=--xla_dump_to=~/.../here --xla_gpu_x=1",
    ):
        assert expected in text.splitlines(), expected


def test_what_it_does_not_say() -> None:
    text = markdown(FOUND, ENVIRON, CLEAN)
    for secret in (
        "anna",
        "smith",
        "gpu7",
        "lab.example",
        "hunter2",
        "/home",
        "secret",
        "10.20",
        "10.0.0.1",
        "some thing",
    ):
        assert secret not in text, secret
    assert "UNRELATED" not in text


@pytest.mark.parametrize(
    "text",
    ["5.0 of 8 usable, x (avx2)", 'pip install "capsbench[ray]"; without it: capsbench run --executor inline', "and/or", "/tmp",
     "Linux-5.15.0-1-x86_64-with-glibc2.35", "1.2.3", "anna.smithson", "http and https", "2 x 3 / 4"],
)  # fmt: skip
def test_what_stays(text: str) -> None:
    assert CLEAN(text) == text


def test_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """From a folder, by a user and with a home that no one is to see."""
    (tmp_path / "hidden-home" / "hidden-work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "hidden-home" / "hidden-work")
    monkeypatch.setenv("HOME", str(tmp_path / "hidden-home"))
    monkeypatch.setenv("USER", "hidden-user")
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "hidden-home" / "data"))
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={tmp_path}/hidden-dump/x")
    found = doctor.Diagnosis(True, ["numpy"], doctor._data(None), doctor.environment())
    monkeypatch.setattr(
        doctor, "diagnose", lambda _out: found
    )  # its probes import every framework, and are tested elsewhere
    for arguments in (["doctor", "--report"], ["doctor", "--report", "--json"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        text = capfd.readouterr().out
        text = json.loads(text)["report"] + "\n" if "--json" in arguments else text
        assert text == bug_report(found.to_json(), os.environ) + "\n"
        assert "| data | mnist | absent |" in text
        assert not re.search(rf"hidden|{re.escape(str(tmp_path.parent))}", text)


def test_bug_reports_ask_for_it() -> None:
    template = Path(__file__).parents[2] / ".github" / "ISSUE_TEMPLATE" / "bug_report.md"
    assert "`capsbench doctor --report`" in template.read_text(encoding="utf-8")
