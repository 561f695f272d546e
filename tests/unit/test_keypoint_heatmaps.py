"""Heatmap targets, decoding, the flip test, crops and losses of keypoints, by hand."""

import doctest
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from reproduction import UserError
from reproduction.tasks.keypoints import crops, flipping, heatmaps, landmarks, losses, metrics
from reproduction.tasks.keypoints.crops import (
    CropBox,
    coco_crop_box,
    crop_image,
    crop_images,
    crop_matrix,
    inverse_matrix,
    mpii_crop_box,
    transform_points,
)
from reproduction.tasks.keypoints.flipping import FLIP_PAIRS, flip_test, unflip_heatmaps
from reproduction.tasks.keypoints.heatmaps import (
    decode_heatmaps,
    encode_heatmaps,
    heatmap_to_image,
)
from reproduction.tasks.keypoints.losses import hard_keypoint_mse, keypoint_mse

SIZES = {"input_wh": (192, 256), "heatmap_wh": (48, 64)}


@pytest.mark.parametrize("module", [crops, flipping, heatmaps, landmarks, losses, metrics])
def test_the_examples_of_the_docstrings_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


def encode(
    x: float, y: float, visibility: int = 1, sigma_px: float = 2
) -> tuple[np.ndarray, float]:
    """Return the target heatmap of one keypoint on a 48 x 64 map, and its weight."""
    maps, weights = encode_heatmaps(
        np.array([[x, y]]), np.array([visibility]), sigma_px=sigma_px, **SIZES
    )
    return maps[0], float(weights[0])


# Measured from the official code: keypoint in the input, largest value, weight.
@pytest.mark.parametrize(
    ("x", "y", "peak", "weight"),
    [
        (10.3, 20.9, 1.0, 1.0),
        (-20, 50, 0.1353, 1.0),
        (-30, 50, 0.0, 1.0),  # just beyond the border: nothing to see, and it counts
        (191, 255, 0.7788, 1.0),
    ],
)
def test_targets_are_those_of_the_official_code(
    x: float, y: float, peak: float, weight: float
) -> None:
    target, found_weight = encode(x, y)
    assert target.max() == pytest.approx(peak, abs=5e-5)
    assert found_weight == weight


def test_a_target_is_a_gaussian_of_peak_one_cut_at_three_sigma() -> None:
    target, _ = encode(40, 80)
    assert np.unravel_index(target.argmax(), target.shape) == (20, 10)
    assert target[20, 12] == pytest.approx(np.exp(-4 / 8))
    assert target[23, 14] == pytest.approx(np.exp(-(9 + 16) / 8))
    assert target[26, 16] > 0 and target[27, 10] == target[20, 17] == 0
    assert (target > 0).sum() == 13 * 13


# Corner of the patch at the map's end, or its end before the map: the weight goes. sigma is 2.
@pytest.mark.parametrize(
    ("x", "y", "weight"),
    [
        *((212, 50, 1), (213.9, 50, 1), (214, 50, 0), (50, 277, 1), (50, 278, 0)),
        *((-30, 50, 1), (-34, 50, 0), (50, -30, 1), (50, -34, 0), (-1000, 50, 0)),
    ],
)
def test_a_keypoint_whose_gaussian_is_outside_does_not_count(
    x: float, y: float, weight: int
) -> None:
    assert encode(x, y)[1] == weight


def test_an_invisible_keypoint_has_no_target() -> None:
    target, weight = encode(40, 80, visibility=0)
    assert not target.any() and weight == 0


def test_coco_visibility_two_is_weight_one() -> None:
    assert encode(40, 80, visibility=2)[1] == 1


def test_targets_that_do_not_fit_are_refused() -> None:
    one = np.array([[1.0, 2.0]])
    with pytest.raises(UserError, match="48 x 48 do not fit an image of 192 x 256"):
        encode_heatmaps(one, np.array([1]), input_wh=(192, 256), heatmap_wh=(48, 48), sigma_px=2)
    with pytest.raises(UserError, match=r"shape \(1, 2\) and there are 2 visibilities"):
        encode_heatmaps(one, np.array([1, 1]), sigma_px=2, **SIZES)
    with pytest.raises(UserError, match="not a finite number"):
        encode_heatmaps(one * np.nan, np.array([1]), sigma_px=2, **SIZES)


