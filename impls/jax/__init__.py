"""CapsNets and CNNs in JAX: pure functions over a dictionary of weights, `jax.jit`, optax."""

from impls.jax.impl import JaxImpl

__all__ = ["JaxImpl"]
