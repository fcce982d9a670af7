"""Limits of control groups, read from trees of files as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine import cgroups

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def tree(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A file system with these files below /sys/fs/cgroup."""
    contents = {"proc/self/cgroup": groups, "proc/self/mountinfo": f"22 1 0:21 / /proc rw - proc proc rw\n{mounts}"}
    contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_version_2_counts_every_level(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "0::/pod/container\n",
        V2.format(top="/"),
        {
            "pod/cpu.max": "150000 100000\n",
            "pod/container/cpu.max": "max 100000\n",
            "pod/memory.max": "max\n",
            "pod/container/memory.max": "4000000000\n",
            "pod/container/memory.current": "3000000000\n",
            "pod/container/memory.stat": "anon 900000000\ninactive_file 2000000000\n",
            "pod/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 2500000\n",
            "pod/container/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 0\nthrottled_usec 0\n",
        },
    )
    assert cgroups.cpu_quota(root) == 1.5
    assert cgroups.memory_limit(root) == 4_000_000_000
    assert cgroups.memory_left(root) == 3_000_000_000  # what files have cached can be dropped
    assert cgroups.throttling(root) == (4, 2.5)


def test_version_1_counts_every_level_of_each_controller(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "5:cpu,cpuacct:/slurm/job_7\n4:memory:/slurm/job_7/step_0\n1:name=systemd:/x\n0::/\n",
        V1.format(top="/"),
        {
            "cpu,cpuacct/slurm/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/slurm/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "400000\n",
            "cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/slurm/job_7/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n",
            "memory/slurm/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/slurm/job_7/memory.limit_in_bytes": "8000\n",
            "memory/slurm/job_7/memory.usage_in_bytes": "5000\n",
            "memory/slurm/job_7/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
            "memory/slurm/job_7/step_0/memory.limit_in_bytes": "9000\n",
            "memory/slurm/job_7/step_0/memory.usage_in_bytes": "8900\n",
        },
    )
    assert cgroups.cpu_quota(root) == 4
    assert cgroups.memory_limit(root) == 8000
    assert cgroups.memory_left(root) == 100
    assert cgroups.throttling(root) == (3, 1.5)


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/", "/"),  # a container with a namespace of its own
        ("/docker/abc", "/docker/abc"),  # one that is named as its host names it
        ("/../../elsewhere", "/"),  # a process of another namespace
        ("/docker/abc", "/other"),
    ],
)
def test_a_container_s_own_group_is_at_the_top_of_what_it_sees(group: str, top: str, tmp_path: Path) -> None:
    files = {"cpu.max": "200000 100000\n", "memory.max": "5000\n"}
    root = tree(tmp_path, f"0::{group}\n", V2.format(top=top), files)
    assert (cgroups.cpu_quota(root), cgroups.memory_limit(root)) == (2, 5000)


def test_a_group_below_the_container_s(tmp_path: Path) -> None:
    files = {"inner/cpu.max": "100000 100000\n", "cpu.max": "300000 100000\n"}
    root = tree(tmp_path, "0::/docker/abc/inner\n", V2.format(top="/docker/abc"), files)
    assert cgroups.cpu_quota(root) == 1


def test_a_place_with_a_space(tmp_path: Path) -> None:
    mount = "30 23 0:26 / /mnt/control\\040groups rw - cgroup2 cgroup2 rw\n"
    root = tree(tmp_path, "0::/\n", mount, {})
    (root / "mnt/control groups").mkdir(parents=True)
    (root / "mnt/control groups/cpu.max").write_text("50000 100000\n")
    assert cgroups.cpu_quota(root) == 0.5


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("", {}),
        ("0::/\n", {}),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n", "cpu.stat": "usage_usec 7\n"}),
        ("0::/\n", {"cpu.max": "", "memory.max": "much\n", "cpu.stat": ""}),
        ("nonsense", {"cpu.max": "1 1\n"}),
    ],
)
def test_no_limit_is_none(groups: str, files: dict[str, str], tmp_path: Path) -> None:
    root = tree(tmp_path, groups, V2.format(top="/"), files)
    found = cgroups.cpu_quota(root), cgroups.memory_limit(root), cgroups.memory_left(root), cgroups.throttling(root)
    assert found == (None, None, None, None)


def test_this_machine_is_read_without_harm() -> None:
    quota, limit = cgroups.cpu_quota(), cgroups.memory_limit()
    assert quota is None or quota > 0
    assert limit is None or limit > 0
