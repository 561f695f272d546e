"""Official parameter names and ours: one declarative table, read in both directions.

The left column is the name in official checkpoints, the right one ours; ``{x}`` stands for a
number and means the same on both sides. The table maps modules; the tensors of a module
(``weight``, ``running_mean``, ...) have the same names everywhere.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import nn

from reproduction.errors import UserError

# The same residual unit appears in several places; {n} is 1, 2 or 3.
_UNIT = (("conv{n}", "unit{n}.conv"), ("bn{n}", "unit{n}.norm"))
_SHORTCUT = (("downsample.0", "shortcut.conv"), ("downsample.1", "shortcut.norm"))
_CONV_NORM = (("0", "conv"), ("1", "norm"))


def _under(official: str, ours: str, *tables: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(f"{official}.{a}", f"{ours}.{b}") for table in tables for a, b in table]


NAMES: tuple[tuple[str, str], ...] = (
    *[(official, f"backbone.stem.{ours}") for official, ours in _UNIT],
    *_under("layer1.{k}", "backbone.stage1.{k}", _UNIT, _SHORTCUT),
    # Transition {t}: an adapted stream has one nesting level, a new stream two.
    *_under("transition{t}.{i}", "backbone.transition{t}.paths.{i}", _CONV_NORM),
    *_under("transition{t}.{i}.{u}", "backbone.transition{t}.paths.{i}.{u}", _CONV_NORM),
    *_under("stage{s}.{m}.branches.{r}.{k}", "backbone.stage{s}.{m}.streams.{r}.{k}", _UNIT),
    # Exchange path {j} -> {i}: one unit upwards, a chain of units {u} downwards.
    *_under(
        "stage{s}.{m}.fuse_layers.{i}.{j}",
        "backbone.stage{s}.{m}.exchange.paths.{i}.{j}",
        _CONV_NORM,
    ),
    *_under(
        "stage{s}.{m}.fuse_layers.{i}.{j}.{u}",
        "backbone.stage{s}.{m}.exchange.paths.{i}.{j}.{u}",
        _CONV_NORM,
    ),
    *_under("incre_modules.{i}.0", "head.widen.{i}", _UNIT, _SHORTCUT),
    *_under("downsamp_modules.{i}", "head.descend.{i}", _CONV_NORM),
    *_under("final_layer", "head.project", _CONV_NORM),
    ("classifier", "head.classifier"),
)

# What wraps the network in published files: the official training scripts add these.
PREFIXES = ("module.", "model.")
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_SHOWN = 3


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    template: str


def _rules(table: tuple[tuple[str, str], ...]) -> tuple[_Rule, ...]:
    def pattern(name: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(name)))

    return tuple(_Rule(pattern(source), target) for source, target in table)


_TO_OURS = _rules(NAMES)
_TO_OFFICIAL = _rules(tuple((ours, official) for official, ours in NAMES))


def _translate(name: str, rules: tuple[_Rule, ...]) -> str:
    module, dot, tensor = name.rpartition(".")
    if tensor not in _TENSORS:
        module, dot, tensor = name, "", ""
    for rule in rules:
        if match := rule.pattern.fullmatch(module):
            return rule.template.format(**match.groupdict()) + dot + tensor
    raise UserError(f"{name!r} fits no line of the name table in reproduction/checkpoints.py")


def official_name(name: str) -> str:
    """Translate our name of a tensor or of a layer into the official one.

    >>> official_name("backbone.stage2.0.exchange.paths.1.0.0.conv.weight")
    'stage2.0.fuse_layers.1.0.0.0.weight'

    Raises:
        UserError: The name fits no line of the table.
    """
    return _translate(name, _TO_OFFICIAL)


def our_name(name: str) -> str:
    """Translate an official name of a tensor or of a layer into ours.

    >>> our_name("layer1.0.bn3")
    'backbone.stage1.0.unit3.norm'

    Raises:
        UserError: The name fits no line of the table.
    """
    return _translate(name, _TO_OURS)


def to_official(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Rename a state dict of ours; order and tensors stay as they are."""
    return OrderedDict((official_name(name), tensor) for name, tensor in state.items())


def from_official(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Rename an official state dict; order and tensors stay as they are."""
    return OrderedDict((our_name(name), tensor) for name, tensor in state.items())


def load_checkpoint(network: nn.Module, path: str | Path) -> None:
    """Load weights strictly, under official names or ours, from safetensors or PyTorch files.

    Wrapper prefixes (``module.``, ``model.``) and an outer ``state_dict`` are taken off. PyTorch
    files are read with ``weights_only=True``: nothing in them is executed.

    Args:
        network: A network of this package; its state is changed only if everything fits.
        path: The file.

    Raises:
        UserError: The file is missing, unreadable, or does not fit the network; the message
            names the first keys or shapes that do not.
    """
    path = Path(path)
    found = _without_prefix(_read(path))
    expected = network.state_dict()
    names = {_our_name_or_same(name): name for name in found}
    wrong = [
        *(f"missing {official_name(name)}" for name in expected if name not in names),
        *(f"unexpected {name}" for ours, name in names.items() if ours not in expected),
        *(
            f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[ours].shape)}"
            for ours, name in names.items()
            if ours in expected and found[name].shape != expected[ours].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"{path.name} does not fit this network ({'; '.join(wrong[:_SHOWN])}{more}): "
            "check the network's name and the class count it was trained with"
        )
    network.load_state_dict({ours: found[name] for ours, name in names.items()}, strict=True)


def save_checkpoint(network: nn.Module, path: str | Path, naming: str = "official") -> None:
    """Save weights as safetensors, atomically.

    Args:
        network: A network of this package.
        path: The file to write; its folder must exist.
        naming: ``official`` or ``ours``.

    Raises:
        UserError: The naming is unknown.
    """
    if naming not in ("official", "ours"):
        raise UserError(f"naming is {naming!r}; use official or ours")
    state = network.state_dict()
    save_tensors(to_official(state) if naming == "official" else state, path)


def save_tensors(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write named tensors to a safetensors file in one step: whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        safetensors.torch.save_file(tensors, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many types on damaged bytes
        raise UserError(
            f"{path.name} cannot be read as a weights file ({type(error).__name__}): it is "
            "damaged or holds more than tensors; download or export it again"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise UserError(f"{path.name} holds no state dict; expected a mapping of names to tensors")
    return content


def _without_prefix(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefix({name[len(prefix) :]: state[name] for name in state})
    return state


def _our_name_or_same(name: str) -> str:
    try:
        return our_name(name)
    except UserError:
        return name
