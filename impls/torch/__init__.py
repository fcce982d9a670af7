"""CapsNets and CNNs in PyTorch: `nn.Module`, autograd, `torch.compile`."""

from impls.torch.impl import TorchImpl

__all__ = ["TorchImpl"]
