"""Losses, scores and multi-scale evaluation of segmentation, by hand and by other libraries."""

import doctest
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sklearn_metrics

from reproduction import UserError
from reproduction.tasks.classification.data import MEAN, STD
from reproduction.tasks.segmentation import inference, losses, metrics
from reproduction.tasks.segmentation.inference import (
    CITYSCAPES,
    Evaluation,
    class_scores,
    multi_scale_scores,
    pad_black,
    window_starts,
    windowed,
    windowed_scores,
)
from reproduction.tasks.segmentation.losses import (
    CITYSCAPES_CLASS_WEIGHTS,
    CITYSCAPES_RAW_LABELS,
    OCR_BALANCE,
    LossSettings,
    combined_loss,
    cross_entropy,
    ohem_cross_entropy,
    pixel_losses,
)
from reproduction.tasks.segmentation.metrics import confusion_matrix, segmentation_scores


@pytest.mark.parametrize("module", [inference, losses, metrics])
def test_the_examples_of_the_docstrings_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


def logits_of(*probabilities: float) -> torch.Tensor:
    """Return logits (1, 2, 1, N) whose class 0 has these probabilities."""
    of_0 = torch.tensor(probabilities, dtype=torch.float64)
    return torch.log(torch.stack([of_0, 1 - of_0]))[None, :, None]


def labels_of(*labels: int) -> torch.Tensor:
    """Return labels (1, 1, N)."""
    return torch.tensor(labels)[None, None]


def test_a_weighted_mean_divides_by_the_weights() -> None:
    settings = LossSettings(class_weights=(1.0, 3.0))
    found = cross_entropy(logits_of(0.5, 0.75, 0.1), labels_of(0, 1, 255), settings)
    assert float(found) == pytest.approx((np.log(2) + 3 * np.log(4)) / 4)
    without = cross_entropy(logits_of(0.5, 0.75, 0.1), labels_of(0, 1, 255))
    assert float(without) == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_ignored_pixels_add_nothing() -> None:
    found = pixel_losses(logits_of(0.5, 0.5), labels_of(0, -1), LossSettings(ignore_label=-1))
    assert found.flatten().tolist() == pytest.approx([np.log(2), 0])


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_brought_to_the_size_of_the_labels(align_corners: bool) -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 16, 20), generator=torch.Generator().manual_seed(1))
    large = F.interpolate(logits, (16, 20), mode="bilinear", align_corners=align_corners)
    found = cross_entropy(logits, labels, LossSettings(align_corners=align_corners))
    assert float(found) == float(F.cross_entropy(large, labels))
    other = cross_entropy(logits, labels, LossSettings(align_corners=not align_corners))
    assert float(found) != float(other)


def test_only_hard_pixels_count_but_at_least_some() -> None:
    logits, labels = logits_of(0.95, 0.5, 0.8, 0.97), labels_of(0, 0, 0, 0)
    # Below 0.9: the pixels of 0.5 and 0.8, whatever fewer are asked for.
    few = ohem_cross_entropy(logits, labels, LossSettings(ohem_min_kept=1))
    assert float(few) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    # Three at least: the limit is the fourth lowest, 0.97, and a pixel below it counts.
    three = ohem_cross_entropy(logits, labels, LossSettings(ohem_min_kept=3))
    assert float(three) == pytest.approx(-(np.log(0.5) + np.log(0.8) + np.log(0.95)) / 3)
    # More than there are: the limit is the highest, and strict.
    many = ohem_cross_entropy(logits, labels, LossSettings(ohem_min_kept=100))
    assert float(many) == float(three)


def test_hard_pixels_are_weighted_and_labeled_ones() -> None:
    settings = LossSettings(ohem_min_kept=1, class_weights=(1.0, 2.0))
    found = ohem_cross_entropy(logits_of(0.5, 0.6, 0.1), labels_of(0, 1, 255), settings)
    assert float(found) == pytest.approx(-(np.log(0.5) + 2 * np.log(0.4)) / 2)


