"""Detection on composed scenes, as the training loop sees it.

torchvision samples anchors and proposals with the global generator. The training loop seeds it
before every step and the evaluation before every batch, so that both arms, and a run that was
resumed, see the same draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from reproduction.errors import UserError
from reproduction.tasks.detection.metrics import box_ap
from reproduction.tasks.order import steps_of
from reproduction.tasks.scenes.dataset import Scenes
from reproduction.tasks.scenes.labeling import batch_of
from reproduction.tasks.scenes.order import batches_of
from reproduction.tasks.task import Batch, Loss, evaluating

TEST_BATCH = 16
BEST_BOXES = 10
FIGURES = {"box_ap": "AP", "box_ap50": "AP50", "box_ap75": "AP75"}
Objects = list[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Detected:
    """What a detector finds in the test scenes.

    Attributes:
        loss: Mean over scenes of the sum of the detector's losses, normalizing by running
            statistics.
        scores: COCO's ``box_ap``, ``box_ap50`` and ``box_ap75``, in percent.
        predictions: For each scene its boxes in the format of COCO's results.
    """

    loss: float
    scores: Mapping[str, float]
    predictions: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class SceneDetection:
    """Find the digits of scenes: which ones, and their boxes.

    Scenes are seen as they are. The published recipe mirrors half of the images; a mirrored digit
    is no digit.

    Attributes:
        train: Scenes to train on.
        test: Scenes that share no digit with them.

    Raises:
        UserError: A set has no box, or a box has no area or reaches beyond its image.
    """

    train: Scenes
    test: Scenes

    def __post_init__(self) -> None:
        for name, scenes in (("training", self.train), ("test", self.test)):
            check_boxes(scenes, name)

    @property
    def identity(self) -> list[Any]:
        """Digests of both sets."""
        return [self.train.sha256, self.test.sha256]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return steps_of(len(self.train.images), "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 16, start: int = 0
    ) -> Iterator[Batch]:
        """Yield scenes with, for each, what a detector takes as its target.

        A target holds ``boxes`` (N, 4) float32, left, top, right and bottom in pixels, and
        ``labels`` (N,) int64, the digit plus 1.

        Raises:
            UserError: The split is unknown or smaller than one training batch.
        """
        scenes = self.train if split == "train" else self.test
        for indices, _ in batches_of(
            len(scenes.images),
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
            what="scenes",
        ):
            digits, boxes_xywh = scenes.digits[indices], scenes.boxes_xywh[indices]
            hashed = np.concatenate([digits[..., None], boxes_xywh], axis=2)
            yield batch_of(scenes.images[indices], hashed, _targets(digits, boxes_xywh))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the sum of the detector's losses: objectness, proposals, classes and boxes."""
        losses = model(list(batch.images), batch.targets)
        return Loss(torch.stack(list(losses.values())).sum())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> Detected:
        """Find the boxes of every test scene, and score them by COCO's average precision."""
        total: float = 0
        predictions: list[list[dict[str, Any]]] = []
        with evaluating(model):
            for number, batch in enumerate(self.batches("test", batch_size=TEST_BATCH)):
                moved = batch.to(device)
                for objects in model(list(moved.images)):
                    predictions.append(_as_coco(objects, len(predictions)))
                total += self._held_out_loss(model, moved, number) * len(batch.images)
        return self.scored(predictions, total / len(self.test.images))

    def _held_out_loss(self, model: nn.Module, batch: Batch, draws: int) -> float:
        """Let the detector compute losses, as it does in train mode, with all norms in eval mode.

        The parts that look at their mode are the detector, its proposals and its RoI heads.
        """
        parts = [model, *(part for name, part in model.named_children() if name != "backbone")]
        devices = [batch.images.device] if batch.images.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(draws)
            for part in parts:
                part.training = True
            try:
                return self.loss(model, batch).value.item()
            finally:
                for part in parts:
                    part.training = False

    def scored(self, predictions: list[list[dict[str, Any]]], loss: float) -> Detected:
        """Score the boxes of all test scenes."""
        found = box_ap(self.test.coco(), [entry for scene in predictions for entry in scene])
        scores = {name: 100 * found[figure] for name, figure in FIGURES.items()}
        return Detected(loss, scores, predictions)

    def trivial(self) -> dict[str, float]:
        """Score what needs no network: every digit in the box of the whole scene."""
        height, width = self.test.images.shape[1:3]
        whole = {"bbox": [0, 0, width, height], "score": 1.0}
        predictions = [
            [{"image_id": scene, "category_id": digit + 1, **whole} for digit in range(10)]
            for scene in range(len(self.test.images))
        ]
        return dict(self.scored(predictions, float("nan")).scores)


def best_boxes(
    found: Sequence[Mapping[str, torch.Tensor]], count: int = BEST_BOXES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put what a detector found into tensors of a fixed size, best first.

    Args:
        found: For each image ``boxes``, ``scores`` and ``labels``.
        count: Boxes an image, K; places without one hold zeros.

    Returns:
        (B, K, 5): left, top, right, bottom and score; (B, K): labels, -1 without a box.
    """
    boxes = torch.zeros(len(found), count, 5, dtype=torch.float64)
    labels = torch.full((len(found), count), -1)
    for image, objects in enumerate(found):
        best = objects["scores"].argsort(descending=True, stable=True)[:count]
        both = torch.cat([objects["boxes"], objects["scores"][:, None]], dim=1)
        boxes[image, : len(best)] = both[best]
        labels[image, : len(best)] = objects["labels"][best]
    return boxes, labels


def check_boxes(scenes: Scenes, name: str) -> None:
    """Refuse scenes whose boxes no detector can learn.

    Args:
        scenes: The set.
        name: What to call it.

    Raises:
        UserError: There is no box, or a box has no area or reaches beyond its image.
    """
    present = scenes.digits >= 0
    if not present.any():
        raise UserError(
            f"the {len(scenes.images)} {name} scenes have no box: detection needs at least one; "
            "compose scenes with digits"
        )
    height, width = scenes.images.shape[1:3]
    first, sizes = scenes.boxes_xywh[..., :2], scenes.boxes_xywh[..., 2:]
    is_outside = ((first < 0) | (first + sizes > [width, height])).any(axis=2)
    for wrong, said in (
        ((sizes <= 0).any(axis=2), "has no area"),
        (is_outside, f"reaches beyond the image of {width}x{height} pixels"),
    ):
        if (wrong & present).any():
            scene, place = np.argwhere(wrong & present)[0]
            box = scenes.boxes_xywh[scene, place].tolist()
            raise UserError(
                f"box {place} of {name} scene {scene} (left, top, width, height {box}) {said}: "
                "correct the annotation or leave it out"
            )


def _targets(digits: np.ndarray, boxes_xywh: np.ndarray) -> Objects:
    corners = np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], 2)
    return [
        {
            "boxes": torch.from_numpy(corners[scene][present]).float(),
            "labels": torch.from_numpy(digits[scene][present] + 1),
        }
        for scene, present in enumerate(digits >= 0)
    ]


def _as_coco(objects: dict[str, torch.Tensor], image: int) -> list[dict[str, Any]]:
    columns = (objects[name].tolist() for name in ("boxes", "labels", "scores"))
    return [
        {
            "image_id": image,
            "category_id": label,
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for (left, top, right, bottom), label, score in zip(*columns, strict=True)
    ]
