"""`capsbench data show` and `data list`: what people see of the data sets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from harness import data
from harness.commands.cli import main
from harness.data import affnist_gen
from harness.views.sheet import COLUMNS, _row
from tests.helpers.data_helpers import Few


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return (end.value.code, *capfd.readouterr())  # type: ignore[return-value]


def test_show(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "data", "show", "digits", "--out", str(tmp_path / "in" / "d.png"), "--json")
    assert code == 0
    document = json.loads(out)
    assert document["name"] == "digits"
    assert "scikit-learn" in document["provenance"]
    assert set(document["splits"]) == {"train", "validation", "test"}
    for part, split in document["splits"].items():
        assert split["sheet"] == str(tmp_path / "in" / f"d-{part}.png")
        assert split["sheet"] in err
        assert sum(split["per_class"].values()) == split["images"]
        sheet = imread(split["sheet"])
        assert sheet.shape[1] > 1000
        assert sheet.min() < 0.1  # black
        assert sheet.max() == 1
    assert list(document["splits"]["test"]["per_class"]) == [str(digit) for digit in range(10)]
    assert len({Path(split["sheet"]).read_bytes() for split in document["splits"].values()}) == 3


def test_show_of_a_test_part_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = dataclasses.replace(affnist_gen.SOURCE.info, train=9 * 32, validation=3 * 32, test=4 * 32)
    monkeypatch.setattr(affnist_gen, "SOURCE", affnist_gen.Generated(info, Few()))
    affnist_gen.SOURCE.ensure_test(tmp_path, progress=False)
    rows = {row["name"]: row["state"] for row in data.list_datasets(str(tmp_path))}
    assert rows["affnist-gen"] == "test only"
    code, out, _ = run(
        capfd, "data", "show", "affnist-gen", "--dir", str(tmp_path), "--out", str(tmp_path / "g.png"), "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert list(document["splits"]) == ["test"]
    assert document["splits"]["test"]["images"] == 4 * 32
    assert document["provenance"].endswith("128 test images; the training part is not here")
    assert data.fetch("affnist-gen", str(tmp_path), progress=False)["state"] == "cached"


def test_a_row_of_a_sheet() -> None:
    images = np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1)
    row = _row(images, (3, 4, 1))
    assert row.shape == (3, COLUMNS * 5 - 1)
    assert np.array_equal(row[:, :4], images[0, ..., 0])
    assert np.array_equal(row[:, 5:9], images[1, ..., 0])
    assert (row[:, 9:] == 128).all()
    assert _row(np.zeros((1, 3, 4, 3), np.uint8), (3, 4, 3)).shape == (3, COLUMNS * 5 - 1, 3)


def test_show_of_what_is_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPSBENCH_DATA", str(tmp_path / "none"))
    for name, words in (
        ("kmnist", "4 of 4 files are missing"),
        ("affnist", "`capsbench data fetch affnist`"),
        ("affnist-gen", "`capsbench data fetch affnist-gen` makes it"),
        ("afnist", 'did you mean "affnist"'),
    ):
        code, out, err = run(capfd, "data", "show", name)
        assert (code, out) == (2, "")
        assert words in err
        assert "Traceback" not in err
    (tmp_path / "file").touch()
    code, _, err = run(capfd, "data", "show", "digits", "--out", str(tmp_path / "file" / "d.png"))
    assert code == 2
    assert "choose a place with --out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_list_shows_every_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "data", "list", "--dir", str(tmp_path), "--json")
    assert code == 0
    found = {row["name"]: row["state"] for row in json.loads(out)["datasets"]}
    assert tuple(found) == data.NAMES
    assert found.pop("digits") == "embedded"
    assert set(found.values()) == {"absent"}
    code, out, _ = run(capfd, "data", "list", "--dir", str(tmp_path))
    assert code == 0
    assert all(name in out for name in data.NAMES)
    assert out.count("data fetch NAME") == 1
