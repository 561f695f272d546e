"""A published recipe and a folder of its data as a task of the training loop.

>>> from reproduction import build_network
>>> from reproduction.published_recipes import published_recipe
>>> from reproduction.train import train
>>> def run(coco, weights, out_dir, device):
...     recipe = published_recipe("pose_hrnet_w32")
...     network = build_network("pose_hrnet_w32")
...     take_body(network, weights)  # of cls_hrnet_w32, trained on ImageNet
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
from reproduction.tasks.keypoints.poses import Poses, coco_poses, mpii_poses
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


def published_task(
    recipe: PublishedRecipe, folder: Path, *, detections: Path | None = None, workers: int = 8
) -> Poses | Faces | Segmentation:
    """Read the recipe's data set as the recipe trains and tests on it.

    Args:
        recipe: Of poses, landmarks, segmentation or OCR.
        folder: As `reproduction.tasks.trees.TREES` says.
        detections: COCO's boxes to evaluate in; the annotated ones unless given.
        workers: Threads that read images.

    Raises:
        UserError: There is no adapter for the recipe's data, or what reading them raises.
    """
    if recipe.task == "pose":
        return _poses(recipe, folder, detections, workers)
    if recipe.task == "landmarks":
        test = "valid" if recipe.data == "300w" else "test"
        augmentation = crop_augmentation(recipe)
        return read_face_task(folder, recipe.data, augmentation, test=test, workers=workers)
    if recipe.task in ("segmentation", "ocr"):
        return _segmentation(recipe, folder, workers)
    raise UserError(
        f"recipe {recipe.name} is of {recipe.task}; there are adapters for pose, landmarks, "
        "segmentation and ocr"
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
    if recipe.data == "mpii":
        return mpii_poses(folder, *settings, workers=workers)
    return coco_poses(folder, *settings, detections=detections, workers=workers)


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
    if recipe.data not in CLASSES:
        raise UserError(
            f"recipe {recipe.name} needs {recipe.data}, for which there is no adapter; there are "
            f"adapters for {', '.join(CLASSES)}"
        )
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
