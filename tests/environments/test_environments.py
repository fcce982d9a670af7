"""Environments: who chooses them, what is asked of them, and what is said of those that will not do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.analysis.labels import color, impl_name
from harness.environments import chosen, probe
from harness.environments.chosen import MARK, Chosen, of_user
from harness.environments.create import Wanted, create, remove
from harness.environments.interpreters import Interpreters, not_here
from harness.environments.probe import ask, is_own, is_version
from harness.errors import UserError
from harness.machine.environment import environment
from harness.spec.trial import Interpreter
from harness.supervisor.child import unusable
from tests.helpers.environment_helpers import bare, light

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    return light(tmp_path_factory.mktemp("second"))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folders: a configuration to be written, and none made."""
    monkeypatch.setenv("CAPSBENCH_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("CAPSBENCH_ENVIRONMENTS", str(tmp_path / "made"))
    (tmp_path / "config.yaml").touch()
    return tmp_path


def said(impl: str, python: object, **more: Any) -> str:
    with pytest.raises(UserError) as error:
        ask(Chosen(impl, str(python), "environments in my.yaml"), **more)
    return str(error.value)


def test_a_label_makes_a_contestant_of_the_same_implementation() -> None:
    plain, labelled = registry.resolve("torch"), registry.resolve("torch@2.12")
    assert (labelled.name, labelled.base, labelled.label) == ("torch@2.12", "torch", "2.12")
    assert (labelled.target, labelled.is_built_in, plain.base, plain.label) == (plain.target, True, "torch", None)
    assert registry.environment("torch@2.12", 1, "fp32", False) == registry.environment("torch", 1, "fp32", False)
    assert impl_name("torch@2.12") == "torch@2.12"
    assert len({color(name) for name in ("torch", "torch@2.12", "torch@2.13", "torch@2.14", "torch@nightly")}) == 5
    with pytest.raises(UserError, match=r'unknown implementation "torhc"; did you mean "torch"'):
        registry.resolve("torhc@2.12")


@pytest.mark.parametrize(
    ("label", "version", "same"),
    [("2.12", "2.12.1", True), ("2.12", "2.12", True), ("2.1", "2.12.1", False), ("2.12", "2.12+cpu", True)],
)  # fmt: skip
def test_which_versions_a_label_stands_for(label: str, version: str, same: bool) -> None:
    assert is_version(label, version) is same


def test_what_is_needed_and_installed_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert list(registry.NEEDS) == project["dependencies"]
    for name in registry.FRAMEWORKS:
        for requirement in registry.requirements(name):
            assert any(each.partition(";")[0] == requirement for each in extras[name])
        for requirement in registry.requirements(name, gpu=True):
            assert requirement in extras["gpu"]
    assert registry.requirements("jax", "0.9") == ("jax==0.9.*", "optax>=0.2.6")
    with pytest.raises(UserError, match=r"torch@2\.1: capsbench needs torch 2\.9 or newer"):
        registry.requirements("torch", "2.1")


def test_an_interpreter_says_what_it_has(second: str) -> None:
    found = ask(Chosen("numpy@light", second, "here"))
    own = {name: version for name, version in environment()["versions"].items() if name == "numpy"}
    assert (found.path, found.python, found.versions) == (second, environment()["python"], own)
    assert not is_own(second)
    assert is_own(sys.executable)


def test_bad_interpreters_are_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "light").mkdir()
    (tmp_path / "text").write_text("no program")
    loud = tmp_path / "loud"
    loud.write_text("#!/bin/sh\nexec yes capsbench\n")
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho '@ too old: 3.9.2'; exit 3\n")
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    for each in (loud, old, slow):
        each.chmod(0o755)
    missing = said("numpy", tmp_path / "lihgt" / "bin" / "python")
    assert missing.startswith(f"numpy: {tmp_path}/lihgt/bin/python (environments in my.yaml): there is no such file")
    assert f"did you mean {tmp_path}/light?" in missing
    assert "a folder without bin/python" in said("numpy", tmp_path / "light")
    assert "may not be executed" in said("numpy", tmp_path / "text")
    assert 'there is no command "pyhton-of-mine"' in said("numpy", "pyhton-of-mine")
    assert "does not answer as a Python does" in said("numpy", "/bin/ls")
    assert "does not answer as a Python does; it said: capsbench" in said("numpy", loud)
    assert "it is Python 3.9.2; capsbench needs 3.11 or newer" in said("numpy", old)
    assert "no answer within 0.2 s" in said("numpy", slow, limit_s=0.2)


