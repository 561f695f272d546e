"""The two networks that are compared: same names, same start weights, same number of classes.

The official classification network has 1000 classes and takes three channels. For a study on K
classes its last linear layer is replaced by one of K outputs (a listed shim); networks for other
tasks are constructed with K. Gray images reach both arms repeated
to three channels (`reproduction.tasks.classification.data`). Equivalence and cost are measured on
the untouched networks.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn

import reference
from comparison.study import ARMS
from reproduction import Network, PyramidNetwork, UserError, build_network, network_config
from reproduction.checkpoints import official_name, our_name

OURS = (Network, PyramidNetwork)
OFFICIAL_CLASSES = 1000
CLASS_COUNT_SHIM = "classifier replaced by a linear layer of K outputs, start weights shared"


def build(
    arm: str, network: str, num_classes: int | None = None, *, source: str = "auto"
) -> nn.Module:
    """Build one arm, freshly initialized from PyTorch's global generator, on the CPU.

    Args:
        arm: ``reference`` or ``reproduction``.
        network: Official name.
        num_classes: Classes, keypoints or landmarks; the official number unless given.
        source: Which code is the reference, as `reference.build` takes it.

    Raises:
        UserError: The arm or the network is unknown.
        ReferenceUnavailable: The reference is absent, was tampered with, or (detection) has a
            fixed number of outputs.
    """
    if arm not in ARMS:
        raise UserError(f"arm {arm!r} is unknown; use {' or '.join(ARMS)}")
    config = network_config(network)
    if arm == "reproduction":
        return build_network(network, num_classes=num_classes)
    if num_classes in (None, config.outputs):
        return reference.build(network, source=source)
    if config.task != "classification":
        return reference.build(network, source=source, outputs=num_classes)
    model = reference.build(network, source=source)
    last = model.get_submodule("classifier")
    assert isinstance(last, nn.Linear) and num_classes is not None
    model.add_module("classifier", nn.Linear(last.in_features, num_classes))
    return model


def build_from_seed(arm: str, network: str, num_classes: int, seed: int) -> nn.Module:
    """Build one arm with start weights that depend on the seed alone, the same for both arms.

    The reproduction draws them; the reference gets a copy.
    """
    torch.manual_seed(seed)
    start = build("reproduction", network, num_classes)
    if arm == "reproduction":
        return start
    model = build(arm, network, num_classes)
    transfer(start, model)
    return model


def official_state(model: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """Return the state dict of either arm under official names; tensors are not copied.

    In a detector the network's names stand behind those of its place; the rest is torchvision's.
    """
    return _renamed(model, model.state_dict(), official_name)


def load_official_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy a state dict under official names into either arm, strictly."""
    model.load_state_dict(_renamed(model, state, our_name), strict=True)


def _renamed(
    model: nn.Module, state: Mapping[str, torch.Tensor], rename: Callable[[str], str]
) -> OrderedDict[str, torch.Tensor]:
    """Rename the tensors of our network in a model, if there is one."""
    places = [name for name, module in model.named_modules() if isinstance(module, OURS)]
    if not places:
        return OrderedDict(state)
    start = places[0] + "." if places[0] else ""
    return OrderedDict(
        (start + rename(name.removeprefix(start)) if name.startswith(start) else name, tensor)
        for name, tensor in state.items()
    )


def transfer(source: nn.Module, target: nn.Module) -> None:
    """Copy all parameters and buffers of one arm into the other."""
    load_official_state(target, official_state(source))


def name_of(model: nn.Module) -> Callable[[str], str]:
    """Return the function that turns a model's own names into official ones."""
    return official_name if isinstance(model, OURS) else str
