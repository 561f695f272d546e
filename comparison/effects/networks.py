"""Differences of the networks: interpolation, input sizes, class count, head, batch of one."""

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from comparison import arms
from comparison.counting import conv_biases
from comparison.effects.subjects import (
    BATCH,
    CLASSES,
    IMAGE_SIZE,
    Effect,
    Subjects,
    relative,
    train_mode,
)
from comparison.study import ARMS
from reproduction import UserError
from reproduction.checkpoints import load_checkpoint, to_official

# Sizes at which the official code runs, and at which its streams do not fit one another.
SIZES_THAT_FIT = (224, 223, 222, 221, 29)
SIZES_THAT_DO_NOT = (220, 225, 240, 33)
# Far above float64 rounding through the network (1e-14), far below any true difference.
EQUAL = 1e-11


class _BilinearInsteadOfNearest(TorchFunctionMode):
    """Answer every call for nearest-neighbor interpolation with a bilinear one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.interpolate and kwargs.get("mode", "nearest") == "nearest":
            kwargs.update(mode="bilinear", align_corners=False)
        return func(*args, **kwargs)


@torch.no_grad()
def interpolation(subjects: Subjects) -> Effect:
    """D1: bilinear instead of nearest upsampling in every exchange unit, batch statistics."""
    images = subjects.images(BATCH, IMAGE_SIZE)
    changes = {}
    for arm, model in subjects.models.items():
        with train_mode(model):
            nearest = model(images)
            with _BilinearInsteadOfNearest():
                changes[arm] = relative(model(images), nearest)
    agree = abs(changes["reference"] - changes["reproduction"]) < 1e-6
    return Effect(
        what="relative L2 change of the logits, bilinear for nearest, random weights",
        value=changes["reproduction"],
        unit="1",
        holds=agree and changes["reproduction"] > 1e-3,
    )


@torch.no_grad()
def convolution_order(seed: int) -> Effect:
    """D2: 1x1 convolution and normalization before or after bilinear upsampling."""
    generator = torch.Generator().manual_seed(seed)
    path = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)).double().eval()
    for tensor in path.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)
    x = torch.randn(2, 32, 8, 8, generator=generator, dtype=torch.float64)

    def upsampled(y: torch.Tensor) -> torch.Tensor:
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)

    change = relative(path(upsampled(x)), upsampled(path(x)))
    return Effect(
        what="relative L2 change of one path's output, upsampling first (eval mode)",
        value=change,
        unit="1",
        holds=change < 1e-12,
    )


@torch.no_grad()
def run_size(subjects: Subjects, size: int) -> dict[str, Any]:
    """Run both arms on one image of `size` x `size` pixels; errors are results."""
    image = subjects.images(1, size)
    outputs: dict[str, torch.Tensor] = {}
    row: dict[str, Any] = {"image_size": size}
    for arm, model in subjects.models.items():
        try:
            logits = model(image)
        except RuntimeError as error:
            row[arm] = f"raises {type(error).__name__}"
            continue
        row[arm] = "runs" if logits.isfinite().all() else "not finite"
        if row[arm] == "runs":
            outputs[arm] = logits
    both = len(outputs) == len(ARMS)
    change = relative(outputs["reproduction"], outputs["reference"]) if both else None
    return {**row, "relative_difference": change}


def sizes_table(subjects: Subjects) -> list[dict[str, Any]]:
    """Run both arms at the sizes that fit and at those that do not."""
    return [run_size(subjects, size) for size in (*SIZES_THAT_FIT, *SIZES_THAT_DO_NOT)]


def input_sizes(rows: list[dict[str, Any]]) -> Effect:
    """D3: which input sizes run."""
    fit = [row for row in rows if row["image_size"] in SIZES_THAT_FIT]
    rest = [row for row in rows if row["image_size"] not in SIZES_THAT_FIT]
    equal = [row["relative_difference"] for row in fit]
    refused = sum(row["reference"].startswith("raises") for row in rest)
    return Effect(
        what="sizes that the reference refuses and the reproduction runs; equal at all others",
        value=refused,
        unit=f"of {len(rows)} sizes tried",
        holds=refused == len(rest)
        and all(row["reproduction"] == "runs" for row in rows)
        and all(change is not None and change < EQUAL for change in equal),
    )


@torch.no_grad()
def class_count(subjects: Subjects) -> Effect:
    """D6: outputs for a task of ten classes."""
    images = subjects.images(1, IMAGE_SIZE)
    ours = arms.build("reproduction", subjects.network, 10).double().eval()
    outputs = subjects.models["reference"](images).shape[1]
    return Effect(
        what="outputs of the reference for a task of 10 classes",
        value=outputs,
        unit="outputs",
        holds=outputs == CLASSES and ours(images).shape[1] == 10,
    )


def _gradient_ratio(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Largest rms gradient of a convolution bias, relative to the median over parameters."""
    parameters = list(model.parameters())
    with train_mode(model):
        loss = F.cross_entropy(model(images), labels)
        gradients = torch.autograd.grad(loss, parameters)
    rms = {
        id(parameter): float(gradient.square().mean().sqrt())
        for parameter, gradient in zip(parameters, gradients, strict=True)
    }
    biases = [rms[id(bias)] for bias in conv_biases(model)]
    return max(biases) / statistics.median(rms.values())


