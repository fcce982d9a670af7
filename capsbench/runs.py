"""A run directory as tables (trials, epochs, parity), and the weights of its trials."""

from __future__ import annotations

import importlib
import importlib.util
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.rows import Row, epoch_rows, parity_rows, trial_rows, whose
from harness.errors import UserError, nearest
from harness.journal.journal import Journal
from harness.journal.kept import choose, find_trial, read
from harness.spec import Weights

if TYPE_CHECKING:
    from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]

Table = Literal["trials", "epochs", "parity"]


def open_run(path: str | PathLike[str]) -> Run:
    """The run in the directory `path`, such as `runs/quickstart`. Raises `UserError` if there is no run."""
    return Run(path)


class Run:
    """A run as it is on disk: each access reads it anew, even while the run is still going on.

    `trials`, `epochs` and `parity` are pandas data frames, and raise `UserError` if pandas is not installed; `rows`
    gives the same without it. The first columns identify a row's trial: `trial` (its id), `impl`, `seed`, and what the
    suite's grid varies, such as `model.routing`. Units are in the names: `_s` seconds, `_pct` percent, `_bytes` bytes.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._journal = Journal(self.path)
        if not self._journal.trial_ids():
            find_trial(self.path, "")  # says what is wrong and suggests a similar run

    def __repr__(self) -> str:
        return f"capsbench.open_run({str(self.path)!r})"

    @property
    def trials(self) -> DataFrame:
        """One row per trial: the fields of `capsbench run --json` except the epochs."""
        return self._frame("trials")

    @property
    def epochs(self) -> DataFrame:
        """One row per epoch of each trial. `warmup` marks those left out of median times."""
        return self._frame("epochs")

    @property
    def parity(self) -> DataFrame:
        """One row per tensor that the gate compared: `level`, `tensor`, `rel_err`, `tolerance`, and `ok`, the verdict."""
        return self._frame("parity")

    def rows(self, table: Table) -> list[Row]:
        """A table as a list of dictionaries, without pandas. Raises `UserError` for an unknown table."""
        makers = {"trials": trial_rows, "epochs": epoch_rows, "parity": parity_rows}
        if table not in makers:
            raise UserError(f'a run has no table "{table}"{nearest(table, makers)}')
        trials = [self._journal.trial(id) for id in self._journal.trial_ids()]
        return [whose(trial) | row for trial in trials for row in makers[table](self._journal, trial)]

    def weights(self, trial: str, which: str | int = "last") -> Weights:
        """A trial's weights: canonical name -> array, as in `weight_table`. The file is checked first.

        Args:
            trial: its id, or the beginning of it.
            which: "last", "best" (lowest validation error), or the number of an epoch whose weights were kept.

        Raises:
            UserError: there is no such trial, its weights were not kept, or they are damaged.
        """
        found = find_trial(self.path, trial)
        path, event = choose(self._journal, found, str(which))
        return read(path, found, event)

    def _frame(self, table: Table) -> DataFrame:
        if importlib.util.find_spec("pandas") is None:
            raise UserError(
                f'pandas is not installed: pip install "capsbench[pandas]", or take run.rows("{table}"), '
                "a list of dictionaries"
            )
        pandas: Any = importlib.import_module("pandas")
        return pandas.DataFrame(self.rows(table))
