"""This computer: cores, GPUs, the clock, noise, energy, rates.

Imports `spec` and `errors`.
"""
