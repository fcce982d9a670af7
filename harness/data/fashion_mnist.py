"""Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28x28; the last 5,000 of the 60,000 are held out for validation."""

from __future__ import annotations

from harness.data.base import Info
from harness.data.files import FileSet
from harness.data.idx import IdxSource

# Hashes of the .gz files as published.
FILES = FileSet(
    name="fashion-mnist",
    sha256={
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    exact=True,
    elsewhere=("FashionMNIST/raw",),  # torchvision's
)

SOURCE = IdxSource(
    Info(
        name="fashion-mnist",
        image=(28, 28, 1),
        classes=10,
        train=55_000,
        validation=5_000,
        test=10_000,
        embedded=False,
        source="Fashion-MNIST (Xiao, Rasul, Vollgraf), the published gzipped IDX files, verified as they are",
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, "
        "arXiv 1708.07747, 2017",
        files=FILES.sha256,
        class_names=(
            "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
        ),
    ),
    FILES,
)  # fmt: skip
