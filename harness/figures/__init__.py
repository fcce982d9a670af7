"""Figures of every trial: what it learned, what it confuses, what its capsules hold. Drawn from the run directory alone."""

from harness.figures.command import Drawn, draw_missing, draw_run, draw_trial, show

__all__ = ["Drawn", "draw_missing", "draw_run", "draw_trial", "show"]
