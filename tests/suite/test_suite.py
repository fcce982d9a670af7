"""Suites: strict reading, overrides, expansion."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import data, registry
from harness.errors import UserError
from harness.spec.trial import Trial
from harness.suite.suite import MAX_TRIALS, Suite, load_suite

SUITES = Path(__file__).parents[2] / "suites"
GOOD = """\
name: small
question: Does it work?
data: {name: digits}
model:
  decoder_units: [64, 128]
train:
  batch: 32
  lr: 1e-3
grid:
  impl: [torch, jax]
  model.routing: [1, 3]
  seed: [0, 1]
quick:
  data.train: 100
  grid.seed: [0]
"""


SINGLY = """\
name: small
data: {name: digits}
vary: singly
grid:
  impl: [torch, jax]
  model.routing: [3, 1, 5]
  data.canvas: [28, 36]
  seed: [0, 1]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str | bytes, name: str = "x.yaml") -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def refusal(text: str | bytes, overrides: Sequence[str] = (), quick: bool = False) -> list[str]:
    """The lines of the refusal of a suite file with this text; nothing but the file may be left behind."""
    path = write(text)
    with pytest.raises(UserError) as caught:
        load_suite(path, overrides, quick)
    assert [file.name for file in Path().iterdir()] == ["x.yaml"]
    return str(caught.value).split("\n")


def trials(suite: Suite, gpus: int = 0) -> tuple[Trial, ...]:
    return suite.trials(gpus, lambda impl: {"python": "3.11", "impl": impl})


def minimal(*lines: str, **sections: str) -> str:
    """A good suite with these sections, and further lines from line 4 on."""
    known = {"name": "small", "data": "{name: digits}", "grid": "{impl: [torch]}"} | sections
    return "\n".join([*(f"{key}: {value}" for key, value in known.items()), *lines]) + "\n"


# What a good suite means


def test_defaults_are_all_but_three_keys(folder: Path) -> None:
    suite = load_suite(write(minimal()))
    assert (suite.name, suite.question, suite.data.name) == ("small", "", "digits")
    assert suite.grid == {"seed": (0,), "impl": ("torch",)}
    assert (suite.model.routing, suite.train.epochs, suite.train.lr, suite.resources.gpus) == (3, 10, 0.001, "auto")
    assert suite.source == minimal()
    assert suite.path == "x.yaml"
    assert not suite.quick
    assert suite.overrides == ()


def test_expansion_order_seed_slowest_impl_fastest(folder: Path) -> None:
    found = [(t.seed, t.params, t.impl) for t in trials(load_suite(write(GOOD)))]
    assert found == [
        (seed, {"model.routing": routing}, impl)
        for seed, routing, impl in itertools.product((0, 1), (1, 3), ("torch", "jax"))
    ]


def test_trials_are_resolved(folder: Path) -> None:
    trial = trials(load_suite(write(GOOD)))[2]
    assert (trial.impl, trial.seed, trial.suite, trial.cpus, trial.gpus) == ("torch", 0, "small", 2, 0)
    assert (trial.model.routing, trial.model.image, trial.model.classes) == (3, (28, 28, 1), 10)
    assert (trial.model.decoder_units, trial.train.batch, trial.train.lr) == ((64, 128), 32, 0.001)
    assert re.fullmatch("[0-9a-f]{12}", trial.id)
    assert Trial.model_validate_json(trial.model_dump_json()) == trial


def test_quick_replaces_values_and_lists(folder: Path) -> None:
    path = write(GOOD)
    quick, full = load_suite(path, quick=True), load_suite(path)
    assert (quick.data.train, quick.grid["seed"], len(trials(quick)), quick.quick) == (100, (0,), 4, True)
    assert (full.data.train, full.grid["seed"], len(trials(full)), full.quick) == (None, (0, 1), 8, False)


def test_overrides_come_after_quick(folder: Path) -> None:
    suite = load_suite(write(GOOD), ["data.train=200", "seed=5,6"], quick=True)
    assert (suite.data.train, suite.grid["seed"]) == (200, (5, 6))
    assert suite.overrides == ("data.train=200", "seed=5,6")


def test_one_key_at_a_time_around_the_first_values(folder: Path) -> None:
    found = trials(load_suite(write(SINGLY)))
    points = [(3, 28), (1, 28), (5, 28), (3, 36)]
    assert [(t.seed, t.model.routing, t.data.canvas, t.impl) for t in found] == [
        (seed, *point, impl) for seed, point, impl in itertools.product((0, 1), points, ("torch", "jax"))
    ]
    assert {t.model.image for t in found} == {(28, 28, 1), (36, 36, 1)}
    assert found[-1].params == {"model.routing": 3, "data.canvas": 36}
    assert len(trials(load_suite(write(SINGLY), ["vary=together", "seed=0"]))) == 2 * 3 * 2
    moved = trials(load_suite(write(SINGLY), ["model.routing=2,4", "seed=0", "impl=torch"]))
    assert [(t.model.routing, t.data.canvas) for t in moved] == [(2, 28), (4, 28), (2, 36)]


