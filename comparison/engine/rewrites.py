"""Neutral rewrites: the same function by other arithmetic, for any model.

They measure the noise floor: what they change is rounding, by definition. Each replaces single
calls while a model runs, by operations that autograd differentiates, or changes a layout or an
order. What a rewrite cannot express it leaves as it is.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from comparison.engine import rewritten_ops as ops

Replace = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """One way to compute the same.

    Attributes:
        name: A few words.
        replaces: Functions to what stands in for them.
        prepare: Changes a copy of the model; None if the model itself will do.
        reordered: Whether the batch is shown in the opposite order.
        around: A context that replaces nothing, such as another number of threads.
    """

    name: str
    replaces: tuple[tuple[Any, Replace], ...] = ()
    prepare: Callable[[nn.Module], nn.Module] | None = None
    reordered: bool = False
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def active(self) -> AbstractContextManager[Any]:
        """Return the context in which a model computes in this way."""
        return _Replacing(dict(self.replaces)) if self.replaces else self.around()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return a copy of a model that computes in this way by itself: a harmless candidate."""
        model = copy.deepcopy(model)
        if self.prepare:
            model = self.prepare(model)
        return running_under(model, self.active)


def running_under(model: nn.Module, active: Callable[[], AbstractContextManager[Any]]) -> nn.Module:
    """Make a model run inside a context, names and paths unchanged; the model is returned."""
    kind = type(model)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with active():
            return kind.forward(self, *args, **kwargs)

    model.__class__ = type(
        kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__}
    )
    return model


class _Replacing(TorchFunctionMode):
    def __init__(self, table: dict[Any, Replace]) -> None:
        super().__init__()
        self._table = table

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        other = self._table.get(func)
        if other is None:
            return func(*args, **(kwargs or {}))
        return other(func, *args, **(kwargs or {}))


def _channels_last(model: nn.Module) -> nn.Module:
    def convert(_module: nn.Module, inputs: Any) -> Any:
        return tuple(
            x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs
        )

    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.register_forward_pre_hook(convert)
    return model


class _Threads:
    """Another number of threads for a while."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(2 if self._before == 1 else 1)

    def __exit__(self, *problem: Any) -> None:
        torch.set_num_threads(self._before)


class _WithoutOneDNN:
    """PyTorch's own kernels for a while."""

    def __enter__(self) -> None:
        torch._C._set_mkldnn_enabled(False)

    def __exit__(self, *problem: Any) -> None:
        torch._C._set_mkldnn_enabled(True)


_F = nn.functional
_CONV, _NORM, _INTERPOLATE = torch.conv2d, _F.batch_norm, _F.interpolate
_SUMS = (torch.add, torch.Tensor.add, torch.Tensor.__add__)
_WRITTEN_SUMS = (torch.Tensor.add_, torch.Tensor.__iadd__)
_RELU = (_F.relu, torch.relu, torch.Tensor.relu)
_POOLS = ((_F.adaptive_avg_pool2d, ops.pool_as_mean), (_F.avg_pool2d, ops.average_as_mean))


def _conv(replacement: Replace, name: str) -> Rewrite:
    return Rewrite(name=name, replaces=((_CONV, replacement),))


def _norm(replacement: Replace, name: str) -> Rewrite:
    return Rewrite(name=name, replaces=((_NORM, replacement),))


UNFOLDED = _conv(ops.conv_unfolded, "convolution as unfold and matrix product")
HALVED = _conv(ops.conv_halved, "convolution over two halves of its channels")
BY_IMAGE = _conv(ops.conv_by_image, "convolution image by image")
MIRRORED = _conv(ops.conv_mirrored, "convolution of the mirrored image by the mirrored kernel")
THIRDS_CONV = _conv(ops.conv_scaled, "convolution of three times the input, divided by three")
WRITTEN_OUT = _norm(ops.norm_written_out, "batch normalization written out")
FOLDED = _norm(ops.norm_folded, "batch normalization as scale and shift")
SHIFTED = _norm(ops.norm_shifted, "batch normalization of a shifted input")
THIRDS = Rewrite(
    name="sums of thirds, times three",
    replaces=(
        *((f, ops.sum_of_thirds) for f in _SUMS),
        *((f, ops.sum_of_thirds_written) for f in _WRITTEN_SUMS),
    ),
)
STACKED = Rewrite(name="sums as one reduction", replaces=tuple((f, ops.sum_stacked) for f in _SUMS))
REPEATED = Rewrite(name="upsampling by repetition", replaces=((_INTERPOLATE, ops.upsampled),))
RELU_BY_MASK = Rewrite(
    name="ReLU as a product", replaces=tuple((f, ops.relu_by_mask) for f in _RELU)
)
LINEAR_HALVED = Rewrite(
    name="linear layer in two halves", replaces=((_F.linear, ops.linear_halved),)
)
POOLED = Rewrite(name="pooling as a mean", replaces=_POOLS)
LOGSUMEXP = Rewrite(
    name="cross-entropy from log-sum-exp", replaces=((_F.cross_entropy, ops.cross_entropy),)
)
CHANNELS_LAST = Rewrite(name="channels-last memory", prepare=_channels_last)
REORDERED = Rewrite(name="batch in the opposite order", reordered=True)
THREADS = Rewrite(name="another number of threads", around=_Threads)
NO_ONEDNN = Rewrite(name="without oneDNN", around=_WithoutOneDNN)
ALL_AT_ONCE = Rewrite(
    name="halved convolutions, folded normalizations, sums of thirds, halved linear layer",
    replaces=(
        *HALVED.replaces,
        *FOLDED.replaces,
        *THIRDS.replaces,
        *LINEAR_HALVED.replaces,
        *LOGSUMEXP.replaces,
    ),
)

REWRITES = (
    *(UNFOLDED, HALVED, BY_IMAGE, MIRRORED, THIRDS_CONV, WRITTEN_OUT, FOLDED, SHIFTED),
    *(THIRDS, STACKED, REPEATED, RELU_BY_MASK, LINEAR_HALVED, POOLED, LOGSUMEXP),
    *(CHANNELS_LAST, REORDERED, THREADS, NO_ONEDNN, ALL_AT_ONCE),
)
# The cheapest that change bits both forward and backward.
CALIBRATING = (
    *(HALVED, THIRDS_CONV, WRITTEN_OUT, FOLDED, SHIFTED, THIRDS, REORDERED, ALL_AT_ONCE),
)
