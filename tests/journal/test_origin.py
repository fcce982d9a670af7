"""Who ran it, where, from which commit: without passwords, tokens and paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.journal.origin import cluster, origin, project, public


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:token@host/team/suites.git\n", "https://host/team/suites.git"),
        ("https://host/team/suites.git", "https://host/team/suites.git"),
        ("ssh://git@host:22/team/suites", "ssh://host:22/team/suites"),
        ("git@host:team/suites.git", "git@host:team/suites.git"),
        ("/home/me/suites", None),
        ("file:///home/me/suites", None),
        ("../suites", None),
        ("", None),
    ],
)
def test_a_remote_is_named_without_secrets_and_paths(url: str, shown: str | None) -> None:
    assert public(url) == shown


def test_the_checkout_of_a_suite(tmp_path: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text("name: mine\n")
    assert project(suite) is None

    def git(*arguments: str) -> str:
        own = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "init.defaultBranch=topic"]
        done = subprocess.run(["git", *own, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    assert project(suite) is None  # nothing committed yet
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    assert project(suite) == {"commit": commit, "dirty": False, "branch": "topic", "url": None}
    (tmp_path / "runs").write_text("results do not make it dirty")
    git("remote", "add", "origin", "https://me:token@host/x")
    suite.write_text("name: other\n")
    git("checkout", "-q", "--detach")
    assert origin(suite, None)["project"] == {"commit": commit, "dirty": True, "branch": None, "url": "https://host/x"}


def test_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)  # another test's
    assert cluster(None, {}) == {}
    assert cluster("10.0.0.1:6379", {}) == {"ray": "10.0.0.1:6379"}
    assert cluster(None, {"SLURM_CLUSTER_NAME": "alpha", "SLURM_JOB_ID": "17"}) == {"slurm": "alpha", "slurm_job": "17"}
    assert cluster(None, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})["kubernetes"]


def test_capsbench_s_own_checkout_is_recorded_anyway() -> None:
    assert project(Path(__file__).resolve().parents[2] / "suites" / "quickstart.yaml") is None
