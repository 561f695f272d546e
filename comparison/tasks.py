"""Train one arm for a dense task on composed scenes, and record what came of it.

Both arms go through `reproduction.train.train`, with the start weights and the batches that the
seed decides; then the other arm runs the trained weights. Where the official code of a task is
absent its arm is recorded as not run, and the reproduction is trained all the same.
"""

import copy
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

import reference
from comparison import arms, clock, dense_arms
from comparison.parameters import Settings
from comparison.record import measurement, new_record
from comparison.snapshots import snapshots
from comparison.study import study_of
from comparison.training import WEIGHTS, weights_digest
from reference import ReferenceUnavailable
from reproduction.checkpoints import save_tensors
from reproduction.device import resolve_device
from reproduction.recipe import Recipe
from reproduction.tasks.detection.task import Detected, best_boxes
from reproduction.tasks.scenes.dataset import Scenes, load_scenes
from reproduction.tasks.scenes.keypoints import Located
from reproduction.tasks.scenes.labeling import Labeled
from reproduction.tasks.scenes.plans import SCENE_PX, ScenePlan, SceneTask, scene_plan
from reproduction.tasks.task import outputs_of
from reproduction.train import LOSS_WINDOW, TrainResult, train

TEST_SCENES = 100
EXCHANGED = 16  # test images that the other arm sees as well
SMALLEST = 1e-12  # in place of zero outputs, such as a detector without boxes has
CLAIMS = ["C15"]


@dataclass(frozen=True)
class Exchanged:
    """What the other arm makes of the trained weights, in float64.

    Attributes:
        images: Test images seen.
        max_difference: Largest difference of an output, relative to the largest output.
        other_decisions: Pixels, peaks or best boxes that another class or place wins.
        decisions: Of how many.
    """

    images: int
    max_difference: float
    other_decisions: int
    decisions: int


def run(settings: Settings) -> dict[str, Any]:
    """Train one arm from its seed, exchange the weights, and return the record.

    Raises:
        UserError: Task, recipe, checkpoint or device do not fit; the message says what to do.
    """
    started = time.perf_counter()
    plan = scene_plan(settings.task)
    recipe = replace(plan.recipe, epochs=settings.epochs)
    try:
        model = dense_arms.build_from_seed(plan, settings.arm, settings.variant, settings.seed)
    except ReferenceUnavailable as missing:
        return _not_run(settings, recipe, str(missing), time.perf_counter() - started)
    device = resolve_device(settings.device)
    train_scenes, test_scenes = (
        load_scenes(split, count=count, image_size=SCENE_PX)
        for split, count in (("train", settings.scenes), ("test", TEST_SCENES))
    )
    task = plan.make(train_scenes, test_scenes)
    start_sha256 = weights_digest(model)
    folder = settings.results_dir / "checkpoints" / run_id(settings)
    clock.enter("work")
    result: TrainResult[Labeled | Located | Detected]
    result = train(model, task, recipe, seed=settings.seed, out_dir=folder, device=device)
    save_tensors(arms.official_state(model), folder / WEIGHTS)
    exchanged = exchange(model, settings.arm, plan, settings.variant, task)
    shown = snapshots(task, model, result.final, device) if settings.seed == 0 else []
    return _record(
        settings,
        recipe,
        inputs=_inputs(settings, plan, (train_scenes, test_scenes), model, start_sha256),
        measurements=[
            *_measurements(plan, result, task),
            *_exchange_measurements(exchanged),
        ],
        tables={"epochs": result.history, "losses": _losses(result), "snapshots": shown},
        verdict=_verdict(exchanged),
        wall_s=time.perf_counter() - started,
    )


def run_id(settings: Settings) -> str:
    """Name the record: task, variant, arm and seed."""
    return f"{settings.task}.{settings.variant}.{settings.arm}.seed{settings.seed}"


def exchange(
    trained: nn.Module, arm: str, plan: ScenePlan, variant: str, task: SceneTask
) -> Exchanged | None:
    """Run the trained weights in the other arm, too; None if there is no other arm.

    Args:
        trained: The trained network; it is not changed.
        arm: Which arm it is.
        plan: The task.
        variant: Of the network.
        task: Whose first test images are seen.
    """
    try:
        other_arm = "reproduction" if arm == "reference" else "reference"
        other = dense_arms.build_from_seed(plan, other_arm, variant, 0)
    except ReferenceUnavailable:
        return None
    arms.transfer(trained, other)
    images = next(task.batches("test", batch_size=EXCHANGED)).images.double()
    with torch.no_grad():
        (mine, chosen), (theirs, others) = (
            _decisions(copy.deepcopy(model).cpu().double().eval(), images, plan)
            for model in (trained, other)
        )
    difference = (mine - theirs).abs().max() / mine.abs().max().clamp(min=SMALLEST)
    other_decisions = int((chosen != others).sum())
    decisions = int(((chosen >= 0) | (others >= 0)).sum())
    return Exchanged(len(images), float(difference), other_decisions, decisions)


