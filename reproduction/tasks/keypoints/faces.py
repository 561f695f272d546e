"""Faces with landmarks (TPAMI'20 section 7), in the csv files of the official landmark code.

A header, then a line for each face: image, scale (in units of 200 px), the center's x and y, and x
and y of each landmark; AFLW has the size of the face's box behind the scale.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reproduction.errors import UserError
from reproduction.tasks.keypoints.augmentation import (
    Augmentation,
    Variation,
    draw_variation,
    shrink,
    vary,
)
from reproduction.tasks.keypoints.crops import (
    CropBox,
    crop_image,
    crop_matrix,
    transform_points,
)
from reproduction.tasks.keypoints.flipping import FLIP_PAIRS
from reproduction.tasks.keypoints.heatmaps import STRIDE
from reproduction.tasks.keypoints.landmarks import (
    DATASETS,
    FAILURE_THRESHOLDS,
    SIGMAS_PX,
    decode_landmarks,
    encode_landmarks,
    failure_rate,
    landmark_mse,
    normalized_mean_errors,
)
from reproduction.tasks.keypoints.persons import Person, check_near
from reproduction.tasks.order import digest_of, identity_of, normalized, read_batches, steps_of
from reproduction.tasks.task import Batch, Loss, evaluating
from reproduction.tasks.trees import entries_of, expected, read_rgb, require, require_files

LANDMARKS = {"wflw": 98, "300w": 68, "cofw": 29, "aflw": 19}
BOX_MARGIN = 1.25
EVALUATED_AT_ONCE = 32


def read_faces(folder: Path, name: str, split: str) -> tuple[Person, ...]:
    """Read the faces of one csv file.

    Args:
        folder: As `reproduction.tasks.trees.TREES` says.
        name: ``wflw``, ``300w``, ``cofw`` or ``aflw``.
        split: What stands at the end of the file's name, such as ``train`` or ``test_blur``.

    Raises:
        UserError: The data set is unknown, a file is missing, or a line is not as expected.
    """
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is unknown; use {', '.join(DATASETS)}")
    path = require(name, folder, f"face_landmarks_{name}_{split}.csv")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))[1:]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as csv ({error}): get it again") from error
    if not lines:
        raise UserError(f"{path} lists no face: {expected(name, folder)}")
    with entries_of(path):
        faces = tuple(_face(folder, name, path, number, line) for number, line in enumerate(lines))
    require_files(name, folder, (face.image for face in faces))
    return faces


def _face(folder: Path, name: str, path: Path, number: int, line: list[str]) -> Person:
    with_size = name == "aflw"
    columns = 4 + with_size + 2 * LANDMARKS[name]
    if len(line) != columns:
        raise UserError(
            f"line {number + 2} of {path} has {len(line)} columns, that is "
            f"{(len(line) - 4 - with_size) / 2:g} landmarks; {name} has {columns} columns for "
            f"{LANDMARKS[name]} landmarks"
        )
    try:
        scale, *rest = (float(value) for value in line[1:])
    except ValueError as error:
        raise UserError(f"line {number + 2} of {path} has a value that is no number") from error
    size = rest.pop(0) if with_size else 0.0
    if not scale > 0:
        raise UserError(f"line {number + 2} of {path} has scale {scale:g}; expected more than 0")
    box = CropBox((rest[0], rest[1]), (scale * BOX_MARGIN, scale * BOX_MARGIN))
    points = np.array(rest[2:]).reshape(-1, 2)
    annotated = np.ones(len(points), np.int64)
    return Person(folder / "images" / line[0], box, points, annotated, number, size_px=size)


@dataclass(frozen=True)
class FaceResult:
    """Landmarks of a split, and how they score.

    Attributes:
        loss: Mean over images.
        scores: ``nme`` (mean error) and ``failures_8`` and ``failures_10``, in percent.
        landmarks_xy: (N, L, 2) in whole image pixels that count from 1.
    """

    loss: float
    scores: dict[str, float]
    landmarks_xy: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Find the landmarks of faces; a task of `reproduction.train`.

    Attributes:
        name: ``wflw``, ``300w``, ``cofw`` or ``aflw``.
        train: To be trained on; may be empty.
        test: To be evaluated.
        augmentation: Of training crops.
        input_wh: Width and height of the network's input.
        workers: Threads that read images; without effect on what they yield.
    """

    name: str
    train: tuple[Person, ...]
    test: tuple[Person, ...]
    augmentation: Augmentation
    input_wh: tuple[int, int] = (256, 256)
    workers: int = 0

    @property
    def identity(self) -> list[Any]:
        """Name, input and augmentation, and a digest of the faces with their boxes."""
        faces = [
            (face.image.name, face.box, face.keypoints_xy.tolist())
            for face in (*self.train, *self.test)
        ]
        return [self.name, list(self.input_wh), f"{self.augmentation}", identity_of(faces)]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return steps_of(len(self.train), "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 16, start: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch (`read_batches`); targets are heatmaps (B, L, H/4, W/4)."""
        faces = self.train if split == "train" else self.test
        for samples in read_batches(
            lambda index, rng: self.read(faces[index], rng),
            len(faces),
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
            workers=self.workers,
        ):
            images, heatmaps = (list(values) for values in zip(*samples, strict=True))
            targets = torch.from_numpy(np.stack(heatmaps))
            yield Batch(normalized(images), targets, digest_of(*images, *heatmaps))

    def read(self, face: Person, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        """Read one face, augmented by draws from the generator if there is one.

        Returns:
            The crop (H, W, 3) uint8 and its heatmaps (L, H/4, W/4) float32.

        Raises:
            UserError: The image cannot be read, or the annotation does not belong to it.
        """
        image = read_rgb(face.image)
        check_near(face, (image.shape[1], image.shape[0]))
        variation = Variation(face.box)
        if rng is not None:
            variation = draw_variation(face, self.augmentation, self.input_wh, rng)
        offset = self.augmentation.mirror_offset
        image, face, box = vary(image, face, variation, FLIP_PAIRS[self.name], offset)
        heatmap_wh = (self.input_wh[0] // STRIDE, self.input_wh[1] // STRIDE)
        to_heatmap = crop_matrix(box, heatmap_wh, variation.rotation_deg)
        points = transform_points(face.keypoints_xy, to_heatmap)
        is_drawn = face.keypoints_xy[:, 1] > 0
        heatmaps = encode_landmarks(points, is_drawn, heatmap_wh, SIGMAS_PX[self.name])
        small, box = shrink(image, box, self.input_wh)
        matrix = crop_matrix(box, self.input_wh, variation.rotation_deg)
        return crop_image(small, matrix, self.input_wh), heatmaps

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean squared error of the heatmaps."""
        return Loss(landmark_mse(model(batch.images), batch.targets))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> FaceResult:
        """Find the landmarks of all faces of the test split, and score them."""
        losses: list[float] = []
        found: list[np.ndarray] = []
        boxes = [face.box for face in self.test]
        with evaluating(model):
            for batch in self.batches("test", batch_size=EVALUATED_AT_ONCE):
                heatmaps = model(batch.images.to(device)).cpu()
                losses.append(float(landmark_mse(heatmaps, batch.targets)) * len(heatmaps))
                seen, boxes = boxes[: len(heatmaps)], boxes[len(heatmaps) :]
                found.append(decode_landmarks(heatmaps, seen))
        points = np.concatenate(found)
        sizes = np.array([face.size_px for face in self.test]) if self.name == "aflw" else None
        truth = np.stack([face.keypoints_xy for face in self.test])
        errors = normalized_mean_errors(points, truth, self.name, sizes)
        scores = {"nme": 100 * float(errors.mean())} | {
            f"failures_{100 * limit:g}": 100 * failure_rate(errors, limit)
            for limit in FAILURE_THRESHOLDS
        }
        return FaceResult(sum(losses) / len(self.test), scores, points)


def read_face_task(
    folder: Path, name: str, augmentation: Augmentation, *, test: str = "test", workers: int = 0
) -> Faces:
    """Read a data set for training on its ``train`` and for errors on another split.

    Args:
        folder: As `reproduction.tasks.trees.TREES` says.
        name: ``wflw``, ``300w``, ``cofw`` or ``aflw``.
        augmentation: Of training crops.
        test: The split to be evaluated, such as ``test_blur``; ``valid`` for 300W's full set.
        workers: Threads that read images.

    Raises:
        UserError: What `read_faces` raises.
    """
    return Faces(
        name=name,
        train=read_faces(folder, name, "train"),
        test=read_faces(folder, name, test),
        augmentation=augmentation,
        workers=workers,
    )
