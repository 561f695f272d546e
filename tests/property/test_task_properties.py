"""What holds for all keypoints, heatmaps and label maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.tasks.keypoints.crops import (
    CropBox,
    coco_crop_box,
    crop_matrix,
    inverse_matrix,
    transform_points,
)
from reproduction.tasks.keypoints.flipping import FLIP_PAIRS, flip_test, unflip_heatmaps
from reproduction.tasks.keypoints.heatmaps import STRIDE, decode_heatmaps, encode_heatmaps
from reproduction.tasks.keypoints.metrics import COCO_SIGMAS, oks, oks_nms
from reproduction.tasks.segmentation.losses import LossSettings, cross_entropy, ohem_cross_entropy
from reproduction.tasks.segmentation.metrics import confusion_matrix, segmentation_scores

seeds = st.integers(0, 2**32)
few = settings(max_examples=40, deadline=None)
sides = st.floats(1.0, 800.0)


@few
@given(x=st.floats(0, 185), y=st.floats(0, 249), sigma_px=st.sampled_from([2, 3]))
def test_decoding_a_target_finds_its_keypoint_within_half_a_heatmap_pixel(
    x: float, y: float, sigma_px: int
) -> None:
    maps, weights = encode_heatmaps(
        np.array([[x, y]]),
        np.array([1]),
        input_wh=(192, 256),
        heatmap_wh=(48, 64),
        sigma_px=sigma_px,
    )
    found, scores = decode_heatmaps(torch.from_numpy(maps)[None])

    assert weights[0] == 1 and float(scores) == 1
    # A target has its peak on a pixel and equal neighbors, so that nothing moves it.
    assert np.abs(found[0, 0].numpy() - np.array([x, y]) / STRIDE).max() <= 0.5 + 1e-6


@few
@given(x=st.floats(-400, 600), y=st.floats(-400, 700))
def test_targets_are_between_zero_and_one_wherever_the_keypoint_lies(x: float, y: float) -> None:
    maps, weights = encode_heatmaps(
        np.array([[x, y]]), np.array([2]), input_wh=(192, 256), heatmap_wh=(48, 64), sigma_px=2
    )

    assert maps.min() >= 0 and maps.max() <= 1
    assert weights[0] == 1 or not maps.any()


@few
@given(seed=seeds, width=sides, height=sides, angle=st.floats(-180, 180))
def test_a_crop_can_be_undone_and_holds_its_box(
    seed: int, width: float, height: float, angle: float
) -> None:
    box = coco_crop_box((10.0, -20.0, width, height), (192, 256))
    matrix = crop_matrix(box, (192, 256), angle)
    points = np.random.default_rng(seed).uniform(-500, 500, (7, 2))
    back = transform_points(transform_points(points, matrix), inverse_matrix(matrix))
    corners = np.array([[10, -20], [10 + width, -20 + height]])
    upright = transform_points(corners, crop_matrix(box, (192, 256)))

    assert back == pytest.approx(points, abs=1e-6)
    assert box.scale_wh[0] / box.scale_wh[1] == pytest.approx(192 / 256)
    assert (upright[0] >= 0).all() and (upright[1] <= [192, 256]).all()


@few
@given(seed=seeds)
def test_mirroring_heatmaps_twice_changes_nothing(seed: int) -> None:
    maps = torch.rand(2, 17, 8, 6, generator=torch.Generator().manual_seed(seed))
    pairs = FLIP_PAIRS["coco"]
    once = unflip_heatmaps(maps, pairs, shift=False)

    assert torch.equal(unflip_heatmaps(once, pairs, shift=False), maps)
    assert not torch.equal(once, maps)


@few
@given(seed=seeds)
def test_the_flip_test_sees_an_image_and_its_mirror_image_alike(seed: int) -> None:
    images = torch.rand(1, 17, 8, 6, generator=torch.Generator().manual_seed(seed))

    def network(seen: torch.Tensor) -> torch.Tensor:
        return seen * torch.arange(1.0, 18)[:, None, None] + torch.arange(6.0)

    pairs = FLIP_PAIRS["coco"]
    mirrored = flip_test(network, images.flip(-1), pairs, shift=False)
    unflipped = unflip_heatmaps(mirrored, pairs, shift=False)
    torch.testing.assert_close(unflipped, flip_test(network, images, pairs, shift=False))


@few
@given(seed=seeds)
def test_similarity_is_a_share_and_one_with_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = rng.uniform(0, 200, (5, 17, 2))
    areas = rng.uniform(1, 4e4, 5)
    found = oks(people[0], people, areas[0], areas)
    back = [float(oks(people[n], people[:1], areas[n], areas[:1])[0]) for n in range(5)]

    assert (found >= 0).all() and (found <= 1).all() and found[0] == 1
    assert found == pytest.approx(back)
    kept = oks_nms(people, rng.random(5), areas, threshold=0.5)
    for first in kept:
        others = [other for other in kept if other != first]
        assert not (oks(people[first], people[others], areas[first], areas[others]) > 0.5).any()
    assert len(COCO_SIGMAS) == 17


@few
@given(seed=seeds, min_kept=st.integers(1, 200))
def test_hard_pixels_lose_at_least_as_much_as_all(seed: int, min_kept: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 6, 7), generator=generator)
    labels[0, 0] = 255
    hard = float(ohem_cross_entropy(logits, labels, LossSettings(ohem_min_kept=min_kept)))

    assert hard >= float(cross_entropy(logits, labels)) - 1e-12


@few
@given(seed=seeds)
def test_scores_are_shares_and_one_for_a_perfect_prediction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 6, (2, 9, 11))
    found = segmentation_scores(confusion_matrix(predicted, labels, 6))
    perfect = segmentation_scores(confusion_matrix(labels, labels, 6))

    assert (found.ious >= 0).all() and (found.ious <= 1).all()
    assert found.mean_iou <= found.mean_iou_of_present <= 1
    assert perfect.mean_iou_of_present == perfect.pixel_accuracy == 1
    order = rng.permutation(6)
    renamed = segmentation_scores(confusion_matrix(order[predicted], order[labels], 6))
    assert renamed.mean_iou == pytest.approx(found.mean_iou)


def test_a_crop_box_is_data() -> None:
    assert CropBox((1.0, 2.0), (0.5, 1.0)).area_px == 20000