def _decisions(
    model: nn.Module, images: torch.Tensor, plan: ScenePlan
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs, and the class of every pixel, the peak of every map or the best boxes'.

    A decision that was not taken, as where there is no box, is negative.
    """
    if plan.metric == "box_ap":
        return best_boxes(model(list(images)))
    is_labeling = plan.metric == "miou"
    last = outputs_of(model, images)[-1]
    return last, last.argmax(dim=1) if is_labeling else last.flatten(2).argmax(dim=2)


def epochs_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show a record's epochs: learning rate, losses and scores."""
    hidden = ["steps", "batches_sha256"]
    return pd.DataFrame(record["tables"].get("epochs", [])).drop(columns=hidden, errors="ignore")


def loss_curve(record: dict[str, Any]) -> Figure | None:
    """Draw a record's training loss over the steps; nothing if the arm was not run."""
    losses = pd.DataFrame(record["tables"].get("losses", []))
    if losses.empty:
        return None
    title = record["run_id"]
    return losses.plot(x="step", y="train_loss", ylabel="training loss", title=title).figure


def measurements_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show what a record measured."""
    return pd.DataFrame(record["measurements"], columns=["name", "value", "unit"])


def _not_run(settings: Settings, recipe: Recipe, reason: str, wall_s: float) -> dict[str, Any]:
    return _record(
        settings,
        recipe,
        inputs={},
        measurements=[],
        tables={},
        verdict={"outcome": "not run", "reason": reason},
        wall_s=wall_s,
    )


def _record(settings: Settings, recipe: Recipe, **parts: Any) -> dict[str, Any]:
    study = study_of(settings.results_dir)
    named = {} if study is None else {"study": study.name, "study_sha256": study.sha256}
    return new_record(
        case="tasks",
        run_id=run_id(settings),
        claim_ids=CLAIMS,
        subject={
            "task": settings.task,
            "variant": settings.variant,
            "arm": settings.arm,
            "seed": settings.seed,
        },
        expectations=[],
        parameters={**settings.decisive(), "recipe": asdict(recipe), **named},
        command=settings.command(),
        **parts,
    )


def _inputs(
    settings: Settings,
    plan: ScenePlan,
    scenes: tuple[Scenes, Scenes],
    model: nn.Module,
    start_sha256: str,
) -> dict[str, Any]:
    train_scenes, test_scenes = scenes
    inputs: dict[str, Any] = {
        "data": {
            "name": "composed scenes of scikit-learn's digits",
            "train_count": len(train_scenes.images),
            "test_count": len(test_scenes.images),
            "image_size": SCENE_PX,
            "sha256": [train_scenes.sha256, test_scenes.sha256],
        },
        "weights": {
            "source": "start weights drawn by the reproduction from the seed, shared by both arms",
            "parameters": sum(tensor.numel() for tensor in model.parameters()),
            "start_sha256": start_sha256,
            "final_sha256": weights_digest(model),
        },
    }
    if settings.arm == "reference":
        identity = reference.identity(network=plan.official)
        inputs["reference"] = {**identity, "study_shims": dense_arms.shims(plan)}
    return inputs


def _losses(result: TrainResult[Any]) -> list[dict[str, Any]]:
    return [
        {"step": (index + 1) * LOSS_WINDOW, "train_loss": loss}
        for index, loss in enumerate(result.losses)
    ]


def _measurements(
    plan: ScenePlan, result: TrainResult[Labeled | Located | Detected], task: SceneTask
) -> list[dict[str, Any]]:
    last, count = result.history[-1], len(result.final.predictions)
    trivial = task.trivial()
    return [
        measurement("metric", plan.metric, "name"),
        *(measurement(name, v, "percent", n=count) for name, v in result.final.scores.items()),
        *(measurement(f"trivial_{name}", v, "percent", n=count) for name, v in trivial.items()),
        measurement("test_loss", result.final.loss, "loss", n=count),
        measurement("train_loss", last["train_loss"], "loss"),
        measurement("steps", sum(row["steps"] for row in result.history), "steps"),
        measurement("train_wall_s", last["wall_s"], "s"),
        measurement("resumed", result.resumed, "flag"),
        measurement("data_share", result.data_share, "share of the steps' time"),
        measurement("batches_sha256", result.batches_sha256, "digest"),
    ]


def _exchange_measurements(exchanged: Exchanged | None) -> list[dict[str, Any]]:
    if exchanged is None:
        return []
    count = exchanged.images
    return [
        measurement("exchange_max_difference", exchanged.max_difference, "relative", n=count),
        measurement("exchange_other_decisions", exchanged.other_decisions, "decisions", n=count),
        measurement("exchange_decisions", exchanged.decisions, "decisions", n=count),
    ]


def _verdict(exchanged: Exchanged | None) -> dict[str, str]:
    if exchanged is None:
        return {
            "outcome": "not comparable",
            "reason": "there is no other arm of this network here: only the scores were measured",
        }
    if not exchanged.decisions:
        return {
            "outcome": "undecided",
            "reason": f"neither arm finds anything in {exchanged.images} images: train longer",
        }
    reason = (
        f"the other arm, given these weights, decides {exchanged.other_decisions} of "
        f"{exchanged.decisions} pixels, peaks or boxes differently in float64; outputs differ by "
        f"at most {exchanged.max_difference:.1e} of the largest"
    )
    outcome = "not reproduced" if exchanged.other_decisions else "reproduced"
    return {"outcome": outcome, "reason": reason}
