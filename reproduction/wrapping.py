"""What official files wrap around the weights of a network, and how it is taken off.

The training scripts add prefixes, an outer mapping and the weights of other parts. The detectors
of HRNet-MaskRCNN-Benchmark have names and a normalization of their own: its statistics are frozen,
so it counts no batches, and it keeps eps beside them.
"""

from collections.abc import Mapping
from typing import Any

import torch

from reproduction.errors import UserError

# Where official scripts put the weights, beside those of the optimizer.
OUTER = ("state_dict", "model")
PREFIXES = ("module.", "model.")
# What else official files hold beside the network: the loss of the segmentation scripts, and the
# other parts of a detector.
BESIDE = (
    *("loss.", "rpn_head.", "bbox_head.", "mask_head.", "semantic_head."),
    *("rpn.", "roi_heads."),
)
# What HRNet-MaskRCNN-Benchmark calls the parts of a detector, and what all others do.
PARTS = (("backbone.body.", "backbone."), ("backbone.neck.", "neck."))
EPS = 1e-5  # of every normalization


def unwrapped(content: Any, file: str) -> Mapping[str, torch.Tensor]:
    """Return the weights of a network by their official names or ours.

    Args:
        content: What a weights file holds.
        file: Its name, for the messages.

    Raises:
        UserError: It is no mapping of names to tensors, or is normalized with another eps.
    """
    for name in OUTER:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise UserError(f"{file} holds no state dict; expected a mapping of names to tensors")
    for name in content:
        if not isinstance(name, str):
            raise UserError(
                f"{file} has the key {name!r}, of type {type(name).__name__}; expected names of "
                "tensors: save what state_dict() of the network returns"
            )
    return _of_frozen(_without_prefix(content), file)


def _without_prefix(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    state = {name: state[name] for name in state if not name.startswith(BESIDE)}
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefix({name[len(prefix) :]: state[name] for name in state})
    return state


def _of_frozen(state: Mapping[str, torch.Tensor], file: str) -> Mapping[str, torch.Tensor]:
    """Give a detector of HRNet-MaskRCNN-Benchmark the names and buffers of all others."""
    if not any(name.startswith(theirs) for name in state for theirs, _ in PARTS):
        return state
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if _usual(name) in found:
            raise UserError(f"{file} holds {_usual(name)} also as {name}: remove one of them")
        if not name.endswith(".eps"):
            found[_usual(name)] = value
        elif not (value == EPS).all():
            raise UserError(
                f"{file} has {float(value[value != EPS][0]):g} in {name}; expected {EPS:g}, which "
                "all normalization here adds: give a file that was trained so"
            )
    for name in list(found):
        if name.endswith(".running_mean"):
            count = name.removesuffix("running_mean") + "num_batches_tracked"
            found.setdefault(count, torch.zeros((), dtype=torch.int64))
    return found


def _usual(name: str) -> str:
    for theirs, usual in PARTS:
        if name.startswith(theirs):
            return usual + name.removeprefix(theirs)
    return name
