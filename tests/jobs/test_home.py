"""What a head says is not believed unseen: names, sizes, hashes; and addresses that are no dashboard are told."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.errors import Noted, UserError
from harness.jobs import home
from harness.jobs.client import Jobs, Unreachable
from harness.jobs.remembered import Job

FILES: dict[str, bytes] = {}
"""What the head serves from its log folder."""
HEADERS: list[str] = []
"""What it was sent."""


class _Head(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        HEADERS.append(str(self.headers))
        parts = urlsplit(self.path)
        name = parse_qs(parts.query).get("filename", [""])[0]
        if parts.path == "/api/authentication_mode":
            self._answer(200, b'{"authentication_mode": "disabled"}')
        elif parts.path == "/api/version":
            self._answer(200, b'{"ray_version": "2.60.0"}')
        elif parts.path == "/api/v0/logs/file" and name in FILES:
            self._answer(200, FILES[name])
        else:
            self._answer(500, f"A file is not found at: {name}".encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    FILES.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Head) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Jobs(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


def serve(files: dict[str, bytes], **lies: bytes) -> None:
    listed = [(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in files.items()]
    FILES["capsbench-a.json"] = json.dumps({"code": 0, "outcome": None, "files": listed}).encode()
    FILES.update({f"capsbench-a/{path}": content for path, content in {**files, **lies}.items()})


def bring(jobs: Jobs, run_dir: Path, before: dict[str, str] | None = None) -> int:
    listed = home.listing(jobs, "a", "n")
    assert listed
    return home.fetch(jobs, "a", "n", listed, run_dir, before or {}, lambda _: None)


def test_files_come_once_and_go_when_they_are_gone(jobs: Jobs, tmp_path: Path) -> None:
    assert home.listing(jobs, "a", "n") is None
    serve({"plan.json": b"{}", "trials/t/epoch-1.safetensors": b"one", "empty": b""})
    assert bring(jobs, tmp_path) == 3
    assert bring(jobs, tmp_path) == 0
    before = {
        path: hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
        for path in ("plan.json", "trials/t/epoch-1.safetensors")
    }
    serve({"plan.json": b"{}", "trials/t/epoch-2.safetensors": b"two", "empty": b""})
    assert bring(jobs, tmp_path, before) == 1
    assert [path.name for path in sorted((tmp_path / "trials" / "t").iterdir())] == ["epoch-2.safetensors"]


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "", ".lock", "a/.b", "~/out", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere(name: str, jobs: Jobs, tmp_path: Path) -> None:
    serve({name: b"x"})
    with pytest.raises(Unreachable, match="no file of a run directory"):
        bring(jobs, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_elsewhere(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials").symlink_to(tmp_path)
    serve({"trials/out": b"x"})
    with pytest.raises(UserError, match="leads elsewhere by a link"):
        bring(jobs, tmp_path / "run")
    assert not (tmp_path / "out").exists()


def test_content_that_is_not_as_listed_is_not_kept(jobs: Jobs, tmp_path: Path) -> None:
    serve({"weights": b"right"}, weights=b"wrong")
    with pytest.raises(Unreachable, match="weights did not arrive as it was sent"):
        bring(jobs, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"files": 3}', b'{"code": 0, "outcome": null, "files": [["a", 1, "x"]]}']
)
def test_a_damaged_list(text: bytes, jobs: Jobs) -> None:
    FILES["capsbench-a.json"] = text
    with pytest.raises(Unreachable, match="the list of its files is damaged"):
        home.listing(jobs, "a", "n")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("head:8265", "expected the address of the head's dashboard, such as http://head:8265"),
        ("ray://head:10001", "`capsbench run --ray-address` takes host:port"),
        ("http://", "expected the address"),
        ("http://head:99999", "Port out of range"),
        ("http://me:secret@head", "a password does not belong there"),
        ("http://127.0.0.1:1", "Connection refused"),
        ("http://nowhere.invalid:8265", "no machine of that name is known"),
    ],
)
def test_addresses(address: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        Jobs(address)
    assert told in str(error.value)
    assert "secret" not in str(error.value)


def test_an_open_cluster_is_shown_no_token(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    HEADERS.clear()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
    with pytest.warns(Noted, match="asks for no token: RAY_AUTH_TOKEN is not sent"):
        Jobs(jobs.address)
    assert HEADERS
    assert "of-another-cluster" not in "".join(HEADERS)


def test_headers_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", "X-Team: vision")
    with pytest.raises(UserError, match="RAY_JOB_HEADERS is no JSON object of text"):
        Jobs("http://127.0.0.1:1")


def test_a_damaged_memory_of_the_job(tmp_path: Path) -> None:
    assert Job.read(tmp_path) is None
    job = Job("small-1", "http://head:8265", "session_1", "_ray_pkg_0.zip", {"plan.json": "0" * 64}, is_home=True)
    job.write(tmp_path)
    assert Job.read(tmp_path) == job
    for text in ("", "[]", "{}", '{"id": 3}', (tmp_path / "job.json").read_text().replace('"0000', "[0,")):
        (tmp_path / "job.json").write_text(text)
        with pytest.raises(UserError, match=r"job\.json is damaged; choose another folder"):
            Job.read(tmp_path)
