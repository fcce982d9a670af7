"""`capsbench report`: what a run says, of accuracy over its seeds and of cost."""

from harness.report.command import Written, report, show
from harness.report.curves import Report, make_report, to_json

__all__ = ["Report", "Written", "make_report", "report", "show", "to_json"]
