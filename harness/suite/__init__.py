"""From a YAML file to trials: read strictly, merged with `--quick` and `-s`, expanded, named.

Imports `spec`, `data`, `weights` and `registry`.
"""
