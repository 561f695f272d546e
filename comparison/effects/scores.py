"""Differences of dense tasks beside the network: losses, targets, labels and scores."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from comparison.effects.subjects import Effect
from reproduction import UserError
from reproduction.published_recipes import published_recipe
from reproduction.tasks.keypoints.augmentation import (
    HALF_BODY_LIMIT,
    Variation,
    half_body_box,
    vary,
)
from reproduction.tasks.keypoints.crops import CropBox
from reproduction.tasks.keypoints.heatmaps import encode_heatmaps
from reproduction.tasks.keypoints.landmarks import SIGMAS_PX, encode_landmarks
from reproduction.tasks.keypoints.metrics import OFFICIAL_MEAN_01_THRESHOLD, pckh
from reproduction.tasks.keypoints.persons import Person
from reproduction.tasks.published import crop_augmentation
from reproduction.tasks.segmentation.losses import (
    OCR_BALANCE,
    LossSettings,
    check_labels,
    combined_loss,
    ohem_cross_entropy,
    pixel_losses,
)
from reproduction.tasks.segmentation.metrics import confusion_matrix, segmentation_scores

CLASSES = 4
HARD = LossSettings(ohem_min_kept=1)


def no_hard_pixel() -> Effect:
    """D25: the mean over no pixel, where every pixel is decided with certainty."""
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 20.0
    ours = ohem_cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.int64), HARD)
    theirs = torch.empty(0).mean()
    return Effect(
        what="loss of the reproduction where the official mean is over nothing (NaN)",
        value=float(ours),
        unit="1",
        holds=bool(theirs.isnan()) and float(ours) == 0.0,
    )


def auxiliary_mean(seed: int) -> Effect:
    """D26: the auxiliary loss under OHEM when half of the pixels are ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, CLASSES, 8, 8, generator=generator)
    labels = torch.randint(0, CLASSES, (1, 8, 8), generator=generator)
    labels[:, :4] = 255
    losses = pixel_losses(logits, labels)
    whole = LossSettings(ohem_min_kept=1, balance=OCR_BALANCE)
    main = ohem_cross_entropy(logits, labels, whole)
    auxiliary = (combined_loss([logits, logits], labels, whole) - main) / OCR_BALANCE[0]
    ratio = float(auxiliary / losses[labels != 255].mean())
    return Effect(
        what="auxiliary loss over its mean on labeled pixels, half of the pixels ignored",
        value=ratio,
        unit="1",
        holds=abs(ratio - 0.5) < 1e-5,
    )


def summed_exponentials(seed: int) -> Effect:
    """D27: adding exp(logits) over scales, or probabilities."""
    generator = torch.Generator().manual_seed(seed)
    scales = 3 * torch.randn(2, 19, 10_000, generator=generator, dtype=torch.float64)
    summed = scales.exp().sum(dim=0).argmax(dim=0)
    averaged = scales.softmax(dim=1).mean(dim=0).argmax(dim=0)
    share = float((summed != averaged).double().mean())
    return Effect(
        what="pixels decided otherwise than by averaged probabilities (random logits, two scales)",
        value=100 * share,
        unit="%",
        holds=share > 0,
    )


def absent_class() -> Effect:
    """D28: perfect predictions where one class of four never appears."""
    labels = np.arange(CLASSES - 1).repeat(10)
    scores = segmentation_scores(confusion_matrix(labels, labels, CLASSES))
    return Effect(
        what="mean IoU that one absent class of four costs perfect predictions",
        value=100 * (scores.mean_iou_of_present - scores.mean_iou),
        unit="percentage points",
        holds=scores.mean_iou == 0.75 and scores.mean_iou_of_present == 1.0,
    )


def empty_targets() -> Effect:
    """D29: keypoints left of the image whose target is empty and whose weight is one."""
    places = np.arange(-60, 0)
    points = np.stack([places, np.full(60, 50)], axis=1).astype(float)
    size, map_size = (192, 256), (48, 64)
    maps, weights = encode_heatmaps(
        points, np.ones(60), input_wh=size, heatmap_wh=map_size, sigma_px=2
    )
    empty = [int(x) for x, one, w in zip(places, maps, weights, strict=True) if w and not one.any()]
    return Effect(
        what=f"places left of the image, from {min(empty)} to {max(empty)} px, that are trained on",
        value=len(empty),
        unit="of 60 px",
        holds=-30 in empty and -20 not in empty,
    )