def test_one_key_at_a_time_is_many_fewer_trials(folder: Path) -> None:
    values = ", ".join(map(str, range(1, 151)))
    grid = f"{{impl: [torch], train.epochs: [{values}], model.digit_dim: [{values}]}}"
    [refused] = refusal(minimal(grid=grid))
    assert "22,500 trials" in refused
    assert len(trials(load_suite(write(minimal("vary: singly", grid=grid))))) == 299


def test_a_canvas_too_small(folder: Path) -> None:
    [line] = refusal(minimal(data="{name: digits, canvas: 20}"))
    assert line.startswith("x.yaml:2: data.canvas: 20 pixels a side, but the images of digits are 28x28: at least 28")


@pytest.mark.parametrize(
    ("override", "key", "values"),
    [
        ("model.routing=2", "model.routing", (2,)),
        ("model.routing=2,5", "model.routing", (2, 5)),
        ("model.routing=[2, 5]", "model.routing", (2, 5)),
        (" model.routing = 2 , 5 ", "model.routing", (2, 5)),
        ("grid.model.routing=2,5", "model.routing", (2, 5)),
        ("impl=tf", "impl", ("tf",)),
        ("grid.impl=torch,jax", "impl", ("torch", "jax")),
        ("seed=0,7", "seed", (0, 7)),
        ("grid.seed=4", "seed", (4,)),
        ("train.batch=16,64", "train.batch", (16, 64)),
        ("train.lr_decay.rate=1,0.9", "train.lr_decay.rate", (1.0, 0.9)),
        ("train.lr=1e-3,2E-4", "train.lr", (0.001, 0.0002)),
        ("runtime.compile=yes,off", "runtime.compile", (True, False)),
        ("runtime.precision=fp32,fp64", "runtime.precision", ("fp32", "fp64")),
        ("data.train=50,null", "data.train", (50, None)),
        ("data.augment.shift=0,2", "data.augment.shift", (0, 2)),
        ("parity.gate=true,false", "parity.gate", (True, False)),
        ("resources.gpus=0,auto", "resources.gpus", (0, "auto")),
        ("model.decoder_units=[8, 16],[32, 64]", "model.decoder_units", ((8, 16), (32, 64))),
        ("data.name=digits,mnist", "data.name", ("digits", "mnist")),
    ],
)
def test_override_of_the_grid(folder: Path, override: str, key: str, values: tuple[object, ...]) -> None:
    suite = load_suite(write(GOOD), [override])
    assert suite.grid[key] == values
    assert [type(found) for found in suite.grid[key]] == [type(value) for value in values]
    others = {"impl": ("torch", "jax"), "model.routing": (1, 3), "seed": (0, 1)} | {key: values}
    assert suite.grid == others


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.epochs=2", 2),
        ("train.batch=1_000", 1000),
        ("train.lr=1", 1.0),
        ("train.lr=1e-3", 0.001),
        ("train.lr=5.e-4", 0.0005),
        ("train.lr_decay.floor=0", 0.0),
        ("model.decoder=no", False),
        ("model.decoder_units=[512, 1024]", (512, 1024)),
        ("model.decoder_units=512,1024", (512, 1024)),
        ("data.validation=0", 0),
        ("data.test=null", None),
        ("data.dir=/data/a,b #1", "/data/a,b #1"),
        ("resources.gpus=auto", "auto"),
        ("parity.margin_pct=1", 1.0),
        ("parity.margin_pct=0.25", 0.25),
        ("name=other", "other"),
        ("question=Why: this, and that?", "Why: this, and that?"),
    ],
)
def test_override_of_one_value(folder: Path, override: str, value: object) -> None:
    suite = load_suite(write(GOOD), [override])
    found: object = suite
    for name in override.partition("=")[0].split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)
    assert set(suite.grid) == {"impl", "model.routing", "seed"}


@pytest.mark.parametrize(
    ("written", "value"),
    [("yes", True), ("On", True), ("true", True), ("no", False), ("OFF", False), ("False", False)],
)
def test_booleans(folder: Path, written: str, value: bool) -> None:
    assert load_suite(write(minimal(runtime=f"{{compile: {written}}}"))).runtime.compile is value


@pytest.mark.parametrize(("written", "value"), [("1e-3", 1e-3), (".5", 0.5), ("2", 2.0), ("1_0.5E+1", 105.0)])
def test_floats(folder: Path, written: str, value: float) -> None:
    lr = load_suite(write(minimal(train=f"{{lr: {written}}}"))).train.lr
    assert lr == value
    assert isinstance(lr, float)


def test_integers_are_decimal(folder: Path) -> None:
    assert load_suite(write(minimal(train="{batch: 010}"))).train.batch == 10  # eight in YAML 1.1


def test_text_stays_text(folder: Path) -> None:
    suite = load_suite(write(minimal(name="2026-10-01", question="'12'", data="{name: digits, dir: 1:30}")))
    assert (suite.name, suite.question, suite.data.dir) == ("2026-10-01", "12", "1:30")


def test_a_section_with_all_keys_commented_out_is_its_defaults(folder: Path) -> None:
    assert load_suite(write(minimal("model:", "  # routing: 5", "quick:"))).model.routing == 3


