"""The arms whose speed is compared, and how one call of each is made.

All get the same start weights and the same input. The reference, timm's network and the
reproduction run in eager float32; `fast` trains and the others infer in the precision asked for.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

import reference
from comparison import arms
from comparison.speed import machine
from comparison.timing_plan import PRECISIONS, SPEED_TASKS
from reference.errors import ReferenceUnavailable
from reproduction import (
    NETWORKS,
    TrainConfig,
    UserError,
    build_network,
    network_config,
    runtimes,
)
from reproduction.device import DEVICES
from reproduction.forms import EAGER as EAGER_FORM
from reproduction.forms import Form, choose_form, prepare
from reproduction.tasks.classification.task import classification_loss
from reproduction.tasks.task import Batch
from reproduction.train import make_optimizer, train_step

EAGER = "float32"


class CannotRun(Exception):
    """An arm cannot run here or on this input; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is timed, and how.

    Attributes:
        network: Official name.
        task: ``inference`` or ``training`` (a whole step).
        image_size: Height and width.
        batch_size: Images a call.
        precision: Of the arms that have a choice.
        device: ``cpu``, ``cuda`` or ``mps``.
        seed: Of weights and input.
        threads: Of each arm.
    """

    network: str
    task: str
    image_size: tuple[int, int]
    batch_size: int
    precision: str = EAGER
    device: str = "cpu"
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Made:
    """An arm ready to be timed.

    Attributes:
        work: Runs it once.
        precision: In which it computes.
        how: Its form, in words.
        eager: Whether PyTorch runs it operator by operator, so that its profiler sees them.
        decided: The committed table by which its form was chosen, by hash, and the form.
    """

    work: Callable[[], Any]
    precision: str
    how: str
    eager: bool = False
    decided: dict[str, Any] = field(default_factory=dict)


def check(setup: Setup, wanted: Collection[str]) -> None:
    """Refuse what no arm can run, or nothing could be compared on.

    Raises:
        UserError: Naming what was given, what is expected and what to do.
    """
    known = {
        "network": (setup.network, NETWORKS),
        "task": (setup.task, SPEED_TASKS),
        "precision": (setup.precision, PRECISIONS),
        "device": (setup.device, DEVICES),
    }
    for name, (given, expected) in known.items():
        if given not in expected:
            raise UserError(f"{name} {given!r} is unknown; use one of {', '.join(expected)}")
    for arm in wanted:
        if arm not in MAKERS:
            raise UserError(f"arm {arm!r} is unknown; use some of {', '.join(MAKERS)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"arms are {', '.join(wanted) or 'none'}; name each arm once, one at least")
    _check_size(setup)


def _check_size(setup: Setup) -> None:
    for name in ("batch_size", "threads"):
        if getattr(setup, name) < 1:
            raise UserError(f"{name} is {getattr(setup, name)}; give a number of at least 1")
    height, width = setup.image_size
    for side in setup.image_size:
        if side < 1 or side % 32 not in (0, 29, 30, 31):
            raise UserError(
                f"an image size of {height}x{width} runs in the reproduction only: the reference "
                "needs sides with a remainder of 0, 29, 30 or 31 modulo 32; use multiples of 32"
            )
    if setup.task == "training":
        if network_config(setup.network).task != "classification":
            raise UserError(
                f"training of {setup.network} cannot be timed: use a network for classification"
            )
        if setup.batch_size * -(-height // 32) * -(-width // 32) < 2:
            raise UserError(
                f"a batch_size of {setup.batch_size} at {height}x{width} leaves one value a "
                "channel to normalize over: use a batch_size of at least 2"
            )


def example(setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images (B, 3, H, W) and labels (B,), the same for all arms."""
    generator = torch.Generator().manual_seed(setup.seed)
    images = torch.randn(setup.batch_size, 3, *setup.image_size, generator=generator)
    classes = network_config(setup.network).outputs
    labels = torch.randint(classes, (setup.batch_size,), generator=generator)
    device = torch.device(setup.device)
    return images.to(device), labels.to(device)


def reproduction(setup: Setup) -> nn.Module:
    """Build our network with start weights that depend on the seed alone."""
    torch.manual_seed(setup.seed)
    return build_network(setup.network)


