"""Data sets that other distributions register: found by entry point, listed, used, and named if they are broken."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import data, registry
from harness.commands.doctor import _data
from harness.data import sets
from harness.errors import BrokenPlugin, UserError
from harness.sources import code_version
from harness.spec.trial import DataConfig, Trial
from harness.suite.suite import load_suite
from harness.views.tables import print_data

STRIPES = """
import numpy as np
from harness.data.base import Info, Split

class Stripes:
    info = Info(
        name="stripes", image=(18, 20, 3), classes=2, train=12, validation=4, test=6, embedded=True, source="drawn here",
        licence="CC0", citation="none", class_names=("across", "down"),
    )

    def ensure(self, directory, *, progress):
        pass

    def read(self, directory):
        return self.part(16), self.part(6)

    def part(self, count):
        labels = np.arange(count) % 2
        images = np.zeros((count, 18, 20, 3), np.uint8)
        images[labels == 0, ::2] = 200
        images[labels == 1, :, ::2] = 200
        return Split(images, labels)

SOURCE = Stripes()
"""
SUITE = """
name: stripes
data: {name: stripes}
model: {kernel: 5, conv_channels: 4, primary_types: 2, primary_dim: 4, digit_dim: 4, decoder_units: [8, 8]}
train: {batch: 4}
grid: {impl: [numpy]}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that registers the data set; its module may be changed before it is first used."""
    folder = tmp_path / "site"
    info = folder / "stripes-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[capsbench.data]\nstripes = stripesdata:SOURCE\n")
    (folder / "stripesdata.py").write_text(STRIPES)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "stripesdata", raising=False)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    sets._loaded.cache_clear()
    return folder / "stripesdata.py"


def trial(tmp_path: Path) -> Trial:
    (tmp_path / "stripes.yaml").write_text(SUITE)
    return load_suite(tmp_path / "stripes.yaml").trials(0, lambda _: {})[0]


def test_it_is_a_data_set_as_any_other(plugin: Path, tmp_path: Path) -> None:
    assert data.names() == (*data.NAMES, "stripes")
    assert data.sizes(DataConfig(name="stripes", test=3)) == (12, 4, 3)
    whole = data.load(DataConfig(name="stripes", crop=18, train=2))
    assert whole.train.images.shape == (2, 18, 18, 3)
    row = next(row for row in data.list_datasets(str(tmp_path)) if row["name"] == "stripes")
    assert (row["state"], row["image"], row["test"]) == ("embedded", [18, 20, 3], 6)
    found = trial(tmp_path)
    assert (found.model.image, found.model.classes) == ((18, 20, 3), 2)


def test_a_trial_records_what_reports_need_of_it(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trial(tmp_path)
    monkeypatch.setattr(sets, "_registered", lambda _: {})  # not installed where the report is made
    assert data.sizes(found.data) == (12, 4, 6)
    assert data.class_names(found.data) == ("across", "down")
    with pytest.raises(UserError, match='unknown data set "stripes"'):
        data.load(found.data)


def test_its_code_decides_a_trials_id(plugin: Path, tmp_path: Path) -> None:
    numpy = registry.resolve("numpy")
    before, ours, built_in = trial(tmp_path).id, code_version(numpy, datasets=["stripes"]), code_version(numpy)
    plugin.write_text(STRIPES.replace("200", "201"))
    assert trial(tmp_path).id != before
    assert code_version(numpy, datasets=["stripes"]) != ours
    assert code_version(numpy, datasets=["digits"]) == built_in


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import numpy as np\n", "import nonumpy\n", "importing stripesdata failed: ModuleNotFoundError"),
        ("SOURCE = Stripes()", "SOURCE = 3", "is int; expected an object with info, ensure and read"),
        ('name="stripes"', 'name="bars"', 'its info calls it "bars"; give both the same name'),
        (', class_names=("across", "down")', "", "2 classes, but 10 different class names"),
        ("self.part(16), self.part(6)", "self.part(16)", "read() gave Split; expected two Splits"),
        (
            "self.part(16)",
            "self.part(15)",
            "its training part has images of uint8 15x18x20x3; expected uint8 16x18x20x3",
        ),
        ("% 2", "% 3", "its training part has labels from 0 to 2; expected 0 to 1"),
        ("np.uint8", "float", "images of float64"),
        ("images[labels == 0", "images[labels == none", "read() failed: NameError"),
    ],
)
def test_a_broken_one_is_named(
    plugin: Path, old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in STRIPES
    plugin.write_text(STRIPES.replace(old, new))
    with pytest.raises(BrokenPlugin) as error:
        data.load(DataConfig(name="stripes"))
    assert str(error.value).startswith('data set "stripes": ')
    assert said in str(error.value)
    rows = {row["name"]: row for row in data.list_datasets(str(tmp_path))}
    assert rows["stripes"]["state"] == "broken"
    assert rows["digits"]["state"] == "embedded"
    [check] = [check for check in _data(str(tmp_path)) if check.name == "stripes"]
    assert (check.state, said in check.detail) == ("broken", True)
    from rich.console import Console

    print_data(Console(width=200), list(rows.values()))
    assert said in " ".join(capsys.readouterr().out.split())


def test_built_in_names_cannot_be_taken(plugin: Path) -> None:
    entry = plugin.parent / "stripes-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[capsbench.data]\ndigits = stripesdata:SOURCE\n")
    sets._registered.cache_clear()
    assert data.names() == data.NAMES
    assert data.load(DataConfig(name="digits", train=2, validation=1, test=1)).train.images.shape == (2, 28, 28, 1)
    assert np.unique(data.info("digits").class_names).tolist() == [*"0123456789"]