def test_no_hard_pixel_is_no_loss_and_no_gradient() -> None:
    logits = logits_of(0.95, 0.95).requires_grad_()
    loss = ohem_cross_entropy(logits, labels_of(0, 0), LossSettings(ohem_min_kept=1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None and not logits.grad.any()


def test_ocr_adds_four_tenths_of_the_auxiliary_loss() -> None:
    outputs, labels = [logits_of(0.5, 0.25), logits_of(0.5, 0.95)], labels_of(0, 0)
    found = combined_loss(outputs, labels, LossSettings(balance=OCR_BALANCE))
    auxiliary, main = -(np.log(0.5) + np.log(0.25)) / 2, -(np.log(0.5) + np.log(0.95)) / 2
    assert float(found) == pytest.approx(0.4 * auxiliary + main)


def test_with_hard_pixels_the_auxiliary_mean_is_over_ignored_pixels_too() -> None:
    outputs = [logits_of(0.5, 0.25, 0.3, 0.3), logits_of(0.5, 0.95, 0.3, 0.3)]
    settings = LossSettings(balance=OCR_BALANCE, ohem_min_kept=1)
    found = combined_loss(outputs, labels_of(0, 0, 255, 255), settings)
    auxiliary, main = -(np.log(0.5) + np.log(0.25)) / 4, -np.log(0.5)
    assert float(found) == pytest.approx(0.4 * auxiliary + main)


def test_losses_refuse_what_does_not_fit() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    with pytest.raises(UserError, match=r"2 pixels .* outside of the 3 classes, such as 3"):
        cross_entropy(logits, torch.tensor([0, 3, 3, 255]).view(2, 2, 1))
    for kind, name in ((torch.uint8, "uint8"), (torch.float32, "float32"), (torch.int32, "int32")):
        for loss in (cross_entropy, pixel_losses):
            with pytest.raises(UserError, match=f"labels are of type {name}; expected int64"):
                loss(torch.zeros(1, 3, 2, 2), torch.ones(1, 2, 2, dtype=kind))
    with pytest.raises(UserError, match="such as -1"):
        pixel_losses(logits, -torch.ones(2, 4, 4, dtype=torch.int64))
    with pytest.raises(UserError, match=r"labels \(1, 4, 4\); expected"):
        cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    ignored = torch.full((2, 4, 4), 255)
    for loss in (cross_entropy, ohem_cross_entropy):
        with pytest.raises(UserError, match="all 32 pixels of the batch carry the ignored label"):
            loss(logits, ignored, LossSettings(ohem_min_kept=5))
    with pytest.raises(UserError, match="2 class weights and 3 classes"):
        cross_entropy(logits, 0 * ignored, LossSettings(class_weights=(1.0, 1.0)))
    with pytest.raises(UserError, match="1 outputs and the loss 2 weights"):
        combined_loss([logits], 0 * ignored, LossSettings(balance=OCR_BALANCE))


def test_cityscapes_has_nineteen_classes() -> None:
    assert len(CITYSCAPES_CLASS_WEIGHTS) == len(set(CITYSCAPES_RAW_LABELS)) == 19
    assert CITYSCAPES_CLASS_WEIGHTS[9] == 1.0023 and CITYSCAPES_CLASS_WEIGHTS[-1] == 1.0507


def random_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and labels (30, 40) of five classes, a tenth of the labels ignored."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (30, 40)).astype(np.uint8)
    predicted = np.where(rng.random((30, 40)) < 0.6, labels, rng.integers(0, 5, (30, 40)))
    labels[rng.random((30, 40)) < 0.1] = 255
    return predicted.astype(np.uint8), labels


def test_the_scores_agree_with_those_of_scikit_learn() -> None:
    predicted, labels = random_labels(0)
    counted = labels != 255
    true, found = labels[counted], predicted[counted]
    confusion = confusion_matrix(predicted, labels, 5)
    scores = segmentation_scores(confusion)
    assert (confusion == sklearn_metrics.confusion_matrix(true, found)).all()
    assert scores.ious == pytest.approx(sklearn_metrics.jaccard_score(true, found, average=None))
    macro = sklearn_metrics.jaccard_score(true, found, average="macro")
    assert scores.mean_iou == scores.mean_iou_of_present == pytest.approx(macro)
    assert scores.pixel_accuracy == pytest.approx(sklearn_metrics.accuracy_score(true, found))
    recall = sklearn_metrics.balanced_accuracy_score(true, found)
    assert scores.mean_accuracy == pytest.approx(recall)
    assert scores.absent_classes == () and scores.remark() is None


def test_a_class_that_never_appears_counts_as_zero_and_is_named() -> None:
    predicted, labels = random_labels(1)
    scores = segmentation_scores(confusion_matrix(predicted, labels, 7))
    without = segmentation_scores(confusion_matrix(predicted, labels, 5))
    assert scores.mean_iou == pytest.approx(without.mean_iou * 5 / 7)
    assert scores.mean_accuracy == pytest.approx(without.mean_accuracy * 5 / 7)
    assert scores.mean_iou_of_present == pytest.approx(without.mean_iou)
    assert scores.absent_classes == (5, 6)
    remark = scores.remark()
    assert remark is not None and "2 of 7 classes never appear" in remark and "(5, 6)" in remark


def test_a_class_that_is_only_predicted_is_not_absent() -> None:
    scores = segmentation_scores(confusion_matrix(np.array([0, 1]), np.array([0, 0]), 2))
    assert scores.absent_classes == () and scores.ious.tolist() == [0.5, 0]
    assert scores.mean_iou == scores.mean_iou_of_present == 0.25


def test_matrices_of_images_add_up() -> None:
    pairs = [random_labels(seed) for seed in range(3)]
    total = sum(confusion_matrix(predicted, labels, 5) for predicted, labels in pairs)
    together = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    assert (total == confusion_matrix(*together, 5)).all()


def test_scores_refuse_what_cannot_be_scored() -> None:
    ones = np.ones((2, 2), np.uint8)
    with pytest.raises(UserError, match="no labeled pixel"):
        segmentation_scores(confusion_matrix(ones, 255 * ones, 3))
    with pytest.raises(UserError, match="label 3 is outside of the 3 classes"):
        confusion_matrix(ones, 3 * ones, 3)
    with pytest.raises(UserError, match="prediction 3 is outside of the 3 classes"):
        confusion_matrix(3 * ones, ones, 3)
    with pytest.raises(UserError, match="resize the predictions"):
        confusion_matrix(ones, ones[:1], 3)


def colors(images: torch.Tensor) -> torch.Tensor:
    """Stand for a network whose logits are the image's colors, at a quarter of its size."""
    return F.avg_pool2d(images, 4)


def itself(images: torch.Tensor) -> torch.Tensor:
    """Stand for a network that works pixel by pixel at full size."""
    return 0.5 * images


def picture(*size: int) -> torch.Tensor:
    """Return an image (1, 3, H, W)."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)


RULE = Evaluation(base_size=48, crop_hw=(24, 24), stride_hw=(16, 16))


def test_scores_are_the_exponential_of_the_mean_of_both_views() -> None:
    images = picture(8, 8)
    images[:, 1] = images[:, 0]

    def network(seen: torch.Tensor) -> torch.Tensor:
        return torch.cat([seen[:, :1], 0 * seen[:, :1]], dim=1) * torch.arange(8.0)

    forward, mirrored = network(images), network(images.flip(-1)).flip(-1)
    found = class_scores(network, images, RULE)
    assert torch.equal(found, (0.5 * (forward + mirrored)).exp())
    alone = class_scores(network, images, Evaluation(**{**vars(RULE), "flip": False}))
    assert torch.equal(alone, forward.exp())


def test_classes_trade_places_in_the_mirror() -> None:
    rule = Evaluation(**{**vars(RULE), "flip_pairs": ((1, 2),)})
    images = picture(8, 8)
    swapped = 0.5 * (itself(images) + itself(images)[:, [0, 2, 1]])
    assert torch.equal(class_scores(itself, images, rule), swapped.exp())
    with pytest.raises(UserError, match=r"\(1, 3\),\) do not fit 3 classes: .* from 0 to 2"):
        class_scores(itself, images, Evaluation(**{**vars(RULE), "flip_pairs": ((1, 3),)}))


def test_logits_are_brought_to_the_size_of_the_image() -> None:
    assert class_scores(colors, picture(16, 24), RULE).shape == (1, 3, 16, 24)


@pytest.mark.parametrize("size", [(24, 24), (40, 50), (25, 24), (10, 60), (10, 10)])
def test_windows_cover_the_image_and_overlaps_are_averaged(size: tuple[int, int]) -> None:
    images = picture(*size)
    found = windowed_scores(itself, images, RULE)
    torch.testing.assert_close(found, itself(images).exp())


def test_overlapping_windows_have_equal_shares() -> None:
    calls = []

    def network(window: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        return torch.full_like(window, float(np.log(1 + len(calls))))

    rule = Evaluation(base_size=1, crop_hw=(4, 4), stride_hw=(3, 3), flip=False)
    shifted = Evaluation(**{**vars(rule), "shift_last": True})
    # Windows at 0 and 3, or shifted at 2; they score 2 and 3.
    for settings, expected in ((rule, [2, 2, 2, 2.5, 3, 3]), (shifted, [2, 2, 2.5, 2.5, 3, 3])):
        calls.clear()
        found = windowed_scores(network, picture(4, 6), settings)
        torch.testing.assert_close(found[0, 0, 0], torch.tensor(expected, dtype=torch.float64))


def test_a_window_beyond_the_image_sees_black_there() -> None:
    seen: list[torch.Tensor] = []

    def network(window: torch.Tensor) -> torch.Tensor:
        seen.append(window)
        return window

    rule = Evaluation(base_size=1, crop_hw=(4, 4), stride_hw=(3, 3), flip=False)
    windowed_scores(network, picture(4, 6), rule)
    assert torch.equal(seen[1], pad_black(picture(4, 6)[..., 3:], (4, 4)))


@pytest.mark.parametrize("shift_last", [False, True])
@pytest.mark.parametrize("length", range(4, 40))
def test_windows_cover_the_image(length: int, shift_last: bool) -> None:
    starts = window_starts(length, 4, 3, shift_last)
    assert starts[0] == 0 and all(0 < after - before <= 3 for before, after in pairwise(starts))
    assert length <= starts[-1] + 4 <= length + (0 if shift_last else 2)


def test_padding_is_black_before_normalization() -> None:
    padded = pad_black(picture(2, 3), (4, 5))
    in_gray_levels = padded[0, :, 3, 4] * torch.tensor(STD) + torch.tensor(MEAN)
    torch.testing.assert_close(in_gray_levels, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(padded[..., :2, :3], picture(2, 3))


def test_scales_add_their_exponentials() -> None:
    images = picture(36, 48)
    once = multi_scale_scores(itself, images, RULE, [1.0])
    torch.testing.assert_close(once, itself(images).exp())
    twice = multi_scale_scores(itself, images, RULE, [1.0, 1.0])
    torch.testing.assert_close(twice, 2 * once)
    half = F.interpolate(images, (18, 24), mode="bilinear", align_corners=False)
    back = F.interpolate(itself(half).exp(), (36, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(multi_scale_scores(itself, images, RULE, [0.5, 1.0]), back + once)


def test_cityscapes_sees_whole_images_up_to_scale_one_and_windows_above() -> None:
    seen: list[tuple[int, ...]] = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[-2:]))
        return images[:, :, ::4, ::4]

    rule = Evaluation(
        **{**vars(CITYSCAPES), "base_size": 128, "crop_hw": (32, 64), "stride_hw": (32, 64)}
    )
    multi_scale_scores(network, picture(32, 64), rule, [0.5, 1.0, 1.5])
    # Each twice, for the flip: 32 x 64, 64 x 128, and nine windows of 96 x 192.
    assert seen == [(32, 64)] * 2 + [(64, 128)] * 2 + [(32, 64)] * 2 * 9
    assert windowed(520, (520, 520)).stride_hw == (346, 346)


def test_evaluation_refuses_what_cannot_be_added() -> None:
    for scales in ([], [1.0, 0.0]):
        with pytest.raises(UserError, match="give at least one, all above 0"):
            multi_scale_scores(itself, picture(8, 8), RULE, scales)
    with pytest.raises(UserError, match=r"exp of the logits overflows torch\.float32"):
        multi_scale_scores(lambda seen: 100 + seen, picture(8, 8).float(), RULE, [1.0])