def test_anchors_aliases_and_merges(folder: Path) -> None:
    text = minimal(train="&t {batch: &b 16, epochs: 2}", resources="{cpus: *b}", quick="{train.batch: *b}")
    assert load_suite(write(text)).resources.cpus == 16
    text = minimal(model="{<<: &m {routing: 5, kernel: 7}, routing: 2}")
    model = load_suite(write(text)).model
    assert (model.routing, model.kernel) == (2, 7)


def test_gpus_auto_means_one_where_there_are_any_and_the_implementation_can(folder: Path) -> None:
    suite = load_suite(write(minimal(grid="{impl: [torch, numpy]}")))
    assert [trial.gpus for trial in trials(suite, gpus=0)] == [0, 0]
    assert [trial.gpus for trial in trials(suite, gpus=4)] == [1, 0]
    assert trials(suite, gpus=4)[0].runtime_spec().device == "gpu"


def test_more_gpus_than_there_are(folder: Path) -> None:
    suite = load_suite(write(minimal(resources="{gpus: 2}")))
    assert [trial.gpus for trial in trials(suite, gpus=2)] == [2]
    with pytest.raises(UserError, match=r"^x\.yaml: resources\.gpus: found 2 for each trial, but there are 1"):
        trials(suite, gpus=1)


def test_a_type_of_gpu_is_asked_for_by_trials_on_gpus_alone(folder: Path) -> None:
    suite = load_suite(write(minimal("resources: {gpu_type: H100, exclusive: node}", grid="{impl: [torch, numpy]}")))
    assert [(each.gpus, each.gpu_type, each.exclusive) for each in trials(suite, gpus=2)] == [
        (1, "H100", "node"), (0, None, "node"),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"^x\.yaml: resources\.gpu_type: found H100, but there is no GPU"):
        trials(suite, gpus=0)


def test_values_that_mean_the_same_trial(folder: Path) -> None:
    suite = load_suite(write(minimal(grid="{impl: [torch], resources.gpus: [0, auto]}")))
    assert len(trials(suite, gpus=1)) == 2
    with pytest.raises(UserError, match=r"^x\.yaml: grid: .*drop one"):
        trials(suite, gpus=0)


def test_ids_tell_trials_apart_and_nothing_else(folder: Path) -> None:
    def ids(text: str, *overrides: str) -> list[str]:
        return [trial.id for trial in trials(load_suite(write(text), overrides))]

    base = ids(GOOD)
    assert len(set(base)) == 8
    assert ids(GOOD.replace("1e-3", "0.001")) == base
    assert ids(GOOD.replace("1e-3", "1.0e-3")) == base
    assert ids(GOOD, "name=other", "question=Else?", "data.dir=/elsewhere", "parity.margin_pct=0.5") == base
    assert ids(GOOD, "runtime.retries=5", "runtime.hang_s=3600") == base
    assert set(ids(GOOD, "seed=1,0")) == set(base)
    assert set(ids(GOOD, "model.routing=1", "seed=0")) < set(base)
    assert not set(ids(GOOD, "train.lr=0.002")) & set(base)
    alone = ids(minimal(model="{routing: 3}", train="{batch: 32}"))
    assert alone == ids(minimal(train="{batch: 32}", grid="{impl: [torch], model.routing: [3]}"))


DECODER = "train: {decoder: {lr: 0.01}}"


@pytest.mark.parametrize(
    ("lines", "grid", "overrides"),
    [
        ([DECODER], "model.decoder: [false, true]", []),
        ([DECODER], "model.kind: [cnn, capsnet]", []),
        ([DECODER], "model.kind: [capsnet]", ["model.kind=cnn"]),
        ([DECODER, "model: {kind: capsnet, decoder_units: [8, 8]}"], "seed: [0]", ["model.decoder=no"]),
        (["train: {lr_decay: {rate: 0.9}}"], "train.lr_decay.kind: [constant, epoch]", []),
        (["train: {lr_decay: {rate: 0.9, steps: 7, floor: 0}}"], "seed: [0]", ["train.lr_decay.kind=constant"]),
    ],
)
def test_what_one_trial_needs_may_stand_beside_others(
    folder: Path, lines: list[str], grid: str, overrides: list[str]
) -> None:
    """Nor is a file's own setting a mistake where -s asks for what has no use for it. There it is as if never given."""
    path = write(minimal(*lines, grid=f"{{impl: [torch], {grid}}}"))
    first = trials(load_suite(path, overrides))[0]
    bare = minimal(grid=f"{{impl: [torch], {grid}}}")
    assert first.id == trials(load_suite(write(bare), overrides))[0].id
    asked = [*overrides, "train.decoder.lr=0.01" if DECODER in lines else "train.lr_decay.rate=0.9"]
    if overrides:
        [line] = refusal(bare, asked)
        assert line.startswith(f"-s {asked[-1]}: ")
    else:
        assert trials(load_suite(path, asked))[0].id == first.id