def head_biases(subjects: Subjects) -> Effect:
    """D10: gradients of the biases that a normalization follows."""
    images, labels = subjects.images(8, IMAGE_SIZE), torch.arange(8)
    ratios = {arm: _gradient_ratio(m, images, labels) for arm, m in subjects.models.items()}
    return Effect(
        what="largest gradient of these biases, relative to the median parameter's (rms)",
        value=max(ratios.values()),
        unit="1",
        holds=all(ratio < 1e-12 for ratio in ratios.values()),
    )


def batch_of_one(subjects: Subjects) -> Effect:
    """D11: one image of 32 pixels in train mode."""
    refusals = {}
    for arm, model in subjects.models.items():
        with train_mode(model):
            try:
                model(subjects.images(1, 32))
            except ValueError as error:
                refusals[arm] = error
    return Effect(
        what="arms that refuse one image of 32 x 32 pixels in train mode",
        value=len(refusals),
        unit="of 2",
        holds=len(refusals) == 2 and isinstance(refusals["reproduction"], UserError),
    )


@torch.no_grad()
def replaced_inputs(model: nn.Module, images: torch.Tensor) -> int:
    """Count entries of lists passed between modules that the callee replaced."""
    seen: dict[int, tuple[list, list]] = {}

    def remember(module: nn.Module, inputs: tuple) -> None:
        if inputs and isinstance(inputs[0], list):
            seen.setdefault(id(inputs[0]), (inputs[0], list(inputs[0])))

    handles = [module.register_forward_pre_hook(remember) for module in model.modules()]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return sum(a is not b for now, then in seen.values() for a, b in zip(now, then, strict=True))


def list_mutation(subjects: Subjects) -> Effect:
    """D12: whether a stage changes the list of streams that it was given."""
    images = subjects.images(1, IMAGE_SIZE)
    replaced = {arm: replaced_inputs(model, images) for arm, model in subjects.models.items()}
    return Effect(
        what="entries of input lists that the reference's modules replace in one pass",
        value=replaced["reference"],
        unit="entries",
        holds=replaced["reference"] > 0 and replaced["reproduction"] == 0,
    )


def missing_checkpoint(subjects: Subjects) -> Effect:
    """D13: loading weights from a file that does not exist."""
    try:
        load_checkpoint(subjects.models["reproduction"], "no-such-file.pth")
        refused = False
    except UserError:
        refused = True
    return Effect(
        what="the reproduction refuses a missing file (the reference starts from random weights)",
        value=int(refused),
        unit="of 1",
        holds=refused,
    )


def weight_names(subjects: Subjects) -> Effect:
    """D17: state-dict entries whose name differs, and whether the table translates them all."""
    reference, ours = (model.state_dict() for model in subjects.models.values())
    translated = to_official(ours)
    same = [
        a == b and translated[a].shape == reference[b].shape
        for a, b in zip(translated, reference, strict=True)
    ]
    return Effect(
        what=f"of {len(ours)} state-dict entries, those with another name; the table maps all",
        value=sum(a != b for a, b in zip(ours, reference, strict=True)),
        unit="entries",
        holds=all(same),
    )
