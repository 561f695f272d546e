"""Training forms: the same network and the same sums in another order, for speed; off by default.

`EAGER` is the form in which equivalence is shown, and changes nothing. Any other form changes the
order of sums only (memory layout, one matrix product instead of a convolution, one kernel for the
optimizer), or, with `autocast`, the precision. Which form pays depends on shapes and machine, so
it is not tried out when a run starts: `training_forms.toml` is a committed table, written by
``python -m comparison tune`` together with what was measured, and two runs of one table are equal
to the bit. Left out on purpose: compilation (minutes for a few percent) and kernels of our own.
"""

import hashlib
import tomllib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduction.errors import UserError
from reproduction.small_maps import SmallMapConv2d
from reproduction.wide_norm import OF_EAGER

TABLE = Path(__file__).with_name("training_forms.toml")
PRECISIONS = ("float32", "bfloat16")
KEYS = ("network", "image_size", "batch_size", "precision")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a network is run in training.

    Attributes:
        name: What tables call it.
        channels_last: Keep images, activations and weights with channels innermost, and normalize
            maps of many pixels by sums over wide rows, with the shortcut and the ReLU behind it.
        gemm_limit: Convolutions whose output map is at most this wide and high are done as matrix
            products over the taps that touch data; 0: none.
        gemm_weights: Convolutions of at least so many weights are done as matrix products too,
            however large their maps; 0: none.
        fused_optimizer: Update all parameters in one kernel.
        autocast: Type that convolutions and products are cast to, or empty.
    """

    name: str
    channels_last: bool = False
    gemm_limit: int = 0
    gemm_weights: int = 0
    fused_optimizer: bool = False
    autocast: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            if type(getattr(self, field.name)) is not field.type:
                raise UserError(
                    f"{field.name} of a form is {getattr(self, field.name)!r}; give a value of "
                    f"type {getattr(field.type, '__name__', field.type)}"
                )
        if self.autocast not in ("", "bfloat16"):
            raise UserError(f"autocast is {self.autocast!r}; use bfloat16, or nothing")
        if self.gemm_limit < 0:
            raise UserError(f"gemm_limit is {self.gemm_limit}; give 0 or a size of maps")
        if self.gemm_weights < 0:
            raise UserError(f"gemm_weights is {self.gemm_weights}; give 0 or a number of weights")

    @property
    def layout(self) -> torch.memory_format:
        """How images, activations and weights lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, images: torch.Tensor) -> torch.Tensor:
        """Bring images (B, C, H, W) to the form's memory format; values stay."""
        return images.contiguous(memory_format=self.layout)

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which forward pass and loss are run."""
        if not self.autocast:
            return nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.autocast))

    def identity(self) -> dict[str, Any]:
        """Return what decides a run's bits: nothing for `EAGER`, else form and table."""
        return {} if self == EAGER else {"form": asdict(self), "table_sha256": table_sha256()}


EAGER = Form(name="eager")


def table_sha256() -> str:
    """Return the SHA-256 of the committed table.

    Raises:
        UserError: The table is missing.
    """
    return hashlib.sha256(_table_bytes(TABLE)).hexdigest()


def table_rows(path: Path = TABLE) -> list[dict[str, Any]]:
    """Read the table: a row for each tuned shape, with its form and what was measured.

    Raises:
        UserError: The table is missing or damaged.
    """
    try:
        rows = tomllib.loads(_table_bytes(path).decode()).get("row", [])
        keyed = [{**row, **{key: row[key] for key in KEYS}} for row in rows]
        return [{**row, "form": Form(**row["form"])} for row in keyed]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path.name} is damaged ({error}): restore the committed file, or write it again "
            "with `python -m comparison tune`"
        ) from error


def _table_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path.name} cannot be read ({error.strerror}): restore the committed file, or train "
            "in the eager form, which needs none"
        ) from error


def choose_form(network: str, image_size: int, batch_size: int, precision: str = "float32") -> Form:
    """Return the form that the committed table has for a shape; `EAGER` if it has none.

    Args:
        network: Official name.
        image_size: Height and width of the images.
        batch_size: Images a step.
        precision: ``float32`` or ``bfloat16``.

    Raises:
        UserError: The precision is unknown, or the table missing or damaged.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use {' or '.join(PRECISIONS)}")
    asked = (network, image_size, batch_size, precision)
    rows = (row for row in table_rows(TABLE) if tuple(row[key] for key in KEYS) == asked)
    return next((row["form"] for row in rows), EAGER)


def prepare(model: nn.Module, form: Form) -> nn.Module:
    """Bring a model to a form, in place, and return it; `prepare(model, EAGER)` brings it back.

    Parameters stay the same objects; names, order, shapes and values of the state do not change.
    """
    classes = OF_EAGER if form.channels_last else {fast: eager for eager, fast in OF_EAGER.items()}
    for module in model.modules():
        if type(module) in (nn.Conv2d, SmallMapConv2d):
            products = form.gemm_limit or form.gemm_weights
            module.__class__ = SmallMapConv2d if products else nn.Conv2d
            vars(module).update(gemm_limit=form.gemm_limit, gemm_weights=form.gemm_weights)
        elif type(module) in classes:
            module.__class__ = classes[type(module)]
    return model.to(memory_format=form.layout)