@pytest.mark.parametrize("sigma_px", [0, -1, np.nan, np.inf])
def test_a_gaussian_without_extent_is_refused(sigma_px: float) -> None:
    with pytest.raises(UserError, match=rf"sigma_px is {sigma_px}; expected .* above 0, such as 2"):
        encode(40, 80, sigma_px=sigma_px)
    with pytest.raises(UserError, match=rf"sigma_px is {sigma_px}; expected"):
        landmarks.encode_landmarks(np.ones((1, 2)), np.array([True]), (64, 64), sigma_px)


def one_map(*values: tuple[int, int, float], size: tuple[int, int] = (64, 48)) -> torch.Tensor:
    """Return a heatmap (1, 1, H, W) with the values (x, y, value) and zeros elsewhere."""
    maps = torch.zeros(1, 1, *size)
    for x, y, value in values:
        maps[0, 0, y, x] = value
    return maps


def test_decoding_is_that_of_the_official_code() -> None:
    box = CropBox((96.0, 128.0), (192 / 200, 256 / 200))
    refined = one_map((20, 10, 1.0), (21, 10, 0.5), (20, 9, 0.2))
    unrefined = one_map((1, 10, 1.0), (2, 10, 0.5), (1, 9, 0.2))
    for maps, expected in ((refined, (81, 39)), (unrefined, (4, 40))):
        found, scores = decode_heatmaps(maps)
        in_image = heatmap_to_image(found[0, 0].numpy(), box, (48, 64))
        assert in_image == pytest.approx(expected, abs=1e-9)
        assert float(scores) == 1


@pytest.mark.parametrize(
    ("x", "y", "moves"),
    [
        *((2, 2, True), (46, 62, True), (1, 10, False), (10, 1, False), (0, 0, False)),
        *((47, 10, False), (10, 63, False), (2, 1, False)),
    ],
)
def test_peaks_near_the_border_stay_where_they_are(x: int, y: int, moves: bool) -> None:
    maps = torch.arange(64.0)[:, None] * 1e-3 + torch.arange(48.0) * 1e-3
    maps[y, x] = 1.0
    found, _ = decode_heatmaps(maps[None, None])
    assert found[0, 0].tolist() == [x + 0.25 * moves, y + 0.25 * moves]


def test_equal_neighbors_do_not_move_a_peak() -> None:
    found, _ = decode_heatmaps(one_map((20, 10, 1.0), (19, 10, 0.5), (21, 10, 0.5)))
    assert found[0, 0].tolist() == [20, 10]


def test_a_map_without_positive_value_is_decoded_as_the_origin() -> None:
    maps = -1.0 - one_map((20, 10, -0.5))  # its largest value is -0.5, at (20, 10)
    found, scores = decode_heatmaps(maps)
    assert found[0, 0].tolist() == [0, 0] and float(scores) == -0.5


def test_heatmaps_of_one_image_need_their_batch_axis() -> None:
    with pytest.raises(UserError, match=r"shape \(17, 64, 48\); expected \(images, keypoints"):
        decode_heatmaps(torch.zeros(17, 64, 48))


def test_the_crop_matrices_are_those_of_the_official_code() -> None:
    box = CropBox((100.0, 120.0), (0.75, 1.0))
    assert crop_matrix(box, (192, 256)) == pytest.approx(
        np.array([[1.28, 0, -32], [0, 1.28, -25.6]])
    )
    assert crop_matrix(box, (192, 256), 30) == pytest.approx(
        np.array([[1.1085, 0.64, -91.6513], [-0.64, 1.1085, 58.9785]]), abs=5e-5
    )


