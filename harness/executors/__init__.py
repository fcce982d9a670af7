"""Where and when trials run: in turns on this machine, or on Ray.

Imports `supervisor` and what is below it; neither the journal nor a framework.
"""
