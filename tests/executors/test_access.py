"""Where a token is found, and how long it is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.executors import access
from harness.executors.access import authenticated, find_token, private
from harness.machine import surroundings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a token; the variables are not set, and Ray, if it is imported, is left alone."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-home\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(access, "_reread", lambda: None)
    return tmp_path


def test_the_first_place_that_has_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = find_token()
    assert token
    assert (token.value, token.is_asked_for, token.source) == ("of-home", False, str(home / ".ray" / "auth_token"))
    (home / "named").write_text("of-file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~/named")
    token = find_token()
    assert token
    assert (token.value, token.is_asked_for) == ("of-file", True)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-variable")
    token = find_token()
    assert token
    assert token.value == "of-variable"
    assert "of-variable" not in repr(token)


def test_the_users_home_counts_even_where_it_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`settle` then gives this process another one."""
    monkeypatch.setattr(surroundings, "_given", {"HOME": str(home)})
    monkeypatch.setenv("HOME", "/elsewhere")
    assert find_token()


def test_none(home: Path) -> None:
    (home / ".ray" / "auth_token").unlink()
    assert find_token() is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"two words", "holds no token"),
        (b"\xff\xfe", "not text"),
    ],
)
def test_a_file_without_a_token(content: bytes | None, told: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if content is not None:
        (home / "named").write_bytes(content)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "named"))
    with pytest.raises(
        UserError, match=f"RAY_AUTH_TOKEN_PATH names {home}/named, which .*{told}.*Put the cluster's token"
    ):
        find_token()


def test_it_is_shown_for_as_long_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "named")
    before = dict(os.environ)
    with authenticated("of-cluster"):
        assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]) == ("token", "of-cluster")
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert os.environ == before
    with authenticated(None):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert os.environ == before


def test_every_private_ray_has_one_of_its_own() -> None:
    tokens: set[str] = set()
    for _ in range(3):
        with private():
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(tokens) == 3
    assert {len(token) for token in tokens} == {64}
