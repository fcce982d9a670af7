"""Kuzushiji-MNIST: 60,000 + 10,000 cursive Japanese characters, 28x28; the last 5,000 of the 60,000 are for validation."""

from __future__ import annotations

from harness.data.base import Info
from harness.data.files import FileSet
from harness.data.idx import IdxSource

# Hashes of the .gz files as published.
FILES = FileSet(
    name="kmnist",
    sha256={
        "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    },
    mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    exact=True,
    elsewhere=("KMNIST/raw",),  # torchvision's
)

SOURCE = IdxSource(
    Info(
        name="kmnist",
        image=(28, 28, 1),
        classes=10,
        train=55_000,
        validation=5_000,
        test=10_000,
        embedded=False,
        source="Kuzushiji-MNIST (Clanuwat and others), the published gzipped IDX files, verified as they are",
        licence="CC BY-SA 4.0",
        citation="Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto, Ha: Deep Learning for Classical Japanese Literature, "
        "arXiv 1812.01718, 2018",
        files=FILES.sha256,
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    FILES,
)
