"""Whether a network gives the same bits as the official code: outputs, gradients, statistics.

One small batch in float32 tells of any network whether it is the official one; by how much it
differs, and where first, is for the engine to say.
"""

from typing import Any

import torch
from torch import nn

import reference
from comparison import arms
from reference.errors import ReferenceUnavailable
from reference.record import as_tuple
from reproduction import build_network
from reproduction.checkpoints import official_name

SHAPE = (2, 3, 64, 96)  # of the batch; heights and widths may not be mixed up


def row(network: str, source: str = "auto") -> dict[str, str]:
    """Compare a network with the reference that is there, with its start weights.

    Args:
        network: Official name.
        source: Of the reference, as `reference.build` takes it.

    Returns:
        ``live``: which code ran, or why none did; ``live_verdict``; ``live_difference``: what
        differs first, empty if nothing does.
    """
    torch.manual_seed(0)
    try:
        theirs = reference.build(network, source=source)
        label = reference.identity(source, network)["label"]
    except ReferenceUnavailable as problem:
        return {"live": str(problem), "live_verdict": "not run", "live_difference": ""}
    ours = build_network(network)
    arms.transfer(theirs, ours)
    found = difference(theirs, ours)
    verdict = "not reproduced" if found else "reproduced"
    return {"live": label, "live_verdict": verdict, "live_difference": found}


def difference(theirs: nn.Module, ours: nn.Module) -> str:
    """Name what differs between two networks with equal weights, or nothing.

    In this order: outputs in train mode, gradients of all parameters, the state behind that pass
    (running statistics included), outputs in eval mode. Dropout is off. Both are changed.

    Args:
        theirs: An official network.
        ours: Our network.
    """
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    outputs = []
    for model in (theirs, ours):
        for module in model.modules():
            if isinstance(module, nn.Dropout2d):
                module.p = 0.0
        outputs.append(as_tuple(model.train()(images)))
        torch.stack([((y - 1) ** 2).mean() for y in outputs[-1]]).sum().backward()
    if not _equal(*outputs):
        return "outputs in train mode"
    gradients = {official_name(name): p.grad for name, p in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        if not _same(parameter.grad, gradients[name]):
            return f"gradient of {name}"
    state = arms.official_state(ours)
    for name, tensor in theirs.state_dict().items():
        if not torch.equal(tensor, state[name]):
            return f"state {name}"
    with torch.no_grad():
        outputs = [as_tuple(model.eval()(images)) for model in (theirs, ours)]
    return "" if _equal(*outputs) else "outputs in eval mode"


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def _equal(first: Any, second: Any) -> bool:
    """Tell whether outputs are equal to the bit, and not nothing but zeros."""
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) and bool(a.any()) for a, b in pairs)
