"""`capsbench report`: what a run says, of accuracy over its seeds and of cost."""

from harness.analysis.costs import Report, make_report, to_json
from harness.commands.report import Written, report, show

__all__ = ["Report", "Written", "make_report", "report", "show", "to_json"]
