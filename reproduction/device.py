"""Where a network runs: one function, so that every entry point understands the same words."""

import torch

from reproduction.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """Turn a user's word into a device that exists on this machine.

    Args:
        name: One of ``DEVICES``; ``auto`` takes the first of CUDA, Apple's MPS and the CPU that
            is available.

    Returns:
        The device.

    Raises:
        UserError: The word is unknown or this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    if name not in available:
        raise UserError(f"device {name!r} is unknown; use one of {', '.join(DEVICES)}")
    if not available[name]:
        raise UserError(f"device {name!r} is not available on this machine; use auto or cpu")
    return torch.device(name)
