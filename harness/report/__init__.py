"""`capsbench report`: what a run says of cost. Curves over each varied setting, a model of the cost, how far it is off."""

from harness.report.curves import Report, make_report, sentences, table, to_json
from harness.report.figures import draw

__all__ = ["Report", "draw", "make_report", "sentences", "table", "to_json"]
