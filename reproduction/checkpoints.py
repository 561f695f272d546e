"""Official parameter names and ours: one declarative table, read in both directions.

The left column is the name in official checkpoints, the right one ours; ``{x}`` stands for a
number and means the same on both sides. The table maps modules; the tensors of a module
(``weight``, ``running_mean``, ...) have the same names everywhere.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import nn

from reproduction.durable import whole
from reproduction.errors import UserError
from reproduction.wrapping import unwrapped

# The same residual unit appears in several places; {n} is 1, 2 or 3.
_UNIT = (("conv{n}", "unit{n}.conv"), ("bn{n}", "unit{n}.norm"))
_SHORTCUT = (("downsample.0", "shortcut.conv"), ("downsample.1", "shortcut.norm"))
_CONV_NORM = (("0", "conv"), ("1", "norm"))


def _under(official: str, ours: str, *tables: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(f"{official}.{a}", f"{ours}.{b}") for table in tables for a, b in table]


def _body(official: str, ours: str) -> list[tuple[str, str]]:
    """Name the layers of a body whose official names and ours start with the given prefixes."""
    block = "stage{s}.{m}"
    rows = [
        *_UNIT_IN_STEM,
        *_under("layer1.{k}", "stage1.{k}", _UNIT, _SHORTCUT),
        # Transition {t}: an adapted stream has one nesting level, a new stream two.
        *_under("transition{t}.{i}", "transition{t}.paths.{i}", _CONV_NORM),
        *_under("transition{t}.{i}.{u}", "transition{t}.paths.{i}.{u}", _CONV_NORM),
        *_under(f"{block}.branches.{{r}}.{{k}}", f"{block}.streams.{{r}}.{{k}}", _UNIT),
        # Exchange path {j} -> {i}: one unit upwards, a chain of units {u} downwards.
        *_under(f"{block}.fuse_layers.{{i}}.{{j}}", f"{block}.exchange.paths.{{i}}.{{j}}", _PATH),
    ]
    return [(official + theirs, ours + name) for theirs, name in rows]


_UNIT_IN_STEM = tuple((official, f"stem.{ours}") for official, ours in _UNIT)
_PATH = (*_CONV_NORM, *((f"{{u}}.{official}", f"{{u}}.{ours}") for official, ours in _CONV_NORM))
_PIXELS = (("0", "mix.conv"), ("1", "mix.norm"), ("3", "predict"))
# Units of the class attention, one and two in a row; their norm lies one level deeper.
_ATTENTION = (("0", "conv"), ("1.0", "norm"))
_ATTENTION_TWICE = (("0", "0.conv"), ("1.0", "0.norm"), ("2", "1.conv"), ("3.0", "1.norm"))
_CONTEXT = "ocr_distri_head.object_context_block"

NAMES: tuple[tuple[str, str], ...] = (
    *_body("", "backbone."),
    *_under("incre_modules.{i}.0", "head.widen.{i}", _UNIT, _SHORTCUT),
    *_under("downsamp_modules.{i}", "head.descend.{i}", _CONV_NORM),
    *_under("final_layer", "head.project", _CONV_NORM),
    ("classifier", "head.classifier"),
    ("final_layer", "head.heatmaps"),
    *_under("last_layer", "head.classify", _PIXELS),
    *_under("head", "head.locate", _PIXELS),
    *_under("conv3x3_ocr", "head.represent", _CONV_NORM),
    *_under(f"{_CONTEXT}.f_pixel", "head.attention.query", _ATTENTION_TWICE),
    *_under(f"{_CONTEXT}.f_object", "head.attention.key", _ATTENTION_TWICE),
    *_under(f"{_CONTEXT}.f_down", "head.attention.value", _ATTENTION),
    *_under(f"{_CONTEXT}.f_up", "head.attention.restore", _ATTENTION),
    *_under("ocr_distri_head.conv_bn_dropout", "head.merge", _ATTENTION),
    ("cls_head", "head.predict"),
    *_under("aux_head", "head.auxiliary", _PIXELS),
    *_body("backbone.", "body."),
    ("neck.reduction_conv.0", "neck.reduce"),
    ("neck.fpn_conv.{i}", "neck.levels.{i}"),
)

# The part of a head that no other task has.
_TASKS = {
    "head.classifier": "classification",
    "head.heatmaps": "pose",
    "head.classify": "segmentation",
    "head.represent": "ocr",
    "head.locate": "landmarks",
    "neck.reduce": "detection",
}
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

    What official files wrap around a network is taken off (`reproduction.wrapping`); what belongs
    to a loss or to the rest of a detector is passed over. PyTorch files are read with
    ``weights_only=True``: nothing in them is executed.

    Args:
        network: A network of this package; its state is changed only if everything fits.
        path: The file.

    Raises:
        UserError: The file is missing, unreadable, or does not fit the network; the message
            names the part that is missing, or the first keys or shapes that do not fit.
    """
    path = Path(path)
    found = read_weights(path)
    names = {_our_name_or_same(name): name for name in found}
    if twice := found.keys() - names.values():
        raise UserError(
            f"{path.name} holds {min(twice)} under two names, the official one and ours: remove one"
        )
    _check_head(network, names, path)
    expected = network.state_dict()
    _check_parts(expected, names, path)
    reshaped = {
        name: (found[name].shape, expected[ours].shape)
        for ours, name in names.items()
        if ours in expected and found[name].shape != expected[ours].shape
    }
    wrong = [
        *(f"missing {official_name(name)}" for name in expected if name not in names),
        *(f"unexpected {name}" for ours, name in names.items() if ours not in expected),
        *(f"{name} is {tuple(is_)}, expected {tuple(e)}" for name, (is_, e) in reshaped.items()),
    ]
    if wrong and all(line.endswith(".num_batches_tracked") for line in wrong):
        raise UserError(
            f"{path.name} has no counts of batches, as files of PyTorch 0.4 have none: their "
            "normalization scales by |weight| + eps, so that they give other numbers here; give a "
            "file of a later PyTorch"
        )
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"{path.name} does not fit this network ({'; '.join(wrong[:_SHOWN])}{more}): "
            + _advice(list(reshaped.values()) if len(reshaped) == len(wrong) else [])
        )
    _check_values(found, path)
    network.load_state_dict({ours: found[name] for ours, name in names.items()}, strict=True)


