"""Questions that only TensorFlow can answer: see `harness.spec.device.Device`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def environment(threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
    return {
        # TensorFlow ignores OMP_NUM_THREADS.
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        # GPU memory on demand, so that the reported peak is what the trial used.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        # Keras computes with TensorFlow, whatever its configuration file says.
        "KERAS_BACKEND": "tensorflow",
        # Log only errors.
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def keep_compiled(folder: str) -> dict[str, str | None]:
    return {}  # graphs are traced in each process, and that is fast


def without_gpu() -> str | None:
    built = _source("tensorflow", "python", "platform", "build_info.py")
    if "'is_cuda_build', False" not in built or "'is_rocm_build', True" in built:
        return None
    return "the TensorFlow installed here was built without CUDA"


def gpus() -> list[str]:
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    return [details(gpu).get("device_name", gpu.name) for gpu in tf.config.list_physical_devices("GPU")]


def product(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    import tensorflow as tf

    with tf.device("/GPU:0" if gpu else "/CPU:0"):
        left = tf.cast(tf.constant(a), {"fp64": tf.float64, "bf16": tf.bfloat16}.get(precision, tf.float32))
        right = tf.transpose(left)

    def run() -> None:
        out = tf.matmul(left, right)
        float(out[0, 0])  # waits for the whole product, and brings one number back

    return run


def copy(count: int) -> Callable[[], None]:
    import tensorflow as tf

    with tf.device("/GPU:0"):
        tensor = tf.zeros(count // 4, tf.float32)

    def run() -> None:
        float((tensor + 1.0)[0])

    return run


def _source(package: str, *parts: str) -> str:
    """The text of a package's file, without importing the package; empty if there is none."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, *parts)).is_file():
            return path.read_text(errors="replace")
    return ""
