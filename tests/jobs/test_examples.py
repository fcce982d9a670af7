"""The examples for clusters, as far as they can be checked without one: structure, shell, and options that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import __version__
from harness.commands.cli import parser
from tests.helpers.run_helpers import ROOT

EXAMPLES = ROOT / "examples" / "cluster"
SCRIPT = EXAMPLES / "slurm.sbatch"


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    document = yaml.safe_load((EXAMPLES / "raycluster.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayCluster")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", document["metadata"]["name"])
    return document["spec"]


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [container for group in groups(spec) for container in group["template"]["spec"]["containers"]]


def test_kuberay_finds_what_it_needs(spec: dict[str, Any]) -> None:
    """KubeRay refuses parameters that are not text, and workers without a name or out of their bounds."""
    assert spec["authOptions"] == {"mode": "token"}
    for group in groups(spec):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), group["rayStartParams"]
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["image"] == f"registry.example.org/capsbench:{__version__}"
            for variable in container["env"]:
                assert isinstance(variable["value"], str), variable
    assert [container["name"] for container in containers(spec)] == ["ray-head", "ray-worker"]
    for group in spec["workerGroupSpecs"]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    [head] = spec["headGroupSpec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in head["ports"]} == {"gcs": 6379, "dashboard": 8265}


def test_pods_have_their_cores_alone(spec: dict[str, Any]) -> None:
    """Class Guaranteed, whole cores; workers that do not yield; shared memory for Ray's object store."""
    for container in containers(spec):
        limits = container["resources"]["limits"]
        assert container["resources"]["requests"] == limits
        assert limits["cpu"].isdigit()
        assert {"name": "RAY_worker_niceness", "value": "0"} in container["env"]
        assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_version_of_ray_is_the_tested_one(spec: dict[str, Any]) -> None:
    assert f"ray=={spec['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def test_ray_takes_the_parameters_of_the_pods(spec: dict[str, Any]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {option for each in scripts.start.params for option in each.opts}
    for group in groups(spec):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.fixture
def steps(tmp_path: Path) -> list[list[str]]:
    """What the script starts, given a Slurm of two nodes that only writes down what it is asked for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "activate").touch()
    (tools / "scontrol").write_text("#!/bin/sh\nprintf 'n1\\nn2\\n'\n")
    (tools / "srun").write_text(
        '#!/bin/bash\nprintf \'%q \' "$@" >> steps\necho >> steps\ncase "$*" in *hostname*) echo 10.0.0.7 fe80::1;; esac\n'
        'echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> tokens\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "CAPSBENCH_VENV": str(tmp_path)}
    env |= {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "16"}
    subprocess.run(["bash", SCRIPT, "my suite.yaml"], cwd=tmp_path, env=env, check=True)
    assert re.fullmatch(r"(token [0-9a-f]{64}\n)\1", (tmp_path / "tokens").read_text())
    return [shlex.split(line) for line in (tmp_path / "steps").read_text().splitlines()]


def test_the_script_starts_what_ray_and_capsbench_know(steps: list[list[str]]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    where, step = steps
    assert where[:3] == ["--nodes=1", "--ntasks=1", "--nodelist=n1"]
    ray, suite = step[step.index("ray") + 1 : step.index("--")], step[step.index("--") + 1 :]
    assert step[: step.index("ray")] == ["--nodes=2", "--ntasks=2"]
    command = scripts.cli.commands[ray[0]]
    own = {option for each in command.params for option in each.opts}
    own |= {option for each in scripts.start.params for option in each.opts}
    assert {word.partition("=")[0] for word in ray if word.startswith("--")} <= own
    assert ray[1:3] == ["--address", "10.0.0.7:6379"]
    assert suite[0] == "capsbench"
    asked = parser(suite[1:]).parse_args(suite[1:])
    assert (str(asked.suite), asked.ray_address) == ("my suite.yaml", "10.0.0.7:6379")
