"""From a YAML file to trials: it is read strictly, merged with `--quick` and `-s`, expanded, and named.

Imports `spec`, `data`, `weights` and `registry`.
"""
