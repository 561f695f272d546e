"""A published recipe and a folder of its data as a task of the training loop.

>>> from reproduction import build_network
>>> from reproduction.published_recipes import published_recipe
>>> from reproduction.train import train
>>> def run(coco, weights, out_dir, device):
...     recipe = published_recipe("pose_hrnet_w32")
...     network = build_network("pose_hrnet_w32")
...     take_start(network, recipe, weights)  # of cls_hrnet_w32, trained on ImageNet
...     task = published_task(recipe, coco)
...     return train(network, task, recipe.training(), seed=0, out_dir=out_dir, device=device)

On one device the images of all the recipe's GPUs make one batch. Batch normalization then sees all
of them, as SyncBatchNorm does; in recipes without it, each GPU saw its own alone, which as many
processes repeat (`reproduction.distributed`).
"""

from dataclasses import replace
from pathlib import Path

from reproduction.checkpoints import load_checkpoint
from reproduction.config import CLASSIFICATION
from reproduction.errors import UserError
from reproduction.networks import Network, PyramidNetwork, build_network
from reproduction.published_recipes import PublishedRecipe
from reproduction.tasks.keypoints.augmentation import Augmentation as CropAugmentation
from reproduction.tasks.keypoints.faces import Faces, read_face_task
from reproduction.tasks.keypoints.poses import PoseEvaluation, Poses, coco_poses, mpii_poses
from reproduction.tasks.segmentation.augmentation import Augmentation as ScaleAugmentation
from reproduction.tasks.segmentation.folders import CLASSES, read_labeled
from reproduction.tasks.segmentation.inference import (
    CITYSCAPES,
    LIP_FLIP_PAIRS,
    Evaluation,
    windowed,
)
from reproduction.tasks.segmentation.losses import CITYSCAPES_CLASS_WEIGHTS, LossSettings
from reproduction.tasks.segmentation.task import Segmentation

BODY = ("width", "stage1_blocks", "stage1_width", "exchange_blocks", "residual_units")
RANDOM = Path("none")  # in place of a file to start from: random weights, on purpose


def published_task(
    recipe: PublishedRecipe, folder: Path, *, detections: Path | None = None, workers: int = 8
) -> Poses | Faces | Segmentation:
    """Read the recipe's data set as the recipe trains and tests on it.

    Args:
        recipe: Of poses, landmarks, segmentation or OCR.
        folder: As `reproduction.tasks.trees.TREES` says.
        detections: A detector's boxes to evaluate in, in COCO's format of results; the annotated
            ones unless given.
        workers: Threads that read images.

    Raises:
        UserError: There is no adapter for the recipe's data, it has no use for detections, or what
            reading them raises.
    """
    check_adapter(recipe)
    if detections is not None and recipe.get("test_boxes") != "detector":
        raise UserError(
            f"detections {detections} are given, but recipe {recipe.name} does not evaluate in "
            "boxes of a detector; leave --detections out"
        )
    if recipe.task == "pose":
        return _poses(recipe, folder, detections, workers)
    if recipe.task == "landmarks":
        test = "valid" if recipe.data == "300w" else "test"
        augmentation = crop_augmentation(recipe)
        faces = read_face_task(folder, recipe.data, augmentation, test=test, workers=workers)
        return replace(faces, input_wh=recipe["input_wh"])
    return _segmentation(recipe, folder, workers)


def check_adapter(recipe: PublishedRecipe) -> None:
    """Refuse a recipe whose data nothing here reads.

    Raises:
        UserError: There is no adapter for the recipe's task or data.
    """
    if recipe.task not in ("pose", "landmarks", "segmentation", "ocr"):
        raise UserError(
            f"recipe {recipe.name} is of {recipe.task}; there are adapters for pose, landmarks, "
            "segmentation and ocr"
        )
    if recipe.task in ("segmentation", "ocr") and recipe.data not in CLASSES:
        raise UserError(
            f"recipe {recipe.name} needs {recipe.data}, for which there is no adapter; there are "
            f"adapters for {', '.join(CLASSES)}"
        )


def crop_augmentation(recipe: PublishedRecipe) -> CropAugmentation:
    """Return how a recipe of poses or landmarks varies its crops."""
    is_pose = recipe.task == "pose"
    return CropAugmentation(
        scale=recipe["scale"],
        rotation_deg=recipe["rotation_deg"],
        rotation_share=recipe["rotation_share"],
        flip_share=recipe["flip_share"],
        is_normal=is_pose,
        half_body_share=recipe.get("half_body_share", 0.0),
        half_body_above=recipe.get("half_body_above", 0),
        upper_body=recipe.get("upper_body", ()),
        mirror_offset=1 if is_pose else 0,
    )


def _poses(recipe: PublishedRecipe, folder: Path, detections: Path | None, workers: int) -> Poses:
    settings = (recipe["input_wh"], recipe["sigma_px"], crop_augmentation(recipe))
    rule = pose_evaluation(recipe)
    if recipe.data == "mpii":
        return mpii_poses(folder, *settings, rule=rule, workers=workers)
    return coco_poses(folder, *settings, rule=rule, detections=detections, workers=workers)


