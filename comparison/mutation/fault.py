"""A fault: what is changed in a candidate, and where a comparison has to see it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from comparison.engine.sides import Batch, Side

Inject = Callable[[Side], Side]
InjectData = Callable[[Iterable[Batch]], list[Batch]]

STATIC, EVAL, TRAIN, LOSS = "static", "forward eval", "forward train", "loss"
BACKWARD, STATE, DATA = "backward", "state after step", "data path"
# What the first step cannot show, since it has no momentum and no old gradients yet.
LATER = (STATE, "free-running trajectory", "teacher-forced trajectory")

FAMILIES = (
    "BN state",
    "BN forward",
    "activation",
    "fusion",
    "wiring",
    "convolution",
    "backward",
    "loss",
    "optimizer",
    "schedule/data/RNG",
    "precision",
)


@dataclass(frozen=True)
class OperationSite:
    """One call of a PyTorch function during the forward pass.

    Attributes:
        kind: ``sum``, ``relu``, ``conv``, ``norm``, ``linear``, ``interpolate``, ``pool`` or
            ``flatten``.
        call: Which call of that kind in the whole pass, from 0.
        module: Path of the innermost running module; empty for the network itself.
        readers: Modules in which the result is read.
        later: For every operand that the pass itself made, the modules in which it is read again
            afterwards; None for an operand that came from outside.
        shape: Shape of the first operand.
        largest: Largest value of the result.
    """

    kind: str
    call: int
    module: str
    readers: tuple[str, ...] = ()
    later: tuple[tuple[str, ...] | None, ...] = ()
    shape: tuple[int, ...] = ()
    largest: float = 0.0

    def __str__(self) -> str:
        return f"{self.module or 'network'} ({self.kind} {self.call + 1})"


def unchanged(side: Side) -> Side:
    """Inject nothing."""
    return side


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A deliberate change, with the truth about it.

    Attributes:
        name: Operator and site in a few words.
        operator: What is done, with its strength, whatever the site.
        family: One of `FAMILIES`.
        inject: Changes a side, whose model is a copy, and returns it.
        modes: The modes that may be the first to show it; empty for a harmless change.
        sites: Module paths of the candidate, any of which is the right place; ``loss``,
            ``optimizer``, ``scheduler`` or ``data`` for what is no part of the model.
        inject_data: Changes the batches that a candidate sees instead of the side.
        operation: The operation that is changed, if it is one. Its `call` counts alike in all
            networks that compute the same in the same order.
        changes_state: Whether values of parameters are changed, so that loading a state into the
            candidate afterwards would undo the fault.
    """

    name: str
    operator: str
    family: str
    inject: Inject = unchanged
    modes: tuple[str, ...]
    sites: tuple[str, ...]
    inject_data: InjectData | None = None
    operation: OperationSite | None = None
    changes_state: bool = False

    def applied(self, side: Side) -> Side:
        """Return a copy of a side that has this fault."""
        return self.inject(side.copied(side.dtype))


def reclassed(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Give one module another forward, in place; paths and state-dict keys stay.

    Args:
        module: What to change.
        forward: Takes the forward of the module's class, the module and the inputs.
    """
    kind = type(module)

    def changed(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        return forward(kind.forward, self, *inputs, **options)

    module.__class__ = type(kind.__name__, (kind,), {"forward": changed, "__module__": __name__})