def test_the_inverse_undoes_a_crop() -> None:
    matrix = crop_matrix(CropBox((31.0, 47.0), (0.3, 0.9)), (192, 256), -25)
    points = np.array([[3.0, 4.0], [-50.0, 120.0]])
    there = transform_points(points, matrix)
    assert transform_points(there, inverse_matrix(matrix)) == pytest.approx(points)


def test_boxes_are_extended_to_the_shape_of_the_input() -> None:
    # 300 x 100 at 192:256 becomes 300 x 400; with the margin 375 x 500 px.
    wide = coco_crop_box((10.0, 20.0, 300.0, 100.0), (192, 256))
    assert wide.center_xy == (160.0, 70.0)
    assert wide.scale_wh == pytest.approx((1.875, 2.5))
    assert wide.area_px == pytest.approx(375 * 500)
    assert mpii_crop_box((594.0, 257.0), 3.0) == CropBox((593.0, 301.0), (3.75, 3.75))
    with pytest.raises(UserError, match="is 0 wide and 5 high"):
        coco_crop_box((1, 2, 0, 5), (192, 256))


def test_a_crop_shows_the_pixels_that_its_matrix_names() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    shifted = crop_image(image, np.array([[1.0, 0, -5], [0, 1, -7]]), (10, 8))
    assert (shifted == image[7:15, 5:15]).all()
    # Half a pixel to the right: the mean of two neighbors.
    between = crop_image(image, np.array([[1.0, 0, -5.5], [0, 1, -7]]), (10, 8)).astype(int)
    mean = (image[7:15, 5:15].astype(int) + image[7:15, 6:16]) / 2
    assert np.abs(between - mean).max() <= 0.5
    assert not crop_image(image, np.array([[1.0, 0, 100], [0, 1, 0]]), (10, 8)).any()


def test_many_crops_at_once_have_the_bits_of_single_ones() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 30, 40, 3), dtype=np.uint8)
    boxes = [CropBox((20.0, y), (0.1, 0.1)) for y in draw.uniform(5, 25, 4)]
    matrices = np.stack([crop_matrix(box, (16, 12), 17.0 * n) for n, box in enumerate(boxes)])
    single = [
        crop_image(image, matrix, (16, 12)) for image, matrix in zip(images, matrices, strict=True)
    ]
    assert np.array_equal(crop_images(images, matrices, (16, 12)), np.stack(single))


def test_crops_of_the_brightest_image_stay_bright() -> None:
    white = np.full((1, 30, 40, 3), 255, dtype=np.uint8)
    boxes = [CropBox((20.0, 15.0), (s, s)) for s in np.linspace(0.02, 0.08, 50)]
    for box in boxes:
        assert (crop_images(white, crop_matrix(box, (16, 12), 10.0)[None], (16, 12)) == 255).all()


def test_upright_crops_come_from_the_same_bits_as_turned_ones() -> None:
    draw = np.random.default_rng(0)
    boxes = [CropBox((x, y), (s, s)) for x, y, s in draw.uniform(0.05, 30, (6, 3))]
    upright = crops.inverse_matrix(np.stack([crop_matrix(box, (16, 12)) for box in boxes]))
    turned = crop_matrix(boxes[0], (16, 12), 30.0)[None]
    both = np.concatenate([upright, turned])  # one turned crop sends all through the matrices
    assert not upright[:, 0, 1].any() and turned[0, 0, 1] != 0
    alone, among = (crops._sampling_grid(each, (30, 40), (16, 12)) for each in (upright, both))
    assert np.array_equal(alone, among[:-1])


def test_weights_multiply_prediction_and_target() -> None:
    # Errors 1 and 2 with weights 1 and 0.5, four pixels each: half the mean of (1, 1).
    prediction = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    loss = keypoint_mse(prediction, torch.zeros(1, 2, 2, 2), torch.tensor([[1.0, 0.5]]))
    assert float(loss) == 0.5


