"""Adam as defined by Kingma & Ba, which PyTorch implements."""

from __future__ import annotations

import torch

from harness.spec import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, OptimSpec


def adam(optim: OptimSpec, net: torch.nn.Module) -> torch.optim.Adam:
    """Algorithm 1: epsilon is added to the root of the *bias-corrected* second moment.

    There is a parameter group for each pair of learning rate and weight decay, with its "scale" of the learning rate,
    which must be set before every step.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        groups.setdefault((optim.lr_scale(name), optim.weight_decay_of(name)), []).append(parameter)
    found = [
        {"params": parameters, "scale": scale, "weight_decay": decay} for (scale, decay), parameters in groups.items()
    ]
    return torch.optim.Adam(found, lr=optim.lr, betas=(ADAM_BETA1, ADAM_BETA2), eps=ADAM_EPSILON, fused=True)
