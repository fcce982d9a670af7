"""Where `capsbench ui` listens, whom MLflow's own host check lets in there, and the command for an ssh tunnel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.views.mlflow.addresses import Listener, has_display, is_known, listener, own_names, tunnel

SSH = {"SSH_CONNECTION": "198.51.100.4 50000 192.0.2.9 22"}


def test_a_taken_port_gives_way_to_the_next_and_names_who_has_it() -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    code += "; time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, "someone", "http://me:secret@x"], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            port = int(other.stdout.readline())
            found, said = listener("127.0.0.1", port)
        finally:
            other.kill()
    assert port < found.port < port + 100
    assert said is not None
    assert said.startswith(f"Port {port} is taken by process {other.pid} (")
    assert said.endswith(f"; using {found.port}.")
    assert "python" in said
    assert listener("127.0.0.1", port) == (Listener("127.0.0.1", port), None)


@pytest.mark.parametrize("port", [70000, 0, -1])
def test_a_number_that_is_no_port(port: int) -> None:
    with pytest.raises(UserError, match=f"--port {port} is no port: choose one from 1024 to 65535"):
        listener("127.0.0.1", port)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every port")
def test_a_port_of_the_administrator() -> None:
    with pytest.raises(UserError, match="--port 80 is the administrator's"):
        listener("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("203.0.113.7", "--host 203.0.113.7 is not an address of this machine: its own are"),
        ("999.1.1.1", '--host "999.1.1.1" is no address of this machine'),
        ("http://localhost", '--host "http://localhost" is no address of this machine: give 127.0.0.1'),
        ("a" * 70, "is no address of this machine"),
        ("", '--host "" is no address of this machine'),
    ],
)
def test_a_host_that_is_not_this_machine(host: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        listener(host, 5399)
    assert said in str(raised.value)


def test_a_port_that_is_bound_but_does_not_answer_is_taken() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        found, said = listener("127.0.0.1", port)
    assert found.port > port
    assert said is not None
    assert said.startswith(f"Port {port} is taken")


def lets_in(where: Listener, host: str) -> bool:
    """What MLflow's own check says of a request for this host."""
    from mlflow.server.security_utils import is_allowed_host_header

    return is_allowed_host_header(where.allowed_hosts.split(","), host)


def lets_change(where: Listener, origin: str) -> bool:
    from mlflow.server.security_utils import should_block_cors_request

    return not should_block_cors_request(origin, "POST", where.origins.split(","))


def test_browsers_come_in_by_every_name_of_this_machine_and_by_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", SSH["SSH_CONNECTION"])
    closed, opened, one = Listener("127.0.0.1", 5000), Listener("0.0.0.0", 5000), Listener("192.0.2.9", 5000)
    for where in (closed, opened, one):
        for host in (
            "127.0.0.1:5000",
            "localhost:5000",
            "capsbench.localhost:5000",
            "localhost:8080",
            "[::1]:5000",
        ):  # 8080: through a tunnel
            assert lets_in(where, host), host
        assert lets_change(where, "http://localhost:8080")
        assert lets_change(where, "http://capsbench.localhost:5000")
        for host in ("evil.example:5000", "evil.example", "127.0.0.1.evil.example:5000", ""):
            assert not lets_in(where, host), host
        assert not lets_change(where, "http://evil.example:5000")
    for where in (opened, one):
        assert lets_in(where, "192.0.2.9:5000")
        assert lets_change(where, "http://192.0.2.9:5000")
    name = socket.gethostname()
    assert lets_in(opened, f"{name}:5000")
    assert lets_change(opened, f"http://{name}:5000")
    assert not lets_in(closed, "192.0.2.9:5000")


def test_names_that_the_user_allows_are_allowed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "bench.example")
    monkeypatch.setenv("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "https://bench.example")
    where = Listener("0.0.0.0", 5000)
    assert lets_in(where, "bench.example")
    assert lets_in(where, "localhost:5000")
    assert lets_change(where, "https://bench.example")


@pytest.mark.parametrize(
    ("host", "is_open", "local"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:5000"), ("localhost", False, "http://127.0.0.1:5000"),
        ("::1", False, "http://[::1]:5000"), ("0.0.0.0", True, "http://127.0.0.1:5000"),
        ("::", True, "http://[::1]:5000"), ("192.0.2.9", True, "http://192.0.2.9:5000"),
    ],
)  # fmt: skip
def test_the_address_for_this_machine_is_a_number(host: str, is_open: bool, local: str) -> None:
    where = Listener(host, 5000)
    assert (where.is_open, where.local) == (is_open, local)


def test_a_name_is_printed_only_where_it_is_known() -> None:
    assert is_known("localhost")
    assert not is_known("capsbench.invalid")
    assert Listener("::1", 5000).named == "http://[::1]:5000"
    assert Listener("192.0.2.9", 5000).named == "http://192.0.2.9:5000"


def test_the_tunnel_leads_to_the_machine_that_was_reached() -> None:
    where = Listener("127.0.0.1", 5001)
    assert tunnel(where, SSH).startswith("ssh -N -L 5001:127.0.0.1:5001 ")
    assert tunnel(where, SSH).endswith("@192.0.2.9")
    assert "-p 2222" in tunnel(where, {"SSH_CONNECTION": "198.51.100.4 50000 192.0.2.9 2222"})
    assert tunnel(where, {}).endswith(f"@{socket.gethostname()}")


def test_a_session_by_ssh_has_no_browser_here() -> None:
    assert not has_display({**SSH, "DISPLAY": ":0"})
    assert has_display({"DISPLAY": ":0"}) or sys.platform == "win32"
    assert has_display({}) == (sys.platform == "darwin")


def test_own_names_are_reachable_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", SSH["SSH_CONNECTION"])
    names = own_names()
    assert {socket.gethostname(), "192.0.2.9"} <= set(names)
    assert not any(name.startswith(("127.", "localhost")) for name in names)
