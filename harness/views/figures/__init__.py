"""Figures of every trial: what it learned, what it confuses, what its capsules hold. Drawn from the run directory alone."""

from harness.commands.figures import draw_run, show
from harness.views.figures.draw import Drawn, draw_missing, draw_trial

__all__ = ["Drawn", "draw_missing", "draw_run", "draw_trial", "show"]