def _check_values(found: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise if weights are not finite, or not in float32 or float64."""
    for name, value in found.items():
        if value.is_floating_point() and value.dtype not in (torch.float32, torch.float64):
            raise UserError(
                f"{path.name} holds {name} in {str(value.dtype).removeprefix('torch.')}, expected "
                "float32: convert the file, so that what is lost by it is known"
            )
        if not torch.isfinite(value).all():
            raise UserError(
                f"{path.name} holds values in {name} that are not finite: the training that wrote "
                "it diverged, or it is damaged; give another file"
            )


def _check_head(network: nn.Module, names: Mapping[str, str], path: Path) -> None:
    """Raise if a file has the head of another task than the network."""
    task = getattr(getattr(network, "config", None), "task", None)
    heads = {".".join(name.split(".")[:2]) for name in names}
    there = [of for head, of in _TASKS.items() if head in heads or head in names]
    if task and there and task not in there:
        raise UserError(
            f"{path.name} holds weights of a network for {there[0]}, expected one for {task}: "
            "give a file of this task, or build the network that the file was made for"
        )


def _check_parts(expected: Mapping[str, Any], names: Mapping[str, str], path: Path) -> None:
    """Raise if a file lacks a part of the network, such as its head, and fits otherwise."""
    there = {_part(name) for name in names}
    missing = [name for name in expected if name not in names]
    parts = dict.fromkeys(_part(name) for name in missing)
    if not (missing and there) or parts.keys() & there or not names.keys() <= expected.keys():
        return
    raise UserError(
        f"{path.name} has no weights of the network's {' and '.join(parts)} ({len(missing)} "
        f"tensors, such as {official_name(missing[0])}), only of its {' and '.join(sorted(there))}:"
        " give a file of the whole network"
    )


def _part(name: str) -> str:
    return name.partition(".")[0]


def _advice(reshaped: list[tuple[torch.Size, torch.Size]]) -> str:
    """Say what to do; if only first dimensions differ, all in the same way, it is the count."""
    counts = {(found[:1], expected[:1]) for found, expected in reshaped}
    if len(counts) == 1 and all(found[1:] == expected[1:] for found, expected in reshaped):
        ((found, _),) = counts
        return f"it was trained with {found[0]} outputs, so build it with num_classes={found[0]}"
    return "check the network's name and the class count it was trained with"


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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole(Path(path)) as partial:
        safetensors.torch.save_file(tensors, partial)


def load_torch(path: Path) -> Any:
    """Read a PyTorch file; nothing in it is executed, nor is it larger unpacked than packed.

    Raises:
        Exception: Many types, on damaged bytes and on anything but tensors and plain values.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile("PyTorch stores its files as they are; these are compressed")
    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_size(content, path.stat().st_size)
    return content


def _check_size(content: Any, size: int) -> None:
    """Refuse what stands for more than a file of `size` bytes can hold, such as repeated lists."""
    waiting, seen = [content], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if isinstance(value, torch.Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError("a tensor is larger than what is stored of it")
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
        if seen + len(waiting) > size:
            raise ValueError("it has more values than bytes")


def read_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """Read the tensors of a network from a file, by official names or ours.

    Raises:
        UserError: The file is missing, unreadable, or holds no state dict.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = load_torch(path)
    except Exception as error:  # both readers raise many types on damaged bytes
        raise UserError(
            f"{path.name} cannot be read as a weights file ({type(error).__name__}): it is "
            "damaged or holds more than tensors; download or export it again"
        ) from error
    return unwrapped(content, path.name)


def _our_name_or_same(name: str) -> str:
    try:
        return our_name(name)
    except UserError:
        return name
