"""Poses of COCO and MPII as a task: batches of crops, the loss, and the data sets' own scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from reproduction.tasks.keypoints.augmentation import (
    Augmentation,
    Variation,
    draw_variation,
    vary,
)
from reproduction.tasks.keypoints.coco import coco_results, read_coco
from reproduction.tasks.keypoints.crops import crop_image, crop_matrix, transform_points
from reproduction.tasks.keypoints.flipping import FLIP_PAIRS, flip_test
from reproduction.tasks.keypoints.heatmaps import (
    STRIDE,
    decode_heatmaps,
    encode_heatmaps,
    heatmap_to_image,
)
from reproduction.tasks.keypoints.losses import keypoint_mse
from reproduction.tasks.keypoints.metrics import OKS_NMS_THRESHOLD, keypoint_ap, pckh
from reproduction.tasks.keypoints.mpii import check_count, read_mpii, read_pckh_truth
from reproduction.tasks.keypoints.persons import Person, check_near
from reproduction.tasks.order import digest_of, identity_of, normalized, read_batches, steps_of
from reproduction.tasks.task import Batch, Loss, evaluating
from reproduction.tasks.trees import read_rgb

EVALUATED_AT_ONCE = 32
# From the persons, their keypoints (N, K, 2) in image pixels and their scores (N, K).
Scorer = Callable[[Sequence[Person], np.ndarray, np.ndarray], dict[str, float]]


class PoseSample(NamedTuple):
    """A crop (H, W, 3) uint8 with its heatmaps (K, H/4, W/4) and their weights (K,)."""

    image: np.ndarray
    target_heatmaps: np.ndarray
    keypoint_weights: np.ndarray


class PoseTargets(NamedTuple):
    """What the loss compares with: (B, K, H/4, W/4) and (B, K), float32."""

    heatmaps: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class PoseEvaluation:
    """How poses are found and scored; the defaults are what the papers publish.

    Attributes:
        flip: Whether to average with the mirror image.
        shift: Whether to move the mirror image's heatmaps by one pixel.
        quarter_offset: Whether to move peaks towards their higher neighbors.
        least_box_score: COCO's detections below are left out.
        most_oks: Of two poses of COCO more similar than this, the better one is kept.
    """

    flip: bool = True
    shift: bool = True
    quarter_offset: bool = True
    least_box_score: float = 0.0
    most_oks: float = OKS_NMS_THRESHOLD


PUBLISHED = PoseEvaluation()


@dataclass(frozen=True)
class PoseResult:
    """Keypoints of a split, and how they score.

    Attributes:
        loss: Mean over images, of the heatmaps that keypoints are found in; 0 in a detector's
            boxes, which have no targets.
        scores: COCO's figures in [0, 1], or MPII's in percent.
        keypoints_xy: (N, K, 2) in image pixels.
        keypoint_scores: (N, K), the peaks' values.
    """

    loss: float
    scores: dict[str, float]
    keypoints_xy: np.ndarray
    keypoint_scores: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Poses:
    """Find the keypoints of persons; a task of `reproduction.train`.

    Attributes:
        name: ``coco`` or ``mpii``.
        train: To be trained on; may be empty.
        test: To be evaluated.
        input_wh: Width and height of the network's input.
        sigma_px: Of the target heatmaps.
        augmentation: Of training crops.
        score: The data set's scores.
        rule: How keypoints are found.
        workers: Threads that read images; without effect on what they yield.
    """

    name: str
    train: tuple[Person, ...]
    test: tuple[Person, ...]
    input_wh: tuple[int, int]
    sigma_px: int
    augmentation: Augmentation
    score: Scorer = field(compare=False)
    rule: PoseEvaluation = PUBLISHED
    workers: int = 0

    @property
    def identity(self) -> list[Any]:
        """Name, input, targets and augmentation, and a digest of the persons and their boxes."""
        persons = [
            (person.image.name, person.box, person.keypoints_xy.tolist())
            for person in (*self.train, *self.test)
        ]
        rule = f"{self.augmentation}"
        return [self.name, list(self.input_wh), self.sigma_px, rule, identity_of(persons)]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return steps_of(len(self.train), "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 32, start: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch (`read_batches`); targets are `PoseTargets`."""
        persons = self.train if split == "train" else self.test
        for samples in read_batches(
            lambda index, rng: self.read(persons[index], rng),
            len(persons),
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
            workers=self.workers,
        ):
            images, heatmaps, weights = (list(values) for values in zip(*samples, strict=True))
            targets = PoseTargets(*(torch.from_numpy(np.stack(x)) for x in (heatmaps, weights)))
            yield Batch(normalized(images), targets, digest_of(*images, *heatmaps, *weights))

    def read(self, person: Person, rng: np.random.Generator | None) -> PoseSample:
        """Read one person, augmented by draws from the generator if there is one.

        Raises:
            UserError: The image cannot be read, or the annotation does not belong to it.
        """
        image = read_rgb(person.image)
        check_near(person, (image.shape[1], image.shape[0]))
        variation = Variation(person.box)
        if rng is not None:
            variation = draw_variation(person, self.augmentation, self.input_wh, rng)
        image, person, box = vary(image, person, variation, FLIP_PAIRS[self.name])
        matrix = crop_matrix(box, self.input_wh, variation.rotation_deg)
        heatmaps, weights = encode_heatmaps(
            transform_points(person.keypoints_xy, matrix),
            person.visibility,
            input_wh=self.input_wh,
            heatmap_wh=self._heatmap_wh,
            sigma_px=self.sigma_px,
        )
        return PoseSample(crop_image(image, matrix, self.input_wh), heatmaps, weights)

    @property
    def _heatmap_wh(self) -> tuple[int, int]:
        return self.input_wh[0] // STRIDE, self.input_wh[1] // STRIDE

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the weighted mean squared error of the heatmaps."""
        return Loss(keypoint_mse(model(batch.images), *batch.targets))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> PoseResult:
        """Find the keypoints of all persons of the test split, and score them."""
        losses, points, scores = [], [], []
        with evaluating(model):
            for batch in self.batches("test", batch_size=EVALUATED_AT_ONCE):
                heatmaps = self._heatmaps(model, batch.images.to(device)).cpu()
                losses.append(float(keypoint_mse(heatmaps, *batch.targets)) * len(heatmaps))
                found, peaks = decode_heatmaps(heatmaps)
                if not self.rule.quarter_offset:
                    found = found.round()  # back to the peak, which is a quarter away at most
                points.append(found.double().numpy())
                scores.append(peaks.double().numpy())
        in_heatmaps, peaks_of_all = np.concatenate(points), np.concatenate(scores)
        in_image = np.stack(
            [
                heatmap_to_image(keypoints, person.box, self._heatmap_wh)
                for keypoints, person in zip(in_heatmaps, self.test, strict=True)
            ]
        )
        reached = self.score(self.test, in_image, peaks_of_all)
        return PoseResult(sum(losses) / len(self.test), reached, in_image, peaks_of_all)

    def _heatmaps(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if not self.rule.flip:
            heatmaps: torch.Tensor = model(images)
            return heatmaps
        return flip_test(model, images, FLIP_PAIRS[self.name], shift=self.rule.shift)


def coco_poses(
    folder: Path,
    input_wh: tuple[int, int],
    sigma_px: int,
    augmentation: Augmentation,
    *,
    rule: PoseEvaluation = PUBLISHED,
    detections: Path | None = None,
    workers: int = 0,
) -> Poses:
    """Read COCO for training on ``train`` and for AP on ``val`` of 2017.

    Args:
        folder: As `reproduction.tasks.trees.TREES` says.
        input_wh: Width and height of the network's input.
        sigma_px: Of the target heatmaps.
        augmentation: Of training crops.
        rule: How keypoints are found and scored.
        detections: Boxes of a detector to evaluate in, instead of the annotated ones.
        workers: Threads that read images.

    Raises:
        UserError: What `read_coco` raises.
    """
    train = read_coco(folder, "train", input_wh).persons
    test = read_coco(
        folder, "val", input_wh, detections=detections, least_score=rule.least_box_score
    )

    def score(persons: Sequence[Person], points: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
        return keypoint_ap(test.truth, coco_results(persons, points, peaks, rule.most_oks))

    return Poses(
        name="coco",
        train=train,
        test=test.persons,
        input_wh=input_wh,
        sigma_px=sigma_px,
        augmentation=augmentation,
        score=score,
        rule=rule,
        workers=workers,
    )


def mpii_poses(
    folder: Path,
    input_wh: tuple[int, int],
    sigma_px: int,
    augmentation: Augmentation,
    *,
    rule: PoseEvaluation = PUBLISHED,
    workers: int = 0,
) -> Poses:
    """Read MPII for training on ``train`` and for PCKh on ``valid``.

    Args:
        folder: As `reproduction.tasks.trees.TREES` says.
        input_wh: Width and height of the network's input.
        sigma_px: Of the target heatmaps.
        augmentation: Of training crops.
        rule: How keypoints are found.
        workers: Threads that read images.

    Raises:
        UserError: What `read_mpii` and `read_pckh_truth` raise, or the two lists of ``valid``
            have another number of persons.
    """
    test, truth = read_mpii(folder, "valid"), read_pckh_truth(folder)
    check_count(test, truth, folder)

    def score(persons: Sequence[Person], points: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
        found = pckh(points + 1, *truth)
        return {**found.groups, "mean": found.mean}

    return Poses(
        name="mpii",
        train=read_mpii(folder, "train"),
        test=test,
        input_wh=input_wh,
        sigma_px=sigma_px,
        augmentation=augmentation,
        score=score,
        rule=rule,
        workers=workers,
    )
