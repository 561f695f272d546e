"""Keypoints of the digits of composed scenes: as human pose, and as facial landmarks.

Every digit is a "person" or a "face", cut out by its true box. Training crops differ in scale, as
the official ones do. They are neither turned nor mirrored, though the official ones are: a digit's
keypoints follow its own axes, and what tells them from the image's is how far it is turned; a
mirrored digit is no digit, so that the flip test has no meaning here either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from reproduction.errors import UserError
from reproduction.tasks.keypoints.crops import (
    CropBox,
    coco_crop_box,
    crop_images,
    crop_matrices,
    crop_matrix,
    transform_points,
)
from reproduction.tasks.keypoints.heatmaps import (
    STRIDE,
    decode_heatmaps,
    encode_heatmaps,
    heatmap_to_image,
)
from reproduction.tasks.keypoints.landmarks import (
    decode_landmarks,
    encode_landmarks,
    failure_rate,
    landmark_mse,
    normalized_mean_errors,
)
from reproduction.tasks.keypoints.losses import keypoint_mse
from reproduction.tasks.keypoints.metrics import instance_score, keypoint_ap
from reproduction.tasks.order import steps_of
from reproduction.tasks.scenes.compose import KEYPOINTS
from reproduction.tasks.scenes.dataset import SIGMA, VISIBLE, Scenes
from reproduction.tasks.scenes.labeling import batch_of
from reproduction.tasks.scenes.order import batches_of
from reproduction.tasks.task import Batch, Loss, evaluating

TEST_BATCH = 64
SCALES = (0.75, 1.25)  # factors of a training crop's box, drawn evenly (official for landmarks)
SIGMAS_OKS = np.full(len(KEYPOINTS), SIGMA)
POSE_SIGMA_PX, LANDMARK_SIGMA_PX = 1, 1.0  # in pixels of small heatmaps
FAILURE = 0.10


class Heatmaps(NamedTuple):
    """Targets of a batch of crops: maps (B, K, H/4, W/4) and weights (B, K), float32."""

    maps: torch.Tensor
    weights: torch.Tensor


class Digit(NamedTuple):
    """One digit: its scene, its place among the scene's digits, and its crop."""

    scene: int
    place: int
    box: CropBox


@dataclass(frozen=True)
class Located:
    """Keypoints that a network found in the test scenes.

    Attributes:
        loss: Mean over digits.
        scores: In percent: ``ap``, ``ap50``, ``ap75`` and ``ar``, or ``nme`` and ``failure_rate``.
        predictions: (N, K, 2) in pixels of the scenes, in the order of `ScenePose.digits`.
    """

    loss: float
    scores: Mapping[str, float]
    predictions: np.ndarray


