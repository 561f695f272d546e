"""PCKh, OKS, average precision and the errors of landmarks, by hand and by pycocotools."""

from typing import Any

import numpy as np
import pytest
import torch

from reproduction import UserError
from reproduction.tasks.keypoints.crops import CropBox
from reproduction.tasks.keypoints.landmarks import (
    decode_landmarks,
    encode_landmarks,
    failure_rate,
    landmark_mse,
    normalized_mean_errors,
)
from reproduction.tasks.keypoints.metrics import (
    AP_NAMES,
    COCO_SIGMAS,
    OFFICIAL_MEAN_01_THRESHOLD,
    instance_score,
    keypoint_ap,
    oks,
    oks_nms,
    pckh,
)

HEAD = np.array([[0.0, 0.0, 30.0, 40.0]])  # diagonal 50: distances are divided by 30


def people(*distances: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return MPII predictions, each keypoint of a person off by its distance, and the truth."""
    truth = np.zeros((len(distances), 16, 2))
    predicted = truth.copy()
    predicted[:, :, 0] = np.array(distances)[:, None]
    return predicted, truth, np.ones((len(distances), 16), bool), HEAD.repeat(len(distances), 0)


def test_pckh_counts_distances_up_to_the_threshold() -> None:
    predicted, truth, visible, heads = people(14.9, 15.0, 15.1, 40.0)
    scores = pckh(predicted, truth, visible, heads)
    assert scores.mean == 50 and set(scores.groups.values()) == {50}
    assert pckh(*people(3.1)).mean == 100
    assert pckh(*people(3.1), threshold=0.1).mean == 0
    # The official "Mean@0.1" is in fact a threshold of 0.11.
    assert pckh(*people(3.1), threshold=OFFICIAL_MEAN_01_THRESHOLD).mean == 100


def test_pckh_averages_groups_over_sides_and_the_mean_over_visible_keypoints() -> None:
    predicted, truth, visible, heads = people(0.0, 0.0)
    predicted[0, 0] = 1000.0  # one ankle of the first person is wrong
    visible[1, 0] = False  # and the second person's is not visible
    predicted[:, 6] = 1000.0  # the pelvis is not in the mean
    scores = pckh(predicted, truth, visible, heads)
    assert scores.groups["Ankle"] == 50  # 0 % right, 100 % left
    assert scores.keypoints[6] == 0
    assert scores.mean == pytest.approx(100 * 26 / 27)  # 14 keypoints twice, less one invisible


def test_a_keypoint_that_is_never_visible_has_no_score_and_no_part_in_the_mean() -> None:
    predicted, truth, visible, heads = people(0.0)
    visible[:, 9] = False
    scores = pckh(predicted, truth, visible, heads)
    assert np.isnan(scores.keypoints[9]) and np.isnan(scores.groups["Head"])
    assert scores.mean == 100


def test_pckh_refuses_what_cannot_be_scored() -> None:
    predicted, truth, visible, heads = people(0.0, 1.0)
    with pytest.raises(UserError, match="no visible keypoint"):
        pckh(predicted, truth, ~visible, heads)
    with pytest.raises(UserError, match="no visible keypoint"):
        pckh(*(array[:0] for array in (predicted, truth, visible, heads)))
    with pytest.raises(UserError, match="head box of person 1 has no extent"):
        pckh(predicted, truth, visible, heads * [[1], [0]])
    with pytest.raises(UserError, match=r"expected \(N, 16, 2\)"):
        pckh(predicted[:, :14], truth, visible, heads)


def test_similarity_of_detections_by_hand() -> None:
    # Areas 100 and 300: mean 200. sigma 0.05, doubled 0.1: d^2 / (0.01 * 200 * 2) = d^2 / 4.
    others = np.array([[[0.0, 2.0], [0.0, 0.0]]])
    found = oks(np.zeros((2, 2)), others, 100.0, np.array([300.0]), np.array([0.05, 0.05]))
    assert found == pytest.approx([(np.exp(-1) + 1) / 2])


def test_near_duplicates_are_dropped_and_the_best_is_kept() -> None:
    first = np.random.default_rng(0).uniform(0, 100, (17, 2))
    detections = np.stack([first, first + 0.1, first + 60])
    kept = oks_nms(detections, np.array([0.5, 0.9, 0.1]), np.full(3, 1e4))
    assert kept == [1, 2]
    assert oks_nms(detections, np.array([0.5, 0.9, 0.1]), np.full(3, 1e4), 1.0) == [1, 0, 2]


def test_an_instance_scores_by_the_keypoints_found() -> None:
    assert instance_score(0.8, np.array([0.9, 0.3, 0.2, 0.0])) == pytest.approx(0.48)
    assert instance_score(0.8, np.array([0.2, 0.1])) == 0


def ground_truth(count: int, keypoints: int = 17, side: float = 100.0) -> dict[str, Any]:
    """Return people in COCO's format, one an image."""
    rng = np.random.default_rng(7)
    annotations = [
        {
            "id": number + 1,
            "image_id": number,
            "category_id": 1,
            "keypoints": np.column_stack(
                [rng.uniform(0, side, (keypoints, 2)), np.full(keypoints, 2)]
            )
            .ravel()
            .tolist(),
            "num_keypoints": keypoints,
            "bbox": [0, 0, side, side],
            "area": side * side,
            "iscrowd": 0,
        }
        for number in range(count)
    ]
    images = [{"id": number, "width": 200, "height": 200} for number in range(count)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }


def detections(truth: dict[str, Any], offset: float = 0.0) -> list[dict[str, Any]]:
    """Return the truth as detections, all keypoints moved to the right."""
    found = []
    for annotation in truth["annotations"]:
        points = np.array(annotation["keypoints"]).reshape(-1, 3) + np.array([offset, 0, 0])
        found.append(
            {
                "image_id": annotation["image_id"],
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "score": 0.5,
            }
        )
    return found


def test_perfect_detections_have_full_precision() -> None:
    truth = ground_truth(3, side=120.0)  # 14400 px: large persons, none of medium size
    scores = keypoint_ap(truth, detections(truth))
    assert tuple(scores) == AP_NAMES
    assert np.isnan([scores["AP_M"], scores["AR_M"]]).all()
    assert {scores[name] for name in AP_NAMES if not name.endswith("_M")} == {1.0}


def test_precision_follows_from_the_similarity_by_hand() -> None:
    truth = ground_truth(2)
    moved = detections(truth, offset=6.0)
    points = np.array(truth["annotations"][0]["keypoints"]).reshape(17, 3)[:, :2]
    similarity = float(oks(points, points[None] + [6.0, 0.0], 1e4, np.array([1e4]))[0])
    assert similarity == pytest.approx(np.exp(-36 / (2 * 1e4 * (2 * COCO_SIGMAS) ** 2)).mean())
    steps = np.arange(0.5, 1.0, 0.05)
    scores = keypoint_ap(truth, moved)
    assert 0.5 < similarity < 0.95
    assert scores["AP"] == pytest.approx((similarity >= steps).mean())
    assert scores["AP50"] == 1 and scores["AP75"] == float(similarity >= 0.75)


def test_a_missing_person_costs_recall() -> None:
    truth = ground_truth(2)
    scores = keypoint_ap(truth, detections(truth)[:1])
    assert scores["AR"] == 0.5
    assert scores["AP"] == pytest.approx(51 / 101)  # of 101 recall thresholds, those up to 0.5
    assert keypoint_ap(truth, []) == dict.fromkeys(AP_NAMES, 0.0)


def test_other_keypoints_than_cocos_bring_their_own_constants() -> None:
    truth = ground_truth(2, keypoints=5)
    assert keypoint_ap(truth, detections(truth), np.full(5, 0.05))["AP"] == 1


def test_average_precision_refuses_what_cannot_be_scored() -> None:
    truth = ground_truth(2)
    with pytest.raises(UserError, match="0 annotations and no visible keypoint"):
        keypoint_ap({**truth, "annotations": []}, detections(truth))
    hidden = [{**annotation, "num_keypoints": 0} for annotation in truth["annotations"]]
    with pytest.raises(UserError, match="2 annotations and no visible keypoint"):
        keypoint_ap({**truth, "annotations": hidden}, [])
    crowds = [{**annotation, "iscrowd": 1} for annotation in truth["annotations"]]
    with pytest.raises(UserError, match=r"2 annotations and no visible keypoint.*\(crowds do not"):
        keypoint_ap({**truth, "annotations": crowds}, detections(truth))
    with pytest.raises(UserError, match="expected 15, three for each of 5 keypoints"):
        keypoint_ap(truth, detections(truth), np.full(5, 0.05))
    with pytest.raises(UserError, match="image 1 of a detection is not in the ground truth"):
        only_first = {"images": truth["images"][:1], "annotations": truth["annotations"][:1]}
        keypoint_ap({**truth, **only_first}, detections(truth))


def peak_of(x: float, y: float, sigma_px: float) -> list[int]:
    """Return (x, y) of the largest value of a landmark's target."""
    target = encode_landmarks(np.array([[x, y]]), np.array([True]), (64, 64), sigma_px)[0]
    assert target.max() == 1
    row, column = np.unravel_index(target.argmax(), target.shape)
    return [int(column), int(row)]


# Measured from the official code: exact from 5 on, one pixel too far from 0 to 4.
@pytest.mark.parametrize("place", range(64))
def test_landmark_peaks_are_those_of_the_official_code(place: int) -> None:
    assert peak_of(place, 30, 1.5) == [place + (place <= 4), 30]
    assert peak_of(30, place, 1.5) == [30, place + (place <= 4)]
    assert peak_of(place, 30, 1.0) == [place, 30]


def test_a_landmark_target_is_ten_pixels_wide_and_may_be_left_out() -> None:
    places = np.array([[20, 30], [20, 30]])
    target = encode_landmarks(places, np.array([True, False]), (64, 64), 1.5)
    assert (target[0].any(0).sum(), target[0].any(1).sum()) == (10, 10)
    assert target[0, 30, 18] == pytest.approx(np.exp(-4 / 4.5))
    assert not target[1].any()
    assert not encode_landmarks(np.array([[-20, 90]]), np.array([True]), (64, 64), 1.5).any()
    with pytest.raises(UserError, match="expected one"):
        encode_landmarks(places, np.array([True]), (64, 64), 1.5)


def test_landmarks_are_cut_to_whole_pixels() -> None:
    maps = torch.zeros(1, 1, 64, 64)
    maps[0, 0, 10, 20], maps[0, 0, 10, 21] = 1.0, 0.5
    # (21.25, 11) from 1, half a pixel on: (21.75, 11.5); (20.75, 10.5) from 0; one px a pixel.
    box = CropBox((32.0, 32.0), (64 / 200, 64 / 200))
    assert decode_landmarks(maps, [box]).tolist() == [[[21, 11]]]
    # Without a value above 0: (0, 0) from 1, half a pixel on, is -0.5 from 0, cut to 0.
    assert decode_landmarks(maps - 2, [box]).tolist() == [[[1, 1]]]
    with pytest.raises(UserError, match="1 heatmaps and 2 boxes"):
        decode_landmarks(maps, [box, box])


@pytest.mark.parametrize(("x", "moves"), [(0, False), (1, True), (62, True), (63, False)])
def test_landmark_peaks_move_except_at_the_border(x: int, moves: bool) -> None:
    maps = torch.arange(64.0)[:, None] * 1e-3 + torch.arange(64.0) * 1e-3
    maps[30, x] = 1.0
    box = CropBox((256.0, 256.0), (512 / 200, 512 / 200))  # eight px a heatmap pixel
    found = decode_landmarks(maps[None, None], [box])[0, 0]
    assert found.tolist() == [8 * (x + 0.5 + 0.25 * moves) + 1, 8 * (30.5 + 0.25 * moves) + 1]


@pytest.mark.parametrize(
    ("dataset", "count", "first", "second"),
    [("wflw", 98, 60, 72), ("300w", 68, 36, 45), ("cofw", 29, 8, 9)],
)
def test_errors_are_divided_by_the_distance_of_the_eyes(
    dataset: str, count: int, first: int, second: int
) -> None:
    truth = np.zeros((2, count, 2))
    truth[:, second] = (20.0, 0.0)
    predicted = truth.copy()
    predicted[0] += (0.0, 4.0)
    predicted[1, 0] += (0.0, 4.0)
    errors = normalized_mean_errors(predicted, truth, dataset)
    assert errors == pytest.approx([0.2, 0.2 / count])
    with pytest.raises(UserError, match="expected one above 0 for each"):
        normalized_mean_errors(truth, 0 * truth, dataset)
    with pytest.raises(UserError, match=f"of landmarks {first} and {second}, but there are 5"):
        normalized_mean_errors(truth[:, :5], truth[:, :5], dataset)


def test_aflw_divides_by_the_size_of_the_box() -> None:
    truth = np.zeros((2, 19, 2))
    errors = normalized_mean_errors(
        truth + np.array([3, 4]), truth, "aflw", np.array([100.0, 50.0])
    )
    assert errors == pytest.approx([0.05, 0.1])
    for dataset, sizes in (("aflw", None), ("cofw", np.ones(2))):
        with pytest.raises(UserError, match="box sizes normalize the errors of aflw"):
            normalized_mean_errors(truth, truth, dataset, sizes)


def test_landmark_errors_refuse_what_cannot_be_scored() -> None:
    truth = np.zeros((0, 98, 2))
    with pytest.raises(UserError, match="no face"):
        normalized_mean_errors(truth, truth, "wflw")
    with pytest.raises(UserError, match="expected \\(faces, landmarks, 2\\)"):
        normalized_mean_errors(truth, np.zeros((1, 98, 2)), "wflw")
    with pytest.raises(UserError, match="'ffhq' is unknown"):
        normalized_mean_errors(np.zeros((1, 9, 2)), np.zeros((1, 9, 2)), "ffhq")


def test_failures_are_errors_above_the_threshold() -> None:
    assert failure_rate(np.array([0.05, 0.08, 0.09, 0.2]), 0.08) == 0.5


def test_the_landmark_loss_has_no_weights() -> None:
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, 0, 0, 0] = 4.0
    assert float(landmark_mse(maps, torch.zeros_like(maps))) == 2.0
    with pytest.raises(UserError, match="make the targets"):
        landmark_mse(maps, torch.zeros(1, 3, 2, 2))
