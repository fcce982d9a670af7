"""The packages: those that are found, and the suites at the top level as a part of `capsbench`; see pyproject.toml."""

from setuptools import find_packages, setup

found = find_packages(include=["capsbench*", "harness*", "impls*"])
setup(packages=[*found, "capsbench.suites", "capsbench.suites.recipes"])