def test_settings_without_effect_multiply_no_trials(folder: Path) -> None:
    grid = (
        "{impl: [torch], train.lr_decay.kind: [constant, staircase, epoch], train.lr_decay.rate: [0.9, 0.8],"
        " train.lr_decay.steps: [5, 6]}"
    )
    found = trials(load_suite(write(minimal(grid=grid))))
    decays = [
        (t.train.lr_decay.kind, *(t.params.get(f"train.lr_decay.{key}") for key in ("rate", "steps"))) for t in found
    ]
    assert decays == [
        ("constant", None, None),
        *(("staircase", rate, steps) for rate in (0.9, 0.8) for steps in (5, 6)),
        ("epoch", 0.9, None),
        ("epoch", 0.8, None),
    ]


RECIPES = [f"recipes/{path.stem}" for path in sorted((SUITES / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "compact",
        "compact-affnist",
        "compact-multimnist",
        "mnist",
        "routing",
        "affnist",
        "affnist-paper-stop",
        "paper",
        "multimnist",
        "svhn",
        "cifar10",
        *RECIPES,
    ],
)
def test_shipped_suites(name: str) -> None:
    path = SUITES / f"{name}.yaml"
    full, quick = load_suite(path), load_suite(path, quick=True)
    assert full.name == path.stem
    assert full.question.endswith("?")
    assert path.read_text().startswith("# ")
    for suite in (full, quick):
        in_one = suite is quick and name == "paper"  # too many models for a quick look at all three
        assert suite.grid["impl"] == (("torch",) if in_one else ("torch", "tf", "jax"))
        assert {trial.train.batch for trial in trials(suite)} == {suite.train.batch}
    assert quick.grid["seed"] == (0,)
    assert quick.train.epochs < full.train.epochs


def test_shipped_affnist_is_the_papers_experiment() -> None:
    validated, as_paper = (load_suite(SUITES / f"{name}.yaml") for name in ("affnist", "affnist-paper-stop"))
    assert {trial.model.kind for trial in trials(validated)} == {"capsnet", "cnn"}
    assert {trial.train.stop.images for trial in trials(validated)} == {"validation"}
    assert {trial.train.stop.images for trial in trials(as_paper)} == {"test"}
    of_cnn = load_suite(as_paper.path, ["model.kind=cnn", "train.stop.accuracy_pct=99.22"])
    for suite in (validated, as_paper, of_cnn):
        assert {(t.data.name, t.data.test_from) for t in trials(suite)} == {("mnist-expanded", "affnist-gen")}


def test_shipped_routing_counts() -> None:
    path = SUITES / "routing.yaml"
    assert load_suite(path).grid["model.routing"] == (1, 2, 3, 5, 7, 10)
    assert load_suite(path, quick=True).grid["model.routing"] == (1, 3)
    assert len(trials(load_suite(path))) == 54


def test_reading_imports_no_framework() -> None:
    code = (
        "import sys; from harness.suite.suite import load_suite\n"
        f"load_suite({str(SUITES / 'mnist.yaml')!r}).trials(0, lambda impl: {{}})\n"
        "print(sorted({'torch', 'tensorflow', 'keras', 'jax', 'ray', 'mlflow', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SUITES.parent, timeout=60
    )
    assert done.stdout.strip() == "[]"


# What a bad one is told: (text, line or None, all that its message must contain)

BAD: dict[str, tuple[str | bytes, int | None, tuple[str, ...]]] = {
    "unknown key": (
        minimal("model: {rooting: 3}"),
        4,
        (
            "model.rooting: unknown key",
            'did you mean "routing"?',
            "cnn_units, conv_channels, decoder,",
        ),
    ),
    "unknown section": (minimal("modle: {}"), 4, ("modle: unknown key", 'did you mean "model"?')),
    "unknown nested key": (
        minimal("train:", "  lr_decay: {rat: 1}"),
        5,
        ("train.lr_decay.rat: unknown key", 'did you mean "rate"?'),
    ),
    "key of another section": (
        minimal("train: {routing: 1}"),
        4,
        ('train.routing: unknown key; did you mean "model.',),
    ),
    "impl outside the grid": (minimal("impl: torch"), 4, ('impl: unknown key; did you mean "grid.impl"?',)),
    "text for a number": (
        minimal("train:", "  batch: big"),
        5,
        ('train.batch: found "big" (text), expected a whole number of at least 1',),
    ),
    "quoted number": (minimal("train: {batch: '64'}"), 4, ('train.batch: found "64" (text), expected a whole number',)),
    "fraction for a whole number": (minimal("train: {epochs: 2.5}"), 4, ("train.epochs: found 2.5, expected a whole",)),
    "boolean for a number": (
        minimal("train: {lr: yes}"),
        4,
        ("train.lr: found yes (a boolean), expected a number above",),
    ),
    "number for a boolean": (minimal("model: {decoder: 1}"), 4, ("model.decoder: found 1, expected true or false",)),
    "number for text": (minimal("question: 12"), 4, ("question: found 12, expected text",)),
    "nothing for a number": (minimal("train: {batch: }"), 4, ("train.batch: found nothing (null), expected a whole",)),
    "list for a number": (
        minimal("train: {batch: [1, 2]}"),
        4,
        ("train.batch: found [1, 2] (a list), expected a whole",),
    ),
    "mapping for a number": (
        minimal("train: {batch: {a: 1}}"),
        4,
        ("train.batch: found a mapping", "expected a whole"),
    ),
    "value for a section": (
        minimal("train: fast"),
        4,
        ('train: found "fast" (text), expected a section of lr, lr_decay',),
    ),
    "list of the wrong length": (
        minimal("model: {decoder_units: [512]}"),
        4,
        ("model.decoder_units: found [512] (a list), expected a list of 2, each a whole number of at least 1",),
    ),
    "wrong choice": (
        minimal("runtime: {precision: fp23}"),
        4,
        ('runtime.precision: found "fp23" (text); did you mean "fp32"? Valid: bf16, fp32, fp64, tf32.',),
    ),
    "routing 0": (minimal("model: {routing: 0}"), 4, ("model.routing: found 0, expected a whole number from 1 to 10",)),
    "routing 11": (
        minimal("model: {routing: 11}"),
        4,
        ("model.routing: found 11, expected a whole number from 1 to 10",),
    ),
    "negative rate": (minimal("train: {lr: -1e-3}"), 4, ("train.lr: found -1e-3, expected a number above 0",)),
    "infinite": (minimal("train: {lr: .inf}"), 4, ('train.lr: found ".inf" (text), expected a number above 0',)),
    "overflow": (minimal("train: {lr: 1e999}"), 4, ('"1e999" cannot be read as float',)),
    "endless integer": (minimal(f"train: {{batch: {'9' * 5000}}}"), 4, ("cannot be read as int",)),
    "rate above 1": (
        minimal("train: {lr_decay: {rate: 2}}"),
        4,
        ("train.lr_decay.rate: found 2, expected a number above 0 and at most 1",),
    ),
    "gpus": (
        minimal("resources: {gpus: some}"),
        4,
        ('resources.gpus: found "some" (text), expected a whole', "or auto"),
    ),
    "bad name": (minimal(name="../up"), 1, ('name: found "../up" (text), expected a name of at most 64',)),
    "unknown data set": (
        minimal(data="{name: minst}"),
        2,
        (
            'data.name: unknown data set "minst"; did you mean "mnist"?',
            "Valid: affnist, affnist-gen, cifar10, csv, digits, ",
        ),
    ),
    "unknown implementation": (
        minimal(grid="{impl: [torhc]}"),
        3,
        (': grid.impl: unknown implementation "torhc"; did you mean "torch"? Valid: jax, numpy,',),
    ),
    "implementation by its package": (minimal(grid="{impl: [tensorflow]}"), 3, ('did you mean "tf"?',)),
    "implementation's module is not there": (
        minimal(grid="{impl: ['nosuch.place:Caps']}"),
        3,
        (': grid.impl: implementation "nosuch.place:Caps": no package "nosuch"',),
    ),
    "empty grid": (minimal(grid="{impl: []}"), 3, (": grid.impl: found an empty list, expected at least one value",)),
    "grid value, not a list": (
        minimal(grid="{impl: torch}"),
        3,
        ('grid.impl: found "torch" (text)', "such as [torch]"),
    ),
    "grid of sections": (
        minimal(grid="{impl: [torch], train: {lr: [1]}}"),
        3,
        ("grid.train: a section, not a value; name one of its keys: train.lr,",),
    ),
    "unknown grid key": (
        minimal(grid="{impl: [torch], model.rooting: [1]}"),
        3,
        ("grid.model.rooting: unknown key", 'did you mean "routing"?'),
    ),
    "grid over what changes nothing": (
        minimal(grid="{impl: [torch], data.dir: [a, b]}"),
        3,
        ("grid.data.dir: cannot be varied: it changes no result",),
    ),
    "value in a grid": (
        minimal(grid="\n  impl: [torch]\n  model.routing:\n    - 1\n    - 30"),
        7,
        (": grid.model.routing: found 30, expected a whole number from 1 to 10",),
    ),
    "twice in a grid": (
        minimal(grid="{impl: [torch, jax, torch]}"),
        3,
        (": grid.impl: torch is there twice; drop one",),
    ),
    "twice, spelt differently": (
        minimal(grid="{impl: [torch], train.lr: [1e-3, 0.001]}"),
        3,
        (": grid.train.lr: 0.001 is there twice; drop one",),
    ),
    "null twice": (minimal(grid="{impl: [torch], data.test: [~, null]}"), 3, ("data.test: null is there twice",)),
    "negative seed": (
        minimal(grid="{impl: [torch], seed: [-1]}"),
        3,
        (": grid.seed: found -1, expected a whole number from 0",),
    ),
    "seed of more than 63 bits": (
        minimal(grid=f"{{impl: [torch], seed: [{2**63}]}}"),
        3,
        ("seed: found 9223372036854775808",),
    ),
    "in a section and the grid": (
        minimal("model: {routing: 3}", grid="{impl: [torch], model.routing: [1]}"),
        3,
        ("grid.model.routing: also set at x.yaml:4; keep one of the two",),
    ),
    "too many trials": (
        minimal(grid=f"{{impl: [torch], seed: {list(range(200))}, train.batch: {list(range(1, 101))}}}"),
        None,
        (f"grid: 20,000 trials; at most {MAX_TRIALS:,} are allowed",),
    ),
    "unknown quick key": (
        minimal("quick:", "  data.trian: 3"),
        5,
        ("data.trian: unknown key", 'did you mean "train"?'),
    ),
    "wrong quick value": (minimal("quick: {train.epochs: 0}"), 4, ("train.epochs: found 0, expected a whole number",)),
    "quick says it twice": (
        minimal("quick:", "  grid.seed: [0]", "  seed: [1]"),
        6,
        ("seed: already given by x.yaml:5",),
    ),
    "quick is no mapping": (minimal("quick: true"), 4, ("quick: found true (a boolean)",)),
    "batch larger than the data": (
        minimal("train: {batch: 101}", data="{name: digits, train: 100}"),
        4,
        ("train.batch: found 101, more than the 100 training images",),
    ),
    "more images than there are": (
        minimal(data="{name: digits, train: 5000}"),
        2,
        ("data.train: 5,000 images asked for", "1,257"),
    ),
    "kernel too large": (
        minimal("model:", "  kernel: 16"),
        5,
        ("model.kernel: images of 28x28 are too small for two 16x16 convolutions", "at least 31x31 pixels"),
    ),
    "decoder's optimiser without a decoder": (
        minimal("model: {decoder: false}", "train:", "  decoder:", "    lr: 1e-3"),
        7,
        ("train.decoder.lr: found 1e-3, but no model here has a decoder; drop it, or set model.decoder to true",),
    ),
    "decoder's optimiser of a CNN": (
        minimal("model: {kind: cnn}", "train: {decoder: {weight_decay: 0.1}}"),
        5,
        (
            'train.decoder.weight_decay: found 0.1, but models of kind "cnn" have no decoder',
            "set model.kind to capsnet",
        ),
    ),
    "decoder's size without a decoder": (
        minimal("model: {decoder: false, decoder_units: [8, 8]}"),
        4,
        ("model.decoder_units: found [8, 8] (a list), but no model here has a decoder; drop it",),
    ),
    "steps of a schedule by epochs": (
        minimal("train: {lr_decay: {kind: epoch, steps: 2000}}"),
        4,
        (
            'train.lr_decay.steps: found 2000, but kind "epoch" has no such setting; drop it, or set train.lr_decay.kind to ',
            "to exponential or staircase",
        ),
    ),
    "steps varied of schedules that have none": (
        minimal(
            grid="{impl: [torch], train.lr_decay.kind: [epoch, constant], train.lr_decay.steps: [5, 6]}",
        ),
        3,
        (
            ': grid.train.lr_decay.steps: found [5, 6] (a list), but kind "constant or epoch" has no such setting; drop it',
        ),
    ),
    "rate of a constant": (
        minimal("train: {lr_decay: {kind: constant, rate: 0.9}}"),
        4,
        (
            'train.lr_decay.rate: found 0.9, but kind "constant" has no such setting',
            "epoch or exponential or staircase",
        ),
    ),
    "floor of a constant": (
        minimal("train: {lr_decay: {kind: constant, floor: 0}}"),
        4,
        ('train.lr_decay.floor: found 0, but kind "constant" has no such setting; drop it',),
    ),
    "gpu for a cpu implementation": (
        minimal("resources: {gpus: 1}", grid="{impl: [numpy]}"),
        4,
        ('resources.gpus: found 1, but "numpy" runs on the CPU only',),
    ),
    "type of no gpu": (
        minimal("resources: {gpus: 0, gpu_type: H100}"),
        4,
        ("resources.gpu_type: found H100, but resources.gpus is 0; expected auto or 1",),
    ),
    "exclusive what": (
        minimal("resources: {exclusive: cluster}"),
        4,
        ('resources.exclusive: found "cluster" (text), expected node, or nothing',),
    ),
    "no name": ("data: {name: digits}\ngrid: {impl: [torch]}\n", None, ("name: missing; expected a name of",)),
    "no data set": ("name: a\ndata: {train: 9}\ngrid: {impl: [torch]}\n", None, ("data.name: missing; expected text",)),
    "no implementation": (
        "name: a\ndata: {name: digits}\n",
        None,
        ("grid.impl: missing; expected a list", "[torch, tf, jax]"),
    ),
    "empty": ("", None, ("empty; a suite needs at least name, data.name and grid.impl",)),
    "only comments": ("# nothing\n---\n", None, ("empty; a suite needs at least",)),
    "a tag for the whole": ("!!python/object:os.system {}\n", 1, ('the tag "!!python/object:os.system" is refused',)),
    "a list": ("- name: a\n", 1, ("a list), expected a mapping",)),
    "text": ("quickstart\n", 1, ('found "quickstart" (text), expected a mapping',)),
    "two documents": (minimal("---", "name: b"), 4, ("not valid YAML",)),
    "python tag": (
        minimal("question: !!python/object/apply:os.system ['touch owned']"),
        4,
        ('the tag "!!python/object/apply:os.system" is refused: a suite holds plain values only',),
    ),
    "local tag": (minimal("question: !secret x"), 4, ('the tag "!secret" is refused',)),
    "forced type": (minimal("train: {batch: !!int many}"), 4, ('"many" cannot be read as int',)),
    "key twice": (
        minimal("train:", "  batch: 1", "  lr: 1", "  batch: 2"),
        7,
        ("batch: given twice in one mapping, first at x.yaml:5; keep one",),
    ),
    "section twice": (minimal("name: again"), 4, ("name: given twice in one mapping, first at x.yaml:1",)),
    "a list as a key": (minimal("? [a]", ": 1"), 4, ("found a list or a mapping as a key",)),
    "merging no mapping": (minimal("model: {<<: [1]}"), 4, ("after <<, expected a mapping",)),
    "syntax": (minimal("model: {routing: 3"), 5, ("not valid YAML",)),
    "indentation": (minimal("train:", "  batch: 1", " lr: 1"), 6, ("not valid YAML",)),
    "undefined alias": (minimal("model: *nowhere"), 4, ("not valid YAML: found undefined alias 'nowhere'",)),
    "tab": (minimal("train:", "\tbatch: 1"), 5, ("not valid YAML: a tab; indent with spaces",)),
    "control character": (minimal("question: a\x01b"), 4, ("not valid YAML: control character",)),
    "not UTF-8": (minimal().encode() + b"question: caf\xe9\n", 4, ("not UTF-8 text (byte 0xe9)",)),
    "not text at all": (bytes(range(256)), None, ("x.yaml",)),
    "very long": ("#" * 1_000_001, None, ("1,000,001 bytes; a suite has at most 1,000,000",)),
    "an alias in itself": (minimal("quick: &a [*a]"), 4, ("does an alias contain itself?",)),
    "nested without end": ("[" * 5_000, 1, ("nested more than 32 deep",)),
    "a billion laughs": (
        minimal(*(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}' if i else 'ha'] * 9)}]" for i in range(12))),
        None,
        ("more than 20,000 values once its aliases are expanded",),
    ),
    "a billion merges": (
        minimal(*(f"x{i}: &x{i} {{k{i}: 1, <<: [{', '.join([f'*x{i - 1}'] * 9 if i else [])}]}}" for i in range(12))),
        None,
        ("more than 20,000 values once its aliases are expanded",),
    ),
}


@pytest.mark.parametrize(("text", "line", "parts"), BAD.values(), ids=BAD.keys())
def test_bad_file(folder: Path, text: str | bytes, line: int | None, parts: tuple[str, ...]) -> None:
    lines = refusal(text)
    assert len(lines) == 1, lines
    assert lines[0].startswith("x.yaml:" + (f"{line}: " if line else "")), lines[0]
    for part in parts:
        assert part in lines[0]
    assert len(lines[0]) < 400
    assert "pydantic" not in lines[0]


def test_all_problems_at_once_in_order_of_lines(folder: Path) -> None:
    text = minimal(
        "train: {batch: 0}", "modle: {}", "quick: {data.tran: 1}", data="{name: minst}", grid="{impl: [tourch]}"
    )
    lines = refusal(text, ["train.epoch=3", "seed=-1"])
    assert [line.split(": ")[0] for line in lines] == [
        "x.yaml:2",
        "x.yaml:3",
        "x.yaml:4",
        "x.yaml:5",
        "x.yaml:6",
        "-s train.epoch=3",
        "-s seed=-1",
    ]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.rooting=3", ("model.rooting: unknown key", 'did you mean "routing"?')),
        ("routing=3", ('routing: unknown key; did you mean "model.routing"?',)),
        ("train.routing=3", ('train.routing: unknown key; did you mean "model.routing"?',)),
        ("grid.train.routing=3", ('grid.train.routing: unknown key; did you mean "model.routing"?',)),
        ("train.seed=3", ('did you mean "grid.seed"?',)),
        ("train=3", ("train: a section, not a value",)),
        ("quick.train.batch=3", ('did you mean "train.batch"?',)),
        ("grid.data.dir=a,b", ("cannot be varied",)),
        ("grid.parity.margin_pct=0.1,0.2", ("cannot be varied",)),
        ("parity.margin_pct=0.1,0.2", ("found [0.1, 0.2] (a list), expected a number above 0 and at most 100",)),
        ("parity.margin_pct=0", ("found 0, expected a number above 0 and at most 100",)),
        ("grid.runtime.retries=1,2", ("cannot be varied",)),
        ("runtime.retries=-1", ("runtime.retries: found -1, expected a whole number from 0 to 100",)),
        ("runtime.hang_s=5", ("found 5, expected auto, or a number of seconds from 10 to 2592000 (30 days)",)),
        ("runtime.hang_s=never", ('found "never"', "auto, or a number of seconds")),
        ("parity.margin_pct=.inf", ("expected a number above 0 and at most 100",)),
        ("model.routing=0,3", ("model.routing: found 0, expected a whole number from 1 to 10",)),
        ("model.routing=3,3", ("model.routing: 3 is there twice; drop one",)),
        ("model.routing=[]", ("model.routing: found an empty list",)),
        ("model.routing=three", ('found "three" (text)',)),
        ("model.decoder_units=1,2,3", ("found [1, 2, 3] (a list), expected a list of 2",)),
        ("train.batch={a: 1}", ("found a mapping",)),
        ("train.batch=!!python/name:os.system ''", ('the tag "!!python/name:os.system" is refused',)),
        ("train.batch=5000", ("train.batch: found 5000, more than the 1,257 training images",)),
        ("train.batch=3]", ("not valid YAML",)),
        ("impl=troch", ('unknown implementation "troch"; did you mean "torch"?',)),
        ("name=a/b", ('name: found "a/b" (text), expected a name',)),
        ("train.epochs", ("expected key=value",)),
        ("train.epochs=", ("expected key=value",)),
        ("runtime.environment.OMP_NUM_THREADS=", ("OMP_NUM_THREADS: capsbench sets it",)),
        ("runtime.environment.LD_PRELOAD=/nowhere/x.so", ("LD_PRELOAD: there is no file /nowhere/x.so",)),
        ("=3", ("expected key=value",)),
        ("", ("expected key=value",)),
    ],
)
def test_bad_override(folder: Path, override: str, parts: tuple[str, ...]) -> None:
    lines = refusal(GOOD, [override])
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"-s {override}: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("key", ["impl", "grid.impl"])
def test_a_key_is_named_as_it_was_written(folder: Path, key: str) -> None:
    [line] = refusal(minimal(), [f"{key}=troch"])
    assert line.startswith(f"-s {key}=troch: {key}: unknown implementation")
    [line] = refusal(minimal("quick:", f"  {key}: [troch]"))
    assert line.startswith(f"x.yaml:5: {key}: unknown implementation")


