"""Servers that are no MLflow, refuse, or do not answer: each is named in our words."""

from __future__ import annotations

import datetime
import http.server
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.journal.journal import Journal
from harness.views.mlflow import remote
from harness.views.mlflow.server import serve
from harness.views.mlflow.tracking import Tracker, sync
from tests.helpers import seeds_helpers

ANSWERS: dict[str, tuple[int, str, str]] = {  # name -> status, body, what is said of it
    "page": (200, "<!doctype html><title>Sign in</title>", 'not an MLflow server: it answers with the HTML page "Sign in"'),
    "missing": (404, "<html>nothing here", "is not an MLflow server: it answers with an HTML page (404)"),
    "words": (200, "hello", 'is not an MLflow server: it answers with "hello" (200)'),
    "list": (200, "[]", "is not an MLflow server"),
    "login": (401, "You are not authenticated.", "asks for a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    "forbidden": (403, "Permission denied", "asks for a login"),
    "host": (403, "Invalid Host header - possible DNS rebinding attack detected", "its --allowed-hosts must name that"),
    "broken": (502, "<html>Bad gateway", "answers with an error of its own (502"),
    "tls": (400, "The plain HTTP request was sent to HTTPS port", "speaks HTTPS; did you mean https://127.0.0.1:"),
}  # fmt: skip


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers a request below /NAME with `ANSWERS[NAME]`, or as an MLflow without experiments."""

    def do_GET(self) -> None:
        status, body, _ = ANSWERS.get(self.path.split("/")[1], (200, "{}", ""))
        if self.path.startswith("/half") and "filter=" in self.path:
            status = 500
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The same behind a certificate that nobody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1)).sign(
        key, hashes.SHA256()
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with serving(context) as port:
        yield port


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trial = seeds_helpers.make_trial()
    return seeds_helpers.write_run(tmp_path_factory.mktemp("runs") / "seeds", [(trial, seeds_helpers.events_of(0.3))])


@pytest.mark.parametrize("name", ANSWERS)
def test_what_answers_instead_is_named(name: str, port: int) -> None:
    assert ANSWERS[name][2] in str(remote.problem(f"http://127.0.0.1:{port}/{name}"))


def test_a_server_that_answers_has_no_problem(port: int) -> None:
    assert remote.problem(f"http://127.0.0.1:{port}") is None


def test_a_login_that_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = remote.problem(f"http://me:secret@127.0.0.1:{port}/login")
    assert f"http://me:***@127.0.0.1:{port}/login refused the user name and password, or the token" in str(found)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "x")
    assert "refused the user name" in str(remote.problem(f"http://127.0.0.1:{port}/login"))


def test_a_server_that_does_not_answer(port: int, tls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_TIMEOUT_S", 1)
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))
        number = closed.getsockname()[1]
        assert f"nothing listens on port {number} of 127.0.0.1" in str(remote.problem(f"http://127.0.0.1:{number}"))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert remote.problem(address) == f"{address} gives no answer within 1 s"
    assert (
        remote.problem("http://nowhere.invalid")
        == "there is no machine named nowhere.invalid, or this one cannot look it up"
    )
    assert f"did you mean http://127.0.0.1:{port}?" in str(remote.problem(f"https://127.0.0.1:{port}"))
    assert f"did you mean https://127.0.0.1:{tls}?" in str(remote.problem(f"http://127.0.0.1:{tls}"))
    assert "is not trusted here: MLFLOW_TRACKING_SERVER_CERT_PATH" in str(remote.problem(f"https://127.0.0.1:{tls}"))


def test_each_command_says_it(run: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("page", "login"):
        uri = f"http://127.0.0.1:{port}/{name}"
        with pytest.raises(UserError) as raised:
            sync(run, uri)
        assert ANSWERS[name][2] in str(raised.value)
        with pytest.raises(UserError) as raised:
            serve(run.parent, uri, open_browser=False)
        assert ANSWERS[name][2] in str(raised.value)
        assert "http" not in capsys.readouterr().out
    tracker = Tracker(Journal(run), f"http://127.0.0.1:{port}/page")
    tracker.start()
    assert ANSWERS["page"][2] in str(tracker.close())
    assert not (run / "mlflow.json").exists()


def test_a_server_that_cannot_be_read_is_not_called_empty(run: Path, port: int) -> None:
    with pytest.raises(UserError, match=r"/half cannot be used: 500 Server Error"):
        serve(run.parent, f"http://127.0.0.1:{port}/half", open_browser=False)


def test_an_empty_server_is_called_empty(run: Path, port: int) -> None:
    with pytest.raises(UserError, match=r"no run in .* is in MLflow .* yet: `capsbench sync .*--mlflow-uri"):
        serve(run.parent, f"http://127.0.0.1:{port}", open_browser=False)
