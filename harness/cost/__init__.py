"""From a model's layers to operations, bytes, memory and seconds; what a machine cannot do.

Imports `spec`, `weights` and `machine`.
"""