def pose_evaluation(recipe: PublishedRecipe) -> PoseEvaluation:
    """Return how a recipe of poses evaluates."""
    return PoseEvaluation(
        flip=recipe["test_flip"],
        shift=recipe["test_shift"],
        quarter_offset=recipe["test_quarter_offset"],
        least_box_score=recipe["test_box_score"],
        most_oks=recipe["test_oks_nms"],
    )


def scale_augmentation(recipe: PublishedRecipe) -> ScaleAugmentation:
    """Return how a recipe of segmentation varies its images."""
    fixed = recipe.get("fixed_wh")
    return ScaleAugmentation(
        crop_hw=recipe["input_wh"][::-1],
        base_size=recipe["base_size"],
        scale_steps=recipe["scale_steps"],
        flip_share=recipe["flip_share"],
        flip_pairs=LIP_FLIP_PAIRS if recipe.data == "lip" else (),
        fixed_hw=fixed[::-1] if fixed else None,
        short_side=recipe.get("short_side"),
    )


def loss_settings(recipe: PublishedRecipe) -> LossSettings:
    """Return the loss of a recipe of segmentation, with its networks' way of resizing."""
    return LossSettings(
        class_weights=CITYSCAPES_CLASS_WEIGHTS if recipe["class_weights"] else None,
        ignore_label=recipe["ignore_label"],
        align_corners=recipe["align_corners"],
        balance=recipe["balance"],
        ohem_min_kept=recipe["ohem_min_kept"] if recipe["ohem"] else None,
        ohem_threshold=recipe["ohem_threshold"],
    )


def evaluation(recipe: PublishedRecipe) -> Evaluation:
    """Return how a recipe of segmentation evaluates images that are seen in windows."""
    pairs = LIP_FLIP_PAIRS if recipe.data == "lip" else ()
    rule = windowed(recipe["test_base_size"], recipe["test_wh"][::-1], pairs)
    if recipe.data == "cityscapes":
        rule = CITYSCAPES
    return replace(rule, flip=recipe["test_flip"], align_corners=recipe["align_corners"])


def _segmentation(recipe: PublishedRecipe, folder: Path, workers: int) -> Segmentation:
    scales = recipe["test_scales"]
    return Segmentation(
        train=read_labeled(folder, recipe.data, recipe.get("split", "train")),
        test=read_labeled(folder, recipe.data, "val"),
        augmentation=scale_augmentation(recipe),
        settings=loss_settings(recipe),
        rule=evaluation(recipe),
        scales=scales,
        # At one scale images are seen whole, at several in windows.
        short_side=recipe.get("short_side") if scales == (1.0,) else None,
        workers=workers,
    )


def departures(
    recipe: PublishedRecipe, start: Path | None, detections: Path | None = None
) -> list[str]:
    """Say in a sentence each how a run will not be what was published.

    Args:
        recipe: Of the run.
        start: As in `take_start`.
        detections: As in `published_task`.
    """
    said = []
    if start == RANDOM and recipe["start"] != "random":
        said.append(
            f"starts from random weights, where {recipe.name} starts from {_origin(recipe)}"
        )
    if detections is None and recipe.get("test_boxes") == "detector":
        said.append(
            "evaluated in annotated boxes, which is not what the paper publishes: its figures "
            "are of a detector's boxes, which --detections FILE takes"
        )
    return said


def _origin(recipe: PublishedRecipe) -> str:
    if recipe["start"] == "cls":
        return "the body of a classification network trained on ImageNet"
    return f"the last weights of a network trained by {recipe['start']}"


def take_start(
    network: Network | PyramidNetwork, recipe: PublishedRecipe, start: Path | None
) -> None:
    """Give a network the weights that its recipe starts from.

    Args:
        network: Freshly built.
        recipe: Says which; a random start needs no file.
        start: A checkpoint, or `RANDOM` to leave the network as it is.

    Raises:
        UserError: The recipe starts from trained weights and no file is given, or it does not fit.
    """
    if recipe["start"] == "random" or start == RANDOM:
        return
    if start is None:
        raise UserError(
            f"recipe {recipe.name} starts from {_origin(recipe)}, and no file is given; give it by "
            "--body FILE, or --body none to start from random weights on purpose"
        )
    if recipe["start"] == "cls":
        take_body(network, start)
    else:
        load_checkpoint(network, start)


def take_body(network: Network | PyramidNetwork, path: Path) -> None:
    """Take the weights of the body from a classification network that was trained on ImageNet.

    Args:
        network: Of any other task, freshly built; its head stays as it is.
        path: A checkpoint of the classification network with the same body.

    Raises:
        UserError: There is no such classification network, or the file does not fit it.
    """
    config = network.config
    same = [
        name
        for name, other in CLASSIFICATION.items()
        if all(getattr(other, part) == getattr(config, part) for part in BODY)
    ]
    if not same:
        raise UserError(f"no classification network has the body of {config.name}")
    source = build_network(same[0])
    assert isinstance(source, Network)
    load_checkpoint(source, path)
    body = network.backbone if isinstance(network, Network) else network.body
    weights = source.backbone.state_dict()
    body.load_state_dict({name: weights[name] for name in body.state_dict()})