def test_a_grid_that_is_no_mapping(folder: Path) -> None:
    assert refusal(minimal(grid="[torch]")) == [
        "x.yaml:3: grid: found [torch] (a list), expected keys such as model.routing",
        "x.yaml: grid.impl: missing; expected a list of implementations, such as [torch, tf, jax]",
    ]


def test_the_same_override_twice(folder: Path) -> None:
    assert refusal(GOOD, ["seed=0", "grid.seed=1"]) == [
        "-s grid.seed=1: grid.seed: already given by -s seed=0; several values take a list"
    ]


def test_a_bad_quick_is_refused_without_quick_and_reported_once_with_it(folder: Path) -> None:
    text = minimal("quick: {train.batch: 0}")
    assert refusal(text) == refusal(text, quick=True)


def test_an_impossible_combination_is_only_one_that_is_asked_for(folder: Path) -> None:
    path = write(minimal("train: {batch: 64}", "quick: {data.train: 10}"))
    assert load_suite(path).train.batch == 64
    assert refusal(Path(path).read_text(), quick=True) == [
        "x.yaml:4: train.batch: found 64, more than the 10 training images"
    ]
    assert load_suite(path, ["train.batch=5"], quick=True).train.batch == 5


def test_every_combination_of_the_grid_is_checked(folder: Path) -> None:
    text = minimal(grid="\n  impl: [torch]\n  train.batch: [8, 2000]\n  data.train: [4, 1000]")
    assert refusal(text) == [
        "x.yaml:5: grid.train.batch: found 8, more than the 4 training images",
        "x.yaml:5: grid.train.batch: found 2000, more than the 4 training images",
        "x.yaml:5: grid.train.batch: found 2000, more than the 1,000 training images",
    ]