@dataclass(frozen=True)
class ScenePose:
    """Find the keypoints of digits by the rules of human pose.

    Attributes:
        train: Scenes to train on.
        test: Scenes that share no digit with them.
        crop_px: Height and width of the crops, a multiple of 32.
    """

    train: Scenes
    test: Scenes
    crop_px: int = 64

    def __post_init__(self) -> None:
        if self.crop_px < 32 or self.crop_px % 32:
            raise UserError(f"crop_px is {self.crop_px}; give a multiple of 32")

    @property
    def identity(self) -> list[Any]:
        """Digests of both sets, and the crops' size."""
        return [self.train.sha256, self.test.sha256, self.crop_px]

    @property
    def heatmap_px(self) -> int:
        """Height and width of the heatmaps."""
        return self.crop_px // STRIDE

    @cached_property
    def digits(self) -> dict[str, list[Digit]]:
        """All digits by split, scene after scene."""
        return {"train": self._digits(self.train), "test": self._digits(self.test)}

    @cached_property
    def _of_scene(self) -> dict[int, list[Digit]]:
        """The digits of each training scene."""
        return {
            scene: list(digits)
            for scene, digits in groupby(self.digits["train"], key=lambda digit: digit.scene)
        }

    def _digits(self, scenes: Scenes) -> list[Digit]:
        places = np.argwhere(scenes.digits >= 0).tolist()
        return [self._digit(scenes, scene, place) for scene, place in places]

    def _digit(self, scenes: Scenes, scene: int, place: int) -> Digit:
        box = tuple(scenes.boxes_xywh[scene, place].tolist())
        return Digit(scene, place, coco_crop_box(box, (self.crop_px, self.crop_px)))

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return steps_of(len(self.train.images), "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 16, start: int = 0
    ) -> Iterator[Batch]:
        """Yield crops; targets are `Heatmaps`.

        An epoch of training shows one digit of each scene, drawn anew; the test shows all.

        Raises:
            UserError: The split is unknown or smaller than one training batch.
        """
        scenes = self.train if split == "train" else self.test
        count = len(scenes.images if split == "train" else self.digits["test"])
        for indices, rng in batches_of(
            count,
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
            what="scenes",
        ):
            if rng is None:
                yield self._batch(scenes, [self.digits["test"][index] for index in indices])
            else:
                yield self._batch(scenes, [self.drawn(index, rng) for index in indices])

    def drawn(self, scene: int, rng: np.random.Generator) -> Digit:
        """Draw one digit of a training scene, and the scale of its crop."""
        there = self._of_scene[scene]
        digit = there[rng.integers(len(there))]
        (width, height), factor = digit.box.scale_wh, rng.uniform(*SCALES)
        return digit._replace(box=CropBox(digit.box.center_xy, (width * factor, height * factor)))

    def _batch(self, scenes: Scenes, digits: list[Digit]) -> Batch:
        images, maps, weights = self.examples(scenes, digits)
        targets = Heatmaps(torch.from_numpy(maps), torch.from_numpy(weights))
        return batch_of(images, maps, targets)

    def examples(
        self, scenes: Scenes, digits: Sequence[Digit]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return digits' crops (B, H, W, 3) uint8, target heatmaps and keypoint weights."""
        size = (self.crop_px, self.crop_px)
        matrices = crop_matrices([digit.box for digit in digits], size)
        which, places = np.array([(digit.scene, digit.place) for digit in digits]).T
        points = transform_points(scenes.keypoints_xy[which, places], matrices)
        maps, weights = self.encode(points.reshape(-1, 2))  # all keypoints of the batch at once
        images = crop_images(scenes.images[which], matrices, size)
        return (
            images,
            maps.reshape(*points.shape[:2], *maps.shape[1:]),
            weights.reshape(points.shape[:2]),
        )

    def encode(self, points_xy_crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return target heatmaps (K, H/4, W/4) and weights (K,) of points in a crop."""
        return encode_heatmaps(
            points_xy_crop,
            np.full(len(points_xy_crop), VISIBLE),
            input_wh=(self.crop_px, self.crop_px),
            heatmap_wh=(self.heatmap_px, self.heatmap_px),
            sigma_px=POSE_SIGMA_PX,
        )

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return half the weighted mean squared error of the heatmaps."""
        return Loss(self.error(model(batch.images), batch.targets))

    def error(self, heatmaps: torch.Tensor, targets: Heatmaps) -> torch.Tensor:
        """Compare heatmaps with their targets."""
        return keypoint_mse(heatmaps, targets.maps, targets.weights)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> Located:
        """Find the keypoints of every test digit."""
        losses, found = [], []
        with evaluating(model):
            for batch in self.batches("test", batch_size=TEST_BATCH):
                moved = batch.to(device)
                heatmaps = model(moved.images)
                losses.append(float(self.error(heatmaps, moved.targets)) * len(batch.images))
                found.append(heatmaps.cpu())
        heatmaps, digits = torch.cat(found), self.digits["test"]
        points = self.decode(heatmaps, [digit.box for digit in digits])
        peaks = heatmaps.flatten(2).amax(dim=2).numpy()
        return Located(sum(losses) / len(digits), self.score(points, peaks), points)

    def decode(self, heatmaps: torch.Tensor, boxes: list[CropBox]) -> np.ndarray:
        """Return keypoints (B, K, 2) in pixels of their scenes."""
        peaks = decode_heatmaps(heatmaps)[0].double().numpy()
        size = (self.heatmap_px, self.heatmap_px)
        return np.stack(
            [heatmap_to_image(points, box, size) for points, box in zip(peaks, boxes, strict=True)]
        )

    def score(self, points_xy: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
        """Score keypoints (N, K, 2) of all test digits, whose heatmaps peak at (N, K), by OKS."""
        detections = [
            {
                "image_id": digit.scene,
                "category_id": int(self.test.digits[digit.scene, digit.place]) + 1,
                "score": instance_score(1.0, peaks[index]),
                "keypoints": np.column_stack([points, np.ones(len(points))]).ravel().tolist(),
            }
            for index, (digit, points) in enumerate(
                zip(self.digits["test"], points_xy, strict=True)
            )
        ]
        found = keypoint_ap(self.test.coco(), detections, SIGMAS_OKS)
        return {name: 100 * found[name.upper()] for name in ("ap", "ap50", "ap75", "ar")}

    def trivial(self) -> dict[str, float]:
        """Score what needs no network: each keypoint where it is on average in training crops."""
        size = (self.crop_px, self.crop_px)
        placed = [
            transform_points(
                self.train.keypoints_xy[digit.scene, digit.place], crop_matrix(digit.box, size)
            )
            for digit in self.digits["train"]
        ]
        mean = np.mean(placed, axis=0)
        boxes = [digit.box for digit in self.digits["test"]]
        points = np.stack([heatmap_to_image(mean, box, size) for box in boxes])
        return self.score(points, np.ones(points.shape[:2]))


class SceneLandmarks(ScenePose):
    """Find the keypoints of digits by the rules of facial landmarks."""

    def encode(self, points_xy_crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return target heatmaps (K, H/4, W/4) and weights, which nothing uses."""
        points, size = points_xy_crop / STRIDE, self.heatmap_px
        drawn = (points[:, 1] > 0) & (points < size).all(axis=1) & (points[:, 0] >= 0)
        maps = encode_landmarks(points, drawn, (size, size), LANDMARK_SIGMA_PX)
        return maps, drawn.astype(np.float32)

    def error(self, heatmaps: torch.Tensor, targets: Heatmaps) -> torch.Tensor:
        """Return the mean squared error."""
        return landmark_mse(heatmaps, targets.maps)

    def decode(self, heatmaps: torch.Tensor, boxes: list[CropBox]) -> np.ndarray:
        """Return landmarks (B, K, 2) in pixels of their scenes, counted from 0."""
        return decode_landmarks(heatmaps, boxes) - 1

    def score(self, points_xy: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
        """Score landmarks (N, K, 2) by their mean error over the size of the digit's box (AFLW)."""
        digits = self.digits["test"]
        places = tuple(np.array([(digit.scene, digit.place) for digit in digits]).T)
        sizes = np.sqrt(self.test.boxes_xywh[places][:, 2:].prod(axis=1))
        truth = self.test.keypoints_xy[places].astype(np.float64)
        errors = normalized_mean_errors(points_xy, truth, "aflw", sizes)
        return {
            "nme": 100 * float(errors.mean()),
            "failure_rate": 100 * failure_rate(errors, FAILURE),
        }