def test_the_loss_is_the_mean_over_keypoints_of_half_their_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.rand(2, 3, 5, 7, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    weighted = weights[..., None, None] * (prediction - target)
    by_keypoint = [0.5 * (weighted[:, keypoint] ** 2).mean() for keypoint in range(5)]
    expected = torch.stack(by_keypoint).mean()
    assert float(keypoint_mse(prediction, target, weights)) == pytest.approx(float(expected))
    every = hard_keypoint_mse(prediction, target, weights, hardest=5)
    assert float(every) == pytest.approx(float(expected))


def test_losses_refuse_what_does_not_fit() -> None:
    maps, weights = torch.zeros(2, 3, 8, 8), torch.ones(2, 3)
    with pytest.raises(UserError, match="make the targets for the network's input size"):
        keypoint_mse(maps, torch.zeros(2, 3, 8, 6), weights)
    with pytest.raises(UserError, match=r"expected \(2, 3\), one for each image"):
        keypoint_mse(maps, maps, torch.ones(2, 4))
    with pytest.raises(UserError, match="8 hardest keypoints are to count, of 3"):
        hard_keypoint_mse(maps, maps, weights)
    with pytest.raises(UserError, match=r"have shape \(3, 8, 8\); expected \(images, keypoints"):
        keypoint_mse(maps[0], maps[0], weights)


@pytest.mark.parametrize(
    "loss",
    [
        lambda maps, targets: keypoint_mse(maps, targets, torch.ones(2, 3)),
        lambda maps, targets: hard_keypoint_mse(maps, targets, torch.ones(2, 3)),
        landmarks.landmark_mse,
    ],
)
def test_losses_of_maps_that_are_no_tensor_get_a_sentence(
    loss: Callable[[object, object], object],
) -> None:
    maps = torch.zeros(2, 3, 8, 8)
    with pytest.raises(UserError, match="heatmaps are a list; expected one tensor"):
        loss([maps], maps)
    with pytest.raises(UserError, match="their targets are a ndarray; expected one tensor"):
        loss(maps, maps.numpy())


def test_an_unflipped_map_trades_pairs_and_moves_right() -> None:
    maps = torch.arange(12.0).view(1, 3, 1, 4)  # rows 0-3, 4-7 and 8-11
    unflipped = unflip_heatmaps(maps, [(1, 2)])
    assert unflipped[0, :, 0].tolist() == [[3, 3, 2, 1], [11, 11, 10, 9], [7, 7, 6, 5]]
    assert unflip_heatmaps(maps, [(1, 2)], shift=False)[0, 1, 0].tolist() == [11, 10, 9, 8]


def test_a_symmetric_network_is_not_changed_by_the_flip_test() -> None:
    images = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    averaged = flip_test(lambda seen: seen, images, (), shift=False)
    assert torch.equal(averaged, images)
    shifted = flip_test(lambda seen: seen, images, ())
    assert torch.equal(shifted[..., 1:], 0.5 * (images[..., 1:] + images[..., :-1]))


def test_the_pairs_of_the_data_sets() -> None:
    assert FLIP_PAIRS["coco"][0] == (1, 2) and FLIP_PAIRS["coco"][-1] == (15, 16)
    assert len(FLIP_PAIRS["coco"]) == 8 and len(FLIP_PAIRS["mpii"]) == 6
    for pairs in ([(1, 17)], [(1, 2), (2, 3)]):
        with pytest.raises(UserError, match="do not fit 17 keypoints"):
            unflip_heatmaps(torch.zeros(1, 17, 4, 4), pairs)


def test_annotations_outside_of_their_image_are_refused() -> None:
    points = np.array([[[0.0, 0.0], [99.0, 49.0]], [[5.0, 5.0], [100.0, 20.0]]])
    crops.check_keypoints(points, np.array([[2, 2], [2, 0]]), (100, 50))
    with pytest.raises(UserError, match=r"keypoint 1 is marked visible at \(100, 20\), outside"):
        crops.check_keypoints(points, np.array([[2, 2], [2, 1]]), (100, 50))
    with pytest.raises(UserError, match="expected one visibility for each"):
        crops.check_keypoints(points, np.array([2, 2]), (100, 50))