def test_what_an_environment_lacks(tmp_path: Path) -> None:
    python = bare(tmp_path / "bare")
    assert re.search(
        r"it lacks what capsbench needs: numpy>=2, .*; install it there: \S+ -m pip install 'numpy>=2'",
        said("numpy", python),
    )
    partial = light(tmp_path / "partial", hide="torch")
    told = said("torch", partial)
    assert f"not installed: torch; install it there: {partial} -m pip install 'torch>=2.9'" in told
    other = light(tmp_path / "other", sitecustomize=_OTHER_CAPSBENCH)
    assert "it runs capsbench 0.1.0 from" in said("numpy", other)


_OTHER_CAPSBENCH = """
import importlib.abc, sys, types

class First(importlib.abc.MetaPathFinder):
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None

harness = types.ModuleType("harness")
harness.__version__, harness.__file__, harness.__path__ = "0.1.0", "/elsewhere/harness/__init__.py", [PLACE]
sys.modules["harness"] = harness
"""


def test_a_version_that_is_not_the_named_one(second: str) -> None:
    assert re.search(
        r'it has numpy \S+, not 1\.99; .* "numpy==1\.99\.\*"; or call it numpy@', said("numpy@1.99", second)
    )


def test_the_suite_comes_before_the_configuration_and_that_before_what_was_made(own: Path) -> None:
    made = own / "made" / "tf"
    made.mkdir(parents=True)
    (made / MARK).write_text('{"state": "complete"}')
    assert of_user()["tf"].python == str(made)
    (own / "config.yaml").write_text("environments:\n  tf: /of/the/user\n  jax@0.9: ~/jax\n")
    assert {name: each.python for name, each in of_user().items()} == {"tf": "/of/the/user", "jax@0.9": "~/jax"}
    found = chosen.chosen("tf", {"tf": "/of/the/suite"}, "my.yaml")
    assert found
    assert (found.python, found.source) == ("/of/the/suite", "environments in my.yaml")
    assert chosen.chosen("torch", {}, "my.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enviroments: {}", r'config\.yaml:1.*unknown key.*did you mean "environments"'),
        ("environments: torch", r'found "torch" \(text\), expected a mapping'),
        ("environments: {torch: 3}", r"environments\.torch.*found 3, expected the path of a Python"),
        ("environments: [", r"config\.yaml"),
        ("- torch", r"config\.yaml"),
        ("\x00", r"config\.yaml"),
    ],
)
def test_a_configuration_that_is_wrong(own: Path, text: str, message: str) -> None:
    (own / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        of_user()


@pytest.mark.parametrize("text", ["", "# nothing\n", "environments:\n", "environments: {}\n"])
def test_a_configuration_of_nothing(own: Path, text: str) -> None:
    (own / "config.yaml").write_text(text)
    assert of_user() == {}


def test_a_configuration_that_cannot_be_read(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        of_user()
    monkeypatch.setenv("CAPSBENCH_CONFIG", str(own / "no.yaml"))
    with pytest.raises(UserError, match=r"CAPSBENCH_CONFIG names .*no\.yaml, which does not exist"):
        of_user()


def test_an_unknown_label(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "config.yaml").write_text("environments: {numpy@1.98: /nowhere}")
    with pytest.raises(UserError) as error:
        Interpreters(["numpy@1.99"])
    assert 'numpy@1.99: there is no environment of that name; did you mean "numpy@1.98"' in str(error.value)
    version = environment()["versions"]["numpy"]
    ours = f"numpy@{version.rpartition('.')[0]}"
    assert Interpreters([ours, "numpy"]).record() == {}, "our own Python has that version"
    assert not_here(ours) is None
    assert "no such file" in (not_here("numpy@1.98") or "")


def test_every_bad_one_is_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        Interpreters(["numpy", "torch"], {"numpy": "/no/python", "torch": "/bin/ls"}, "my.yaml")
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == ["numpy", "torch"]


def test_the_id_stands_for_the_versions_not_for_the_place(second: str) -> None:
    facts = environment()
    there = Interpreters(["numpy@x"], {"numpy@x": second})
    plain = Interpreters(["numpy"])
    assert there.fingerprint(facts, "numpy@x") == plain.fingerprint(facts, "numpy")
    place = Interpreter(path="/a", python="3.12.0", versions={"numpy": "9.9"})
    there._found["numpy@x"] = place  # pyright: ignore
    found = there.fingerprint(facts, "numpy@x")
    assert (found["python"], found["versions"]) == ("3.12.0", {"numpy": "9.9"})


def test_an_interpreter_that_this_node_does_not_have(tmp_path: Path, second: str) -> None:
    def gone(path: str) -> str | None:
        return unusable(path, os.environ)

    assert gone(second) is None
    assert re.fullmatch(r"/no/python cannot be started on \S+: No such file or directory", gone("/no/python") or "")
    foreign = tmp_path / "python"
    foreign.write_bytes(b"\x7fELF of another machine")
    foreign.chmod(0o755)
    assert "Exec format error" in (gone(str(foreign)) or "")


def test_env_create_and_remove(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real environment and a real pip, which is asked for nothing that must be fetched."""
    monkeypatch.setattr(registry, "NEEDS", ())
    monkeypatch.setattr("harness.environments.create._ALSO", ())
    monkeypatch.setattr(registry, "_REQUIREMENTS", {"torch": {"cpu": ("pip>=1",), "gpu": ("pip>=1",)}})
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without uv
    lines: list[str] = []
    place = create(
        Wanted("torch@mine", path=own / "elsewhere", more=("setuptools",), python=sys.executable), lines.append
    )
    assert place == own / "elsewhere"
    assert (place / "bin" / "python").exists()
    assert any("already satisfied" in line for line in lines)
    assert json.loads((place / MARK).read_text())["state"] == "complete"
    assert of_user()["torch@mine"].executable() == str(own / "made" / "torch@mine" / "bin" / "python")
    with pytest.raises(UserError, match="it is there already"):
        create(Wanted("torch@mine", more=("pip",)), lines.append)
    running = subprocess.Popen(
        [of_user()["torch@mine"].executable(), "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout
        running.stdout.readline()  # it has begun
        with pytest.raises(UserError, match=rf"in use by process {running.pid}"):
            remove("torch@mine")
    finally:
        running.communicate(b"\n")
    assert remove("torch@mine") == place
    assert not place.exists()
    assert of_user() == {}
    with pytest.raises(UserError, match="there is no environment torch@mine; none has been made"):
        remove("torch@mine")


def test_what_fails_leaves_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "full").mkdir()
    (own / "full" / "mine").touch()
    with pytest.raises(UserError, match="is there, and not empty"):
        create(Wanted("jax", path=own / "full"), print)
    assert (own / "full" / "mine").exists()
    with pytest.raises(UserError, match=r'"torhc@2\.12" is no framework; did you mean "torch"'):
        create(Wanted("torhc@2.12"), print)
    with pytest.raises(UserError, match='"nightly" is no version'):
        create(Wanted("torch@nightly"), print)
    failing = own / "bin"
    failing.mkdir()
    (failing / "uv").write_text(
        '#!/bin/sh\n[ "$1" = venv ] && exec mkdir -p "$5"/bin\necho "error: no such version" >&2; exit 1\n'
    )
    (failing / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{failing}:/usr/bin:/bin")
    with pytest.raises(
        UserError, match=r"uv pip install failed: error: no such version\. Nothing is left of it"
    ) as error:
        create(Wanted("jax"), print)
    assert error.value.code == 1
    assert of_user() == {}
    assert not (own / "made" / "jax").exists()
    (own / "made" / "jax").mkdir()  # of one that was killed in the middle
    (own / "made" / "jax" / MARK).write_text('{"state": "incomplete"}')
    assert "jax" in of_user()
    with pytest.raises(UserError, match="no such version"):
        create(Wanted("jax"), print)
    assert not (own / "made" / "jax").exists()
    (own / "config.yaml").write_text("environments: {tf: /somewhere}")
    with pytest.raises(UserError, match=r"was not made by capsbench env create; it is named in .*config\.yaml"):
        remove("tf")


def test_the_installer_does_not_see_what_is_installed_elsewhere(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = own / "uv"
    tool.write_text('#!/bin/sh\necho "$1: [$PYTHONPATH] $UV_TORCH_BACKEND"; [ "$1" = venv ]\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{own}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    lines: list[str] = []
    with pytest.raises(UserError):
        create(Wanted("torch"), lines.append)
    assert lines == ["venv: []", "pip: [] cpu"]
    assert probe.is_own(sys.executable)
