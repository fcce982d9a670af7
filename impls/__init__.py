"""The implementations, one folder a framework. None imports another; each knows `harness.spec` only."""
