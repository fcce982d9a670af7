"""CapsNets and CNNs in TensorFlow: Keras layers and optimiser, `tf.function` steps."""

import sys

# Keras and TensorFlow import these, if installed, for wrappers and converters that are not needed here. It takes
# seconds, and memory that would count as the trial's.
_UNUSED = {name for name in ("sklearn", "jax", "pandas", "matplotlib", "PIL") if name not in sys.modules}
sys.modules |= dict.fromkeys(_UNUSED)  # type: ignore[arg-type]  # None: as if not installed

from impls.tf.impl import TfImpl  # noqa: E402

for _name in _UNUSED:
    del sys.modules[_name]

__all__ = ["TfImpl"]
