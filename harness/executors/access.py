"""Who may talk to a Ray: tokens of clusters, and a private one that only this machine, and only its driver, can reach."""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import importlib
import os
import secrets
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.machine.surroundings import given

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
PLACES = f"{_TOKEN}, the file that {_PATH} names, or ~/.ray/auth_token"
"""Where a token is looked for, in this order; it is Ray's own."""


@dataclass(frozen=True)
class Token:
    """A cluster's token, and where it was found. It is never shown."""

    value: str = field(repr=False)
    source: str
    is_asked_for: bool  # the user named it for this command; ~/.ray/auth_token is there for any cluster


def find_token() -> Token | None:
    """The user's token, if there is one. Raises `UserError` if the file that is to hold it cannot be read or is empty."""
    shell = given()  # the user's home, even where another one is used because it cannot be written
    if value := os.environ.get(_TOKEN, "").strip():
        return Token(value, _TOKEN, is_asked_for=True)
    if named := os.environ.get(_PATH):
        return Token(_read(Path(named).expanduser(), f"{_PATH} names"), f"{_PATH} ({named})", is_asked_for=True)
    home = shell.get("HOME") or str(Path.home())
    file = Path(home, ".ray", "auth_token")
    try:
        is_there = file.is_file()
    except OSError:
        return None
    return Token(_read(file, "the token is in"), str(file), is_asked_for=False) if is_there else None


def _read(file: Path, where: str) -> str:
    advice = f"Put the cluster's token there, or give it as {_TOKEN}"
    try:
        value = file.read_text().strip()
    except (OSError, ValueError) as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or "not text"
        raise UserError(f"{where} {file}, which cannot be read: {cause}. {advice}") from error
    if not value or not value.isascii() or len(value.split()) != 1:
        raise UserError(f"{where} {file}, which {'holds no token' if value else 'is empty'}. {advice}")
    return value


@contextmanager
def authenticated(token: str | None) -> Generator[None]:
    """Ray in this process, and what it starts, shows this token to whom it talks to; with None, no token."""
    changes = {_MODE: "disabled", _TOKEN: None, _PATH: None}
    with _environment(changes | ({_MODE: "token", _TOKEN: token} if token else {})):
        _reread()
        try:
            yield
        finally:
            pass
    _reread()


@contextmanager
def private() -> Generator[None]:
    """A token that was never used before: a private Ray answers to its driver alone, and writes none into ~/.ray."""
    with authenticated(secrets.token_hex(32)):
        yield


@contextmanager
def on_loopback() -> Generator[None]:
    """Has a Ray that is started or connected to meanwhile take this machine to be 127.0.0.1, and so listen on it alone.

    By default it takes the address by which others could reach it, and listens on all interfaces; on macOS and Windows
    this is the default. A Ray with other private names listens as usual.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    name = "ENABLE_RAY_CLUSTER"
    kept = getattr(constants, name, None)
    try:
        if kept is not None:
            setattr(constants, name, False)
        yield
    finally:
        if kept is not None:
            setattr(constants, name, kept)


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Generator[None]:
    """Sets the variables, None: removes, for as long as the block lasts."""
    kept = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(kept)


def _set(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _reread() -> None:
    """Has a Ray that is already imported read the variables again."""
    if "ray" in sys.modules:
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