def test_missing_file_names_the_nearest(folder: Path) -> None:
    write(GOOD, "routing.yaml")
    (folder / "suites").mkdir()
    write(GOOD, "suites/mnist.yaml")
    for asked, meant in [
        ("routin.yaml", "routing.yaml"),
        ("suites/mnits.yaml", "suites/mnist.yaml"),
        ("suites/mnist", "suites/mnist.yaml"),
        ("elsewhere/mnist.yaml", "suites/mnist.yaml"),
    ]:
        with pytest.raises(UserError) as caught:
            load_suite(asked)
        assert str(caught.value).startswith(f'{asked}: no such file; did you mean "{meant}"? Valid: ')


def test_missing_file_where_there_is_none_like_it(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^x\.yaml: no such file; there is no \.yaml file in that folder$"):
        load_suite("x.yaml")


def test_a_folder_and_a_device(folder: Path) -> None:
    (folder / "suites").mkdir()
    write(GOOD, "suites/mnist.yaml")
    with pytest.raises(UserError, match=r"^suites: a folder; name a \.yaml file.* Valid: suites/mnist\.yaml\.$"):
        load_suite("suites")
    with pytest.raises(UserError, match=r"^/dev/zero: not a regular file"):
        load_suite("/dev/zero")


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(GOOD)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"^x\.yaml: cannot be read: Permission denied$"):
        load_suite(path)


def test_known_names_are_those_of_the_registry_and_the_data() -> None:
    """The messages above spell names out: they must be real ones."""
    assert set(registry.names()) >= {"numpy", "torch", "tf", "jax"}
    assert {"digits", "mnist"} <= set(data.NAMES)
