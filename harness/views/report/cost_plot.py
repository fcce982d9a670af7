"""A report's PNG files. Cost curves: seconds against one setting, with intervals, and the cost model as a thin line."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from harness.analysis.costs import Point, Report, curves
from harness.analysis.labels import color
from harness.analysis.seeds import OverSeeds
from harness.cost.fit import CostModel
from harness.disk import obstacle
from harness.errors import UserError
from harness.spec import ModelSpec
from harness.spec.trial import Trial
from harness.views.report.error_plot import draw_errors

_LABELS = {
    "train.batch": "batch (images a step)",
    "model.routing": "routing iterations",
    "data.canvas": "side of the image (pixels)",
}
_SECONDS = "seconds a training step"
_NOTE = "points: median of steady epochs, with its 95% interval (or the range of fewer than six); lines: cost model"
_MARKERS = "osD^vPX*"


def draw(report: Report, seeds: OverSeeds, out: Path, kind: str = "png") -> tuple[list[Path], list[Path]]:
    """Writes a figure of the test errors, and one of cost per numeric setting that varies; returns both lists of paths.

    Args:
        kind: "png" or "svg", which is also the files' ending.

    Raises `UserError` if matplotlib is not installed or `out` cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError('figures need matplotlib, which is not installed: pip install "capsbench[report]"')
    try:
        out.mkdir(parents=True, exist_ok=True)
        has_errors = any(cell.values("test_err_pct") for cell in seeds.cells)
        errors = [draw_errors(seeds, _canvas(), out / f"test_error.{kind}")] if has_errors else []
        return errors, [_figure(report, key, out / f"{key}.{kind}") for key in report.keys if curves(report, key)]
    except OSError as error:
        raise UserError(
            f"cannot write figures to {out}: {obstacle(out) or error.strerror}; choose a place with --out"
        ) from error


def _canvas() -> Any:
    # Without pyplot: no window, and none of the caller's state.
    return importlib.import_module("matplotlib.figure").Figure(figsize=(7.5, 4.8), dpi=150, layout="constrained")


def _figure(report: Report, key: str, path: Path) -> Path:
    figure = _canvas()
    by_batch = key == "train.batch"
    if by_batch:
        figure.set_size_inches(11, 4.8)
    axes = figure.subplots(1, 2 if by_batch else 1, squeeze=False)[0]
    for axis, per_image in zip(axes, (False, True), strict=False):
        for index, (name, points) in enumerate(curves(report, key).items()):
            _curve(axis, name, points, report.models.get(points[0].line), key, per_image, _MARKERS[index % 8])
        axis.set_xlabel(_LABELS.get(key, key))
        axis.set_ylabel("milliseconds an image" if per_image else _SECONDS)
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])  # leaves room above points of equal height
        axis.set_xticks(sorted({point.trial.params[key] for point in report.points if key in point.trial.params}))
        axis.tick_params(axis="x", labelrotation=45 if by_batch else 0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    trial = report.points[0].trial
    where = f"GPUs: {trial.gpus}" if trial.gpus else f"cores: {trial.cpus}, {report.cpu}"
    figure.suptitle(f"{trial.suite}: cost by {_LABELS.get(key, key)}; {where}", fontsize=10)
    axes[0].set_title(_NOTE, fontsize=8, color="0.4", loc="left")
    figure.savefig(path)
    return path


def _curve(
    axis: Any, name: str, points: list[Point], model: CostModel | None, key: str, per_image: bool, marker: str
) -> None:
    def scaled(seconds: float, batch: int) -> float:
        return 1e3 * seconds / batch if per_image else seconds

    xs = [point.trial.params[key] for point in points]
    ys = [scaled(point.step_s, point.trial.train.batch) for point in points]
    bars = [
        [scaled(point.step_s - point.low_s, point.trial.train.batch) for point in points],
        [scaled(point.high_s - point.step_s, point.trial.train.batch) for point in points],
    ]
    shade = color(points[0].line.impl)
    axis.errorbar(xs, ys, yerr=bars, fmt=marker, ms=5, capsize=3, lw=1.2, color=shade, label=name)
    if model:
        between = [_at(points[0].trial, key, x) for x in _grid(xs)]
        predicted = [scaled(model.step_s(architecture, batch), batch) for architecture, batch in between]
        axis.plot(_grid(xs), predicted, lw=0.9, color=shade, alpha=0.8)


def _grid(xs: list[Any]) -> list[Any]:
    """Where the cost model is drawn: at whole numbers between the ends, or at the points themselves."""
    if all(isinstance(x, int) for x in xs):
        return sorted({*xs, *range(xs[0], xs[-1], max(1, (xs[-1] - xs[0]) // 100))})
    return xs


def _at(trial: Trial, key: str, x: Any) -> tuple[ModelSpec, int]:
    """The trial's model and batch with `key` set to `x`; other settings change neither."""
    section, _, name = key.partition(".")
    if key == "train.batch":
        return trial.model, x
    if key == "data.canvas":
        return trial.model.model_copy(update={"image": (x, x, trial.model.image[2])}), trial.train.batch
    return trial.model.model_copy(update={name: x} if section == "model" else {}), trial.train.batch
