"""The CapsNet in PyTorch: `nn.Module`, autograd, `torch.compile`."""

from impls.torch.impl import TorchCapsNet

__all__ = ["TorchCapsNet"]