def inference(model: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    """Return one forward pass in eval mode, without gradients."""
    model.eval()

    def work() -> None:
        with torch.inference_mode():
            model(images)

    return work


def training(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, form: Form = EAGER_FORM
) -> Callable[[], Any]:
    """Return one training step at learning rate 0: all of its arithmetic, weights unchanged."""
    prepare(model.train(), form)
    config = TrainConfig(learning_rate=0.0)
    optimizer = make_optimizer(model, config, fused=form.fused_optimizer)
    batch = Batch(images, labels, "")
    return lambda: train_step(model, batch, optimizer, classification_loss, form)


def _eager(build: Callable[[Setup], nn.Module], how: str) -> Callable[[Setup], Made]:
    """Return what runs a network as it is built, in float32."""

    def make_one(setup: Setup) -> Made:
        model = build(setup).to(setup.device)
        images, labels = example(setup)
        if setup.task == "training":
            work = training(model, images, labels)
        else:
            work = inference(model, images)
        return Made(work=work, precision=EAGER, how=how, eager=True)

    return make_one


def _reference(source: str) -> Callable[[Setup], nn.Module]:
    """Return what builds a reference with our start weights."""

    def build(setup: Setup) -> nn.Module:
        try:
            model = reference.build(setup.network, source=source)
        except ReferenceUnavailable as problem:
            raise CannotRun(str(problem)) from problem
        arms.transfer(reproduction(setup), model)
        return model

    return build


def _fast(setup: Setup) -> Made:
    """Train in the form that the committed table chooses for the shape."""
    _only(setup, "training", "the fast form is one of training; for inference time deploy")
    _needs_bfloat16(setup)
    height, width = setup.image_size
    form = EAGER_FORM
    if height == width:  # as the images of all rows of the table
        form = choose_form(setup.network, height, setup.batch_size, precision=setup.precision)
    if form == EAGER_FORM:
        raise CannotRun("the committed table of forms has none for this input: it trains in eager")
    images, labels = example(setup)
    work = training(reproduction(setup).to(setup.device), images, labels, form)
    return Made(
        work=work, precision=setup.precision, how=form.name, eager=True, decided=form.identity()
    )


def _deploy(setup: Setup) -> Made:
    """Infer in the deployed form: in the runtime that the committed table chooses."""
    on_gpu = setup.device == "cuda"
    made = _runtime("cuda" if on_gpu else runtimes.chosen(setup.precision), "deploy")(setup)
    return made if on_gpu else replace(made, decided={"table_sha256": runtimes.choice_sha256()})


def _runtime(runtime: str, arm: str = "") -> Callable[[Setup], Made]:
    """Return what infers in one runtime of `reproduction.runtimes`."""

    def make_one(setup: Setup) -> Made:
        _only(setup, "inference", f"{arm or runtime} is for inference; for training time fast")
        _needs_bfloat16(setup)
        if setup.device != ("cuda" if runtime == "cuda" else "cpu"):
            raise CannotRun(f"{runtime} does not run on the device {setup.device!r}")
        model, (images, _) = reproduction(setup).eval(), example(setup)
        given: dict[str, Any] = {"precision": setup.precision, "threads": setup.threads}
        try:
            run = runtimes.load(model, images, runtime, **given)
            run(images)
        except UserError:
            raise
        except Exception as error:  # whatever it is: the row says it, the others are still timed
            said = str(error).strip().partition("\n")[0]
            raise CannotRun(f"{runtime} failed: {type(error).__name__}: {said}") from error
        eager = runtime == "eager"
        return Made(work=lambda: run(images), precision=setup.precision, how=runtime, eager=eager)

    return make_one


def _only(setup: Setup, task: str, reason: str) -> None:
    if setup.task != task:
        raise CannotRun(reason)


def _needs_bfloat16(setup: Setup) -> None:
    if setup.precision == "bfloat16" and setup.device == "cpu" and not machine.has_bfloat16():
        wanted = " or ".join(machine.BFLOAT16)
        raise CannotRun(f"this CPU does not compute in bfloat16 (it has no {wanted})")


MAKERS: dict[str, Callable[[Setup], Made]] = {
    "reference": _eager(_reference("auto"), "eager"),
    "timm": _eager(_reference("timm"), "eager"),
    "reproduction": _eager(reproduction, "eager"),
    "fast": _fast,
    "deploy": _deploy,
    "folded": _runtime("eager"),
    "openvino": _runtime("openvino"),
    "onnxruntime": _runtime("onnxruntime"),
    "torch_compile": _runtime("torch_compile"),
    "cuda": _runtime("cuda"),
}
BESIDE_DEPLOY = ("folded", "openvino", "onnxruntime", "torch_compile", "cuda")


def make(arm: str, setup: Setup) -> Made:
    """Build an arm and return what runs it once.

    Raises:
        CannotRun: It cannot run here, or on this input; the message says why.
    """
    try:
        return MAKERS[arm](setup)
    except UserError as problem:
        raise CannotRun(str(problem)) from problem
