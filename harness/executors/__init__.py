"""Where and when trials run: one by one on this machine, or on Ray.

Imports `supervisor` and the layers below it; neither the journal nor a framework.
"""
