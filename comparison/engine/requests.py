"""What `compare` is asked for, checked before anything runs long; each mistake is one sentence."""

import inspect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from comparison.engine.leader import BUDGET_MIB
from comparison.engine.sides import Batch, Side
from comparison.engine.trace import tensors_in
from reproduction.errors import UserError

NAMES = ("reference", "candidate")
WEIGHTS = ("random", "given")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How thoroughly two models are compared.

    Attributes:
        weights: ``random`` draws a state in which no tensor is trivial and gives it to both
            sides; ``given`` compares the models with the weights that they have.
        steps: Teacher-forced optimizer steps.
        free_steps: Free optimizer steps; 0 leaves the mode out.
        epochs: How many epochs of the schedules are compared.
        seed: Of the random state, of further batches and of fresh initializations.
        budget_mib: Memory that the recorded tensors may take.
        edge_case: Names the edge case if fewer than 8 values per channel of batch statistics are
            meant.
        sweep: Whether to compare on further inputs that the checker proposes.
    """

    weights: str = "random"
    steps: int = 2
    free_steps: int = 5
    epochs: int = 100
    seed: int = 0
    budget_mib: float = BUDGET_MIB
    edge_case: str = ""
    sweep: bool = False


def checked_options(given: Mapping[str, Any]) -> Options:
    """Return the options that were given.

    Raises:
        UserError: One is unknown, or its value makes no sense.
    """
    known = {item.name: item for item in fields(Options)}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"option {name!r} is unknown; use {', '.join(known)}")
        if known[name].type is int and (type(value) is not int or value < 0):
            raise UserError(f"{name} is {value!r}: give a whole number of at least 0")
        if known[name].type in (str, bool) and type(value) is not known[name].type:
            raise UserError(f"{name} is {value!r}: give {_said(known[name].type)}")
    options = Options(**given)
    if options.weights not in WEIGHTS:
        raise UserError(f"weights is {options.weights!r}: use {' or '.join(WEIGHTS)}")
    budget = options.budget_mib
    if type(budget) not in (int, float) or not 0 < budget < math.inf:
        raise UserError(f"budget_mib is {budget!r}: give a number of MiB above 0")
    return options


def make_sides(
    models: tuple[nn.Module, nn.Module], loss: Any, optimizer: Any, scheduler: Any
) -> tuple[Side, Side]:
    """Return both sides of a comparison.

    Raises:
        UserError: A model is none that can be watched, or an argument has a wrong type.
    """
    for name, model in zip(NAMES, models, strict=True):
        _check_model(name, model)
    if loss is not None and not callable(loss):
        raise UserError(f"loss is {_kind(loss)}: give a function of output and targets")
    if optimizer is not None and loss is None:
        raise UserError("an optimizer was given without a loss: give loss, or leave both out")
    if scheduler is not None and optimizer is None:
        raise UserError("a scheduler was given without an optimizer: give optimizer as well")
    optimizers = _two("optimizer", optimizer, "model")
    schedulers = _two("scheduler", scheduler, "optimizer")
    first, second = (
        Side(model=model, loss=loss, make_optimizer=optimizers[i], make_scheduler=schedulers[i])
        for i, model in enumerate(models)
    )
    return first, second


def check_devices(sides: tuple[Side, Side], batch: Batch) -> None:
    """Refuse inputs without values, and models and inputs that do not lie on one device.

    Raises:
        UserError: Says which lies where.
    """
    given = tensors_in(batch.inputs)
    if not given:
        raise UserError(
            f"inputs hold no tensor but {_kind(batch.inputs)}: give one tensor, or a tuple of "
            "arguments"
        )
    if not given[0].numel():
        raise UserError(f"inputs of shape {tuple(given[0].shape)} are empty: give some values")
    devices = {
        name: {str(t.device) for t in _state(side.model).values()}
        for name, side in zip(NAMES, sides, strict=True)
    }
    devices["inputs"] = {str(t.device) for t in tensors_in((batch.inputs, batch.targets))}
    found = set().union(*devices.values())
    if len(found) > 1:
        said = "; ".join(f"{name} on {', '.join(sorted(on))}" for name, on in devices.items())
        raise UserError(f"models and inputs lie on different devices ({said}): move all to one")
    if found == {"meta"}:
        raise UserError("models and inputs lie on the meta device, which holds no values: use cpu")


def check_map(name_map: Any, reference: nn.Module, candidate: nn.Module) -> None:
    """Refuse a map of names that names tensors which do not exist, or one twice.

    Raises:
        UserError: Says which.
    """
    if name_map is None:
        return
    if not isinstance(name_map, Mapping) and not callable(name_map):
        raise UserError(
            f"name_map is {_kind(name_map)}: give a mapping or a function from the candidate's "
            "names to the reference's"
        )
    left, right = _state(reference), _state(candidate)
    if isinstance(name_map, Mapping):
        named = dict(name_map)
        for side, names, known in (
            ("candidate", named, right),
            ("reference", [*named.values()], left),
        ):
            if unknown := [name for name in names if name not in known]:
                raise UserError(
                    f"name_map names {len(unknown)} tensors that the {side} does not have, the "
                    f"first is {unknown[0]!r}: it maps the candidate's names to the reference's"
                )
    else:
        named = {name: _translated(name_map, name) for name in right}
    counts = Counter(name for name in named.values() if name in left)
    for name, count in counts.items():
        if count > 1:
            of = [own for own, other in named.items() if other == name][:3]
            raise UserError(
                f"name_map maps {count} tensors ({', '.join(of)}) to {name} of the reference: map "
                "each to one of its own"
            )


def check_optimizer(name: str, side: Side) -> None:
    """Refuse optimizers and schedules that cannot be stepped.

    Raises:
        UserError: Says whose, and why.
    """
    if side.make_optimizer is None:
        return
    optimizer = _made(name, "optimizer", side.make_optimizer, side.model, Optimizer)
    own = {id(parameter) for parameter in side.model.parameters()}
    of = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(id(parameter) in own for parameter in of):
        raise UserError(
            f"the {name}'s optimizer has none of its model's parameters: build it from the model "
            "that the function is given, which is a copy"
        )
    if needed := _needed(optimizer.step):
        raise UserError(
            f"the {name}'s {type(optimizer).__name__} needs a {needed} for each step, which the "
            "comparison does not make: use another optimizer, or leave it out"
        )
    if side.make_scheduler is None:
        return
    scheduler = _made(name, "scheduler", side.make_scheduler, optimizer, object)
    if not callable(getattr(scheduler, "step", None)):
        raise UserError(f"the {name}'s scheduler is {_kind(scheduler)}: make one that has step()")
    if needed := _needed(scheduler.step):
        raise UserError(
            f"the {name}'s {type(scheduler).__name__} needs {needed} for each epoch, so its rates "
            "are not known without training: leave the scheduler out"
        )


def check_fresh(fresh: Any) -> None:
    """Refuse what are not two functions."""
    pair = isinstance(fresh, tuple) and len(fresh) == 2 and all(callable(make) for make in fresh)
    if fresh is not None and not pair:
        raise UserError(
            f"fresh is {_kind(fresh)}: give a pair of functions without arguments, which make a "
            "fresh reference and a fresh candidate"
        )


def check_pairs(data: Any, accuracy: Any) -> None:
    """Refuse data that are no pair and accuracies that are no triple."""
    if data is not None and not (isinstance(data, tuple) and len(data) == 2):
        raise UserError(f"data is {_kind(data)}: give a pair, the batches of both sides")
    if accuracy is not None and not (isinstance(accuracy, tuple) and len(accuracy) == 3):
        raise UserError(
            f"accuracy is {_kind(accuracy)}: give the reference's, the candidate's, and the margin"
        )


def _check_model(name: str, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"the {name} is {_kind(model)}: give a torch.nn.Module")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UserError(
            f"the {name} is a ScriptModule or holds one, whose operations cannot be watched: give "
            "the module that it was made from"
        )
    for own, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise UserError(
                f"{own} of the {name} is not initialized yet: run the model once on the inputs"
            )
        if tensor.is_complex():
            raise UserError(f"{own} of the {name} is complex: give models of real parameters")


def _two(name: str, given: Any, of: str) -> tuple[Any, Any]:
    """Return what the two sides use: one function for both, or one each."""
    pair = given if isinstance(given, tuple) else (given, given)
    if len(pair) != 2:
        raise UserError(f"{name} holds {len(pair)} functions: give one, or a pair, one a side")
    for side, make in zip(NAMES, pair, strict=True):
        if given is not None and not callable(make):
            raise UserError(
                f"{name} of the {side} is {_kind(make)}: give a function that makes one from the "
                f"{of}"
            )
    return pair[0], pair[1]


def _made(name: str, kind: str, make: Any, argument: Any, expected: type) -> Any:
    try:
        made = make(argument)
    except Exception as error:
        raise UserError(
            f"the {name}'s {kind} could not be made ({type(error).__name__}: {first_line(error)}): "
            f"give a function of the {'model' if kind == 'optimizer' else 'optimizer'}"
        ) from error
    if not isinstance(made, expected):
        raise UserError(
            f"the {name}'s {kind} is {_kind(made)}: give a function that returns a torch.optim one"
        )
    return made


def _needed(step: Any) -> str:
    """Return the name of the first argument that a function cannot do without."""
    for parameter in inspect.signature(step).parameters.values():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic:
            return parameter.name
    return ""


def _translated(name_map: Any, name: str) -> Any:
    try:
        return name_map(name)
    except (KeyError, ValueError):
        return None
    except Exception as error:
        raise UserError(
            f"name_map fails on {name} ({type(error).__name__}: {first_line(error)}): raise "
            "KeyError for a name that has no counterpart"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().partition("\n")[0]


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _said(kind: Any) -> str:
    return "True or False" if kind is bool else "a text in quotes"
