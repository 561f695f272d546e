"""The same classification network in another module tree: what somebody else's port may look like.

All layers lie in one flat list, in an order that has nothing to do with that of execution, without
stages, streams or blocks; activations, sums and resampling are functions, never in place, never
modules. In one of two forms every sum starts from zero and the mean over the map is `Tensor.mean`.
The values are those of the network that it is made from.
"""

import copy
import random
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from comparison.mutation.fault import Fault
from reproduction.blocks import BasicBlock, Bottleneck, ConvNorm
from reproduction.heads.classification import ClassificationHead
from reproduction.hrnet import ExchangeBlock, Fusion, Transition
from reproduction.networks import ClassificationNetwork


class Step(NamedTuple):
    """One operation: what it does, the values it reads, and the layer it uses, if any."""

    does: str
    reads: tuple[int, ...]
    layer: int = -1


class Reshaped(nn.Module):
    """A list of layers, and a list of steps that use them.

    Args:
        network: A network of the reproduction; its values are copied.
        order: Where each layer comes to lie, from a seeded generator.
        from_zero: Whether sums start from zero, and the head takes `Tensor.mean`.
    """

    def __init__(
        self, network: ClassificationNetwork, order: random.Random, *, from_zero: bool
    ) -> None:
        super().__init__()
        writer = _Writer(from_zero)
        writer.network(network)
        places = list(range(len(writer.layers)))
        order.shuffle(places)
        at = {place: layer for layer, place in enumerate(places)}
        self.layers = nn.ModuleList(copy.deepcopy(writer.layers[at[i]]) for i in range(len(places)))
        self._steps = [
            step._replace(layer=places[step.layer]) if step.layer >= 0 else step
            for step in writer.steps
        ]
        self._uses = Counter(read for step in self._steps for read in step.reads)
        paths = {module: path for path, module in network.named_modules()}
        self._paths = {places[k]: paths[layer] for k, layer in enumerate(writer.layers)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to logits."""
        values, left = {0: images}, self._uses.copy()
        for result, step in enumerate(self._steps, start=1):
            values[result] = self._do(step, [values[read] for read in step.reads])
            for read in step.reads:
                left[read] -= 1
                if not left[read]:
                    del values[read]
        return values[len(self._steps)]

    def _do(self, step: Step, given: list[torch.Tensor]) -> torch.Tensor:
        if step.does == "layer":
            return self.layers[step.layer](given[0])
        if step.does == "relu":
            return F.relu(given[0])
        if step.does == "begin":
            return 0 + given[0]
        if step.does == "add":
            return given[0] + given[1]
        if step.does == "resize":
            size = given[1].shape[-2:]
            same = given[0].shape[-2:] == size
            return given[0] if same else F.interpolate(given[0], size=size, mode="nearest")
        if step.does == "mean":
            return given[0].mean(dim=(2, 3))
        return F.avg_pool2d(given[0], kernel_size=given[0].shape[-2:]).flatten(1)

    def true_name(self, name: str) -> str:
        """Return what the reproduction calls a tensor or a layer; for scoring only.

        Args:
            name: A state-dict key or a module path of this network.
        """
        _, place, *rest = name.split(".")
        return ".".join((self._paths[int(place)], *rest))


def reshaped(model: ClassificationNetwork, seed: int) -> Reshaped:
    """Compute what a network computes, in another module tree.

    Args:
        model: A network of the reproduction; its values are copied.
        seed: Decides the order of the layers; an odd one lets sums start from zero.
    """
    network = Reshaped(model, random.Random(seed), from_zero=bool(seed % 2))
    return network.to(next(model.parameters()).dtype).train(model.training)


def true_sites(fault: Fault, network: Reshaped, originals: Iterable[Fault]) -> tuple[str, ...]:
    """Say where a fault of a reshaped network lies in the network that it was made from.

    Args:
        fault: A fault of the reshaped network.
        network: The reshaped network.
        originals: The faults of operations of the other network; the one at the same call is
            asked, since a function outside all layers has no module of its own here.
    """
    if fault.operation:
        for twin in originals:
            if twin.operator == fault.operator and _same_call(twin, fault):
                return twin.sites
    named = (site for site in fault.sites if site.startswith("layers."))
    return tuple(network.true_name(site) for site in named) or fault.sites


def _same_call(one: Fault, other: Fault) -> bool:
    ours, theirs = one.operation, other.operation
    if not ours or not theirs:
        return False
    return (ours.kind, ours.call) == (theirs.kind, theirs.call)


class _Writer:
    """Writes down the steps of a network, in the order in which it computes."""

    def __init__(self, from_zero: bool) -> None:
        self.layers: list[nn.Module] = []
        self.steps: list[Step] = []
        self._from_zero = from_zero

    def network(self, network: ClassificationNetwork) -> None:
        body = network.backbone
        streams = [self._in_turn(body.stage1, self._in_turn(body.stem, 0))]
        for transition, stage in (
            (body.transition1, body.stage2),
            (body.transition2, body.stage3),
            (body.transition3, body.stage4),
        ):
            streams = self._transition(transition, streams)
            for block in stage:
                assert isinstance(block, ExchangeBlock)
                streams = self._exchange_block(block, streams)
        self._head(network.head, streams)

    def _step(self, does: str, *reads: int) -> int:
        self.steps.append(Step(does, reads))
        return len(self.steps)

    def _layer(self, layer: nn.Module, x: int) -> int:
        self.layers.append(layer)
        self.steps.append(Step("layer", (x,), len(self.layers) - 1))
        return len(self.steps)

    def _in_turn(self, modules: nn.Module, x: int) -> int:
        for module in modules.children():
            x = self._module(module, x)
        return x

    def _module(self, module: nn.Module, x: int) -> int:
        if isinstance(module, nn.Identity):
            return x
        if isinstance(module, BasicBlock):
            return self._residual(x, module.unit1, module.unit2)
        if isinstance(module, Bottleneck):
            units = (module.unit1, module.unit2, module.unit3)
            return self._residual(x, *units, shortcut=module.shortcut)
        if isinstance(module, ConvNorm):
            y = self._layer(module.norm, self._layer(module.conv, x))
            return self._step("relu", y) if hasattr(module, "relu") else y
        return self._in_turn(module, x)

    def _residual(self, x: int, *units: ConvNorm, shortcut: nn.Module | None = None) -> int:
        y = x
        for unit in units:
            y = self._module(unit, y)
        kept = self._module(shortcut, x) if shortcut else x
        return self._step("relu", self._sum(y, kept))

    def _sum(self, first: int, *others: int) -> int:
        y = self._step("begin", first) if self._from_zero else first
        for other in others:
            y = self._step("add", y, other)
        return y

    def _transition(self, transition: Transition, streams: list[int]) -> list[int]:
        sources = [*streams, streams[-1]]
        return [self._module(path, x) for path, x in zip(transition.paths, sources, strict=True)]

    def _exchange_block(self, block: ExchangeBlock, streams: list[int]) -> list[int]:
        own = [self._module(unit, x) for unit, x in zip(block.streams, streams, strict=True)]
        return [self._fusion(fusion, own) for fusion in block.exchange.paths]

    def _fusion(self, fusion: nn.Module, streams: list[int]) -> int:
        assert isinstance(fusion, Fusion)
        y = 0
        for source, path in enumerate(fusion):
            term = self._module(path, streams[source])
            if source > fusion.target:
                term = self._step("resize", term, streams[fusion.target])
            y = self._step("add", y, term) if source else self._sum(term)
        return self._step("relu", y)

    def _head(self, head: ClassificationHead, streams: list[int]) -> None:
        y = self._module(head.widen[0], streams[0])
        for stream, widen, descend in zip(streams[1:], head.widen[1:], head.descend, strict=True):
            wide = self._module(widen, stream)
            y = self._sum(wide, self._module(descend, y))
        y = self._module(head.project, y)
        y = self._step("mean" if self._from_zero else "pool", y)
        self._layer(head.classifier, y)
