"""Figures of a trial: what it learned, what it confuses, what its capsules hold. Drawn from the run directory alone."""
