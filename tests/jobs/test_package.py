"""What is sent with a suite: all that it needs and nothing else, under names that mean the same there."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import UserError
from harness.jobs import package
from harness.jobs.package import Contents
from harness.suite.suite import load_suite
from tests.helpers.run_helpers import write_suite

_NET = "import side\nfrom impls.numpy import NumpyImpl\n\nclass Net(NumpyImpl):\n    pass\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "own" / "deeper").mkdir(parents=True)
    (folder / "own" / "net.py").write_text(_NET)
    (folder / "own" / "side.py").write_text("import deeper.last\n")
    (folder / "own" / "deeper" / "last.py").write_text("")
    (folder / "own" / "other.py").write_text("")
    (folder / "own" / ".secret").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "data"))
    return folder


def contents(suite: Path, shared: tuple[Path, ...] = (), **changes: Any) -> Contents:
    write_suite(suite.parent, **changes)
    read = load_suite(suite)
    found = Contents(read.source, shared)
    found.add_trials(read.trials(8, lambda _: {}), read.grid)
    return found


def names(found: Contents) -> list[str]:
    _, content = found.archive({"id": "x"})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "pictures.npz"
    np.savez(path, images=rng.integers(0, 255, (60, 28, 28), np.uint8), labels=np.arange(60) % 3)
    return path


def test_built_in_implementations_need_nothing(here: Path) -> None:
    assert names(contents(here / "small.yaml")) == ["capsbench_job.py", "request.json", "work/suite.yaml"]


def test_an_implementation_with_what_it_imports_from_beside_it(here: Path) -> None:
    sent = names(contents(here / "small.yaml", grid={"impl": ["own/net.py:Net"]}))
    assert sent[3:] == ["work/own/deeper/last.py", "work/own/net.py", "work/own/side.py"]


def test_the_same_content_has_the_same_name(here: Path) -> None:
    first, _ = contents(here / "small.yaml", grid={"impl": ["own/net.py:Net"]}).archive({"id": "x"})
    (here / "own" / "side.py").touch()
    found = contents(here / "small.yaml", grid={"impl": ["own/net.py:Net"]})
    assert found.archive({"id": "x"})[0] == first
    assert re.fullmatch(r"_ray_pkg_[0-9a-f]{32}\.zip", first)
    (here / "own" / "side.py").write_text("import deeper.last\nX = 1\n")
    assert found.archive({"id": "x"})[0] != first


def test_pictures_keep_their_place_or_get_one(here: Path, tmp_path: Path) -> None:
    pictures(here)
    pictures(tmp_path)
    data = {"name": "npz", "train": None, "validation": None, "test": None}
    inside = contents(here / "small.yaml", data={**data, "path": "pictures.npz"})
    assert (names(inside)[3:], inside.overrides) == (["work/pictures.npz"], ["data.path=pictures.npz"])
    elsewhere = contents(here / "small.yaml", data={**data, "path": str(tmp_path / "pictures.npz")})
    [override] = elsewhere.overrides
    assert names(elsewhere)[3:] == [f"work/{override.removeprefix('data.path=')}"]
    shared = contents(here / "small.yaml", (tmp_path,), data={**data, "path": "../pictures.npz"})
    assert names(shared)[3:] == []
    assert Path(shared.overrides[0].removeprefix("data.path=")).samefile(tmp_path / "pictures.npz")


def test_pictures_that_are_varied(here: Path, tmp_path: Path) -> None:
    pictures(here).rename(here / "a.npz")
    pictures(here).rename(here / "b.npz")
    data = {"name": "npz", "train": None, "validation": None, "test": None}
    with np.load(here / "b.npz") as found:
        np.savez(here / "b.npz", images=255 - found["images"], labels=found["labels"])
    varied = contents(here / "small.yaml", data=data, grid={"impl": ["numpy"], "data.path": ["a.npz", "b.npz"]})
    assert (names(varied)[3:], varied.overrides) == (["work/a.npz", "work/b.npz"], [])
    (here / "b.npz").rename(tmp_path / "b.npz")
    with pytest.raises(UserError, match=r"data\.path is varied, and has values that are not below the current folder"):
        contents(here / "small.yaml", data=data, grid={"impl": ["numpy"], "data.path": ["a.npz", "../b.npz"]})


def test_what_is_too_large_is_told_beforehand(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(here)
    data = {"name": "npz", "path": "pictures.npz", "train": None, "validation": None, "test": None}
    found = contents(here / "small.yaml", data=data)
    monkeypatch.setattr(package, "MOST_BYTES", 10_000)
    with pytest.raises(UserError, match=r"such as pictures\.npz; at most 0 MB are sent\. .*--shared FOLDER"):
        found.archive({"id": "x"})


def test_an_implementation_elsewhere_is_refused(here: Path, tmp_path: Path) -> None:
    (tmp_path / "net2.py").write_text(_NET.replace("import side\n", ""))
    with pytest.raises(UserError, match=r"is not below the current folder.*--shared FOLDER"):
        contents(here / "small.yaml", grid={"impl": ["../net2.py:Net"]})
    assert contents(here / "small.yaml", (tmp_path,), grid={"impl": ["../net2.py:Net"]}).files == {}