def wider_threshold() -> Effect:
    """D30: Mean@0.1 of MPII at the threshold that is used."""
    people = 1000
    found = np.zeros((people, 16, 2))
    found[..., 0] = 100 * 0.6 * np.linspace(0, 1, people)[:, None]
    heads = np.tile([0.0, 0.0, 60.0, 80.0], (people, 1))  # a diagonal of 100 px
    visible = np.ones((people, 16), dtype=bool)
    shares = [
        pckh(found, np.zeros_like(found), visible, heads, threshold).mean
        for threshold in (0.1, OFFICIAL_MEAN_01_THRESHOLD)
    ]
    gain = shares[1] - shares[0]
    return Effect(
        what="points gained by the threshold 0.11, distances uniform up to a head's size",
        value=gain,
        unit="percentage points",
        holds=0.9 < gain < 1.1,
    )


def shifted_peaks() -> Effect:
    """D31: coordinates whose landmark's peak lies elsewhere."""
    moved = {}
    for sigma in sorted(set(SIGMAS_PX.values())):
        points = np.stack([np.arange(64), np.full(64, 30)], axis=1).astype(float)
        maps = encode_landmarks(points, np.ones(64, dtype=bool), (64, 64), sigma)
        peaks = maps.reshape(64, -1).argmax(axis=1) % 64
        moved[sigma] = int((peaks != np.arange(64)).sum())
    return Effect(
        what="coordinates of a row whose peak lies one pixel off, sigma 1.5 (sigma 1: "
        f"{moved[1.0]})",
        value=moved[1.5],
        unit="of 64",
        holds=moved == {1.0: 0, 1.5: 5},
    )


def wrapped_label() -> Effect:
    """D32: subtracting one from label 0 in eight bits."""
    wrapped = int((np.array([0], dtype=np.uint8) - np.uint8(1))[0])
    try:
        labels = torch.full((1, 2, 2), wrapped)
        check_labels(torch.zeros(1, 59, 2, 2), labels, ignore_label=-1)
        refused = False
    except UserError:
        refused = True
    return Effect(
        what="what label 0 becomes, which 59 classes and the ignored label -1 do not have",
        value=wrapped,
        unit="label",
        holds=wrapped == 255 and refused,
    )


def mirrored_landmark() -> Effect:
    """D37: how far from its own pixel a landmark lies once the image is mirrored."""
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[4, 2] = 255
    box = CropBox((4.0, 4.0), (8.0, 8.0))
    point = Person(Path(), box, np.array([[2.0, 4.0]]), np.ones(1, dtype=np.int64), 0)
    apart = {}
    for name in ("pose_coco", "face_wflw"):
        offset = crop_augmentation(published_recipe(name)).mirror_offset
        seen, moved, _ = vary(image, point, Variation(box, is_mirrored=True), (), offset)
        apart[name] = float(moved.keypoints_xy[0, 0] - seen[4, :, 0].argmax())
    return Effect(
        what="pixels between a mirrored landmark and the pixel that it marked (pose: "
        f"{apart['pose_coco']:g})",
        value=apart["face_wflw"],
        unit="px",
        holds=apart == {"pose_coco": 0.0, "face_wflw": 1.0},
    )


def upper_halves(seed: int) -> Effect:
    """D44: how often a person with all keypoints is reduced to the upper half of the body."""
    upper_body = tuple(range(11))
    points = np.stack([np.arange(17.0), 10.0 * np.arange(17)], axis=1)
    person = Person(Path(), CropBox((8.0, 80.0), (1.0, 1.0)), points, np.ones(17), image_id=0)
    rng = np.random.default_rng(seed)
    upper = [
        half_body_box(person, upper_body, (192, 256), rng).center_xy[1] < 80 for _ in range(4000)
    ]
    share = float(np.mean(upper))
    return Effect(
        what="share of upper halves among 4000 draws, where a fair choice would give a half",
        value=share,
        unit="1",
        holds=abs(share - NormalDist().cdf(HALF_BODY_LIMIT)) < 0.03,
    )
