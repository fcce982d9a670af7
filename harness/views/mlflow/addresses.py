"""Under which addresses `capsbench ui` answers: its port, the names that MLflow's host check lets in, an ssh tunnel."""

from __future__ import annotations

import errno
import getpass
import os
import shlex
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from harness.errors import UserError
from harness.views.mlflow.holders import listening

LOOPBACK = "127.0.0.1"
# Under the plain names MLflow opens its AI assistant over a third of the table at the first visit, under this one it does
# not. Most browsers take every name under localhost for this machine (RFC 6761); Safari and old tools ask elsewhere.
NAME = "capsbench.localhost"
_LOCAL = ("localhost", NAME, LOOPBACK, "[::1]")
_LOOKUP_S = 0.5
_EVERY = ("0.0.0.0", "::")
_TRIES = 100


@dataclass(frozen=True)
class Listener:
    """A host and port that a server can listen on."""

    host: str
    port: int

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it."""
        return not (self.host in ("localhost", "::1") or self.host.startswith("127."))

    @property
    def local(self) -> str:
        """The address for this machine itself, which is a number, so that nothing need look it up."""
        host = LOOPBACK if self.host in ("0.0.0.0", "localhost") else "::1" if self.host == "::" else self.host
        return f"http://{bracketed(host)}:{self.port}"

    @property
    def named(self) -> str:
        """The same by a name of our own, under which MLflow's assistant stays closed; for browsers on this machine."""
        is_reached = self.host in (LOOPBACK, "localhost", "0.0.0.0") and sys.platform != "darwin"
        return f"http://{NAME}:{self.port}" if is_reached else self.local

    @property
    def names(self) -> list[str]:
        """By what name browsers may ask for it, without ports."""
        if not self.is_open:
            return [*_LOCAL, *([] if self.host in (*_LOCAL, "::1") else [self.host])]
        own = [bracketed(self.host)] if self.host not in _EVERY else own_names()
        return list(dict.fromkeys([*_LOCAL, *own]))

    @property
    def allowed_hosts(self) -> str:
        """For MLflow's host check: those names, with any port, as a tunnel has a port of its own."""
        patterns = [each for name in self.names for each in (name, f"{name.replace('[', '[[]', 1)}:*")]
        return ",".join(filter(None, [*patterns, os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS")]))

    @property
    def origins(self) -> str:
        """For MLflow's check of where a page came from: only pages that this server has sent."""
        known = [f"http://{name}:{self.port}" for name in self.names]
        return ",".join(filter(None, [*known, os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")]))


def listener(host: str, port: int) -> tuple[Listener, str | None]:
    """Where to listen: on `port`, or the next free one; then also a sentence that says who has `port`.

    Raises `UserError` for a host that is not this machine, a port that it may not use, and if a hundred are taken.
    """
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} is no port: choose one from 1024 to 65535.")
    family, address = _resolved(host)
    for candidate in range(port, min(port + _TRIES, 65536)):
        if _is_free(family, address, candidate):
            if candidate == port:
                return Listener(host, port), None
            who = listening(port)
            return Listener(host, candidate), f"Port {port} is taken{f' by {who}' if who else ''}; using {candidate}."
    raise UserError(f"no free port from {port} on: choose another with --port.")


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip() or "?", 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f'--host "{host}" is no address of this machine: give 127.0.0.1 (for this machine only), 0.0.0.0 (for all that can '
            "reach it), or one of its addresses."
        ) from error
    return family, str(address[0])


def _is_free(family: socket.AddressFamily, address: str, port: int) -> bool:
    """Whether a server can listen there, and no other answers on this machine's own addresses: a browser may try either."""
    if any(_listens(own, port) for own in (LOOPBACK, "::1")):
        return False
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise UserError(f"--port {port} is the administrator's: choose one from 1024 to 65535.") from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(
                    f"--host {address} is not an address of this machine: its own are {', '.join(own_names())}."
                ) from error
            return False
    return True


def _listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def own_names() -> list[str]:
    """This machine's names and addresses, as far as it knows them itself."""
    name = socket.gethostname()
    found = [name, socket.getfqdn()]
    with suppress(OSError):
        found += [bracketed(str(each[4][0]).partition("%")[0]) for each in socket.getaddrinfo(name, None)]
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:  # asks for the route, sends nothing
            probe.connect((outside, 9))
            found.append(bracketed(str(probe.getsockname()[0])))
    if reached := os.environ.get("SSH_CONNECTION", "").split()[2:3]:
        found.append(bracketed(reached[0]))
    return [each for each in dict.fromkeys(found) if each and not each.startswith(("127.", "[::1]", "localhost"))]


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, as in a URL; other hosts as they are."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_known(name: str = NAME) -> bool:
    """Whether this machine itself, and not only a browser, takes `name` for its own."""
    found: list[str] = []

    def look_up() -> None:
        with suppress(OSError):
            found.extend(str(each[4][0]) for each in socket.getaddrinfo(name, None))

    thread = threading.Thread(target=look_up, daemon=True)  # a name server that is away would take many seconds
    thread.start()
    thread.join(_LOOKUP_S)
    return bool(found) and all(address.startswith("127.") or address == "::1" for address in found)


def has_display(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a browser can be opened where the user is."""
    if any(environment.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    return sys.platform == "darwin" or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def tunnel(where: Listener, environment: Mapping[str, str] = os.environ) -> str:
    """The command that makes this server reachable from the user's own machine, to be typed there."""
    reached = environment.get("SSH_CONNECTION", "").split()
    host, port = (reached[2], reached[3]) if len(reached) == 4 else (socket.gethostname(), "22")
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no entry in the list of users
        user = "USER"
    target = where.local.removeprefix("http://")
    options = ["-N", "-L", f"{where.port}:{target}", *(["-p", port] if port != "22" else [])]
    return shlex.join(["ssh", *options, f"{user}@{host}"])
