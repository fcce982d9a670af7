"""From a model's layers to operations, bytes, memory and seconds; and what a machine cannot run.

Imports `spec`, `weights` and `machine`.
"""
