"""The CapsNet in TensorFlow: Keras layers and optimiser, `tf.function` steps."""

from impls.tf.impl import TfCapsNet

__all__ = ["TfCapsNet"]
