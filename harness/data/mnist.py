"""MNIST: 60,000 + 10,000 handwritten digits, 28x28; the last 5,000 of the 60,000 are held out for validation."""

from __future__ import annotations

from harness.data.base import Info
from harness.data.files import FileSet
from harness.data.idx import IdxSource

FILES = FileSet(
    name="mnist",
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://azureopendatastorage.blob.core.windows.net/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    elsewhere=("MNIST/raw",),  # torchvision's
)

SOURCE = IdxSource(
    Info(
        name="mnist",
        image=(28, 28, 1),
        classes=10,
        train=55_000,
        validation=5_000,
        test=10_000,
        embedded=False,
        source="MNIST (LeCun, Cortes, Burges), the published IDX files",
        licence="CC BY-SA 3.0",
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, "
        "Proceedings of the IEEE 86(11), 1998",
        files=FILES.sha256,
    ),
    FILES,
)
