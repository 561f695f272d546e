"""Detection: the detector's levels, its targets and losses, COCO's figures, and bad scenes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN

from reproduction import UserError, build_network
from reproduction import train as loop
from reproduction.networks import make_network
from reproduction.recipe import Recipe
from reproduction.tasks.detection.config import PUBLISHED, SCENES, SMALL_PYRAMID
from reproduction.tasks.detection.detector import make_detector
from reproduction.tasks.detection.metrics import box_ap
from reproduction.tasks.detection.task import SceneDetection, best_boxes
from reproduction.tasks.scenes.dataset import Scenes

CPU = torch.device("cpu")
TINY_PYRAMID = replace(SMALL_PYRAMID, width=2, stage1_width=4, residual_units=1, outputs=8)
TINY = replace(SCENES, image_size=(64, 64), channels=8, hidden=8)
RECIPE = Recipe(optimizer="sgd", learning_rate=0.01, momentum=0.9, batch_size=2, epochs=2)


def scenes(count: int = 6, **changes: np.ndarray) -> Scenes:
    """Make scenes of noise, 64 pixels wide, with two boxes each."""
    rng = np.random.default_rng(0)
    digits = np.full((count, 4), -1)
    digits[:, :2] = rng.integers(0, 10, (count, 2))
    boxes_xywh = np.full((count, 4, 4), -1)
    boxes_xywh[:, :2] = rng.integers(10, 30, (count, 2, 4))
    made = Scenes(
        images=rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8),
        labels=np.zeros((count, 64, 64), np.uint8),
        instances=np.zeros((count, 64, 64), np.uint8),
        digits=digits,
        sources=digits,
        keypoints_xy=np.zeros((count, 4, 5, 2), np.int64),
        boxes_xywh=boxes_xywh,
    )
    return replace(made, **changes)


def tiny_detector() -> FasterRCNN:
    """Build the smallest detector."""
    torch.manual_seed(0)
    return make_detector(make_network(TINY_PYRAMID), TINY)


def train(out_dir: Path) -> tuple[FasterRCNN, loop.TrainResult[Any]]:
    """Train it for six steps, from a state of the global generator that is never the same."""
    model, task = tiny_detector(), SceneDetection(scenes(), scenes(2))
    torch.seed()
    result = loop.train(
        model, task, RECIPE, seed=0, out_dir=out_dir, device=CPU, show_progress=False
    )
    return model, result


def same_bits(one: nn.Module, two: nn.Module) -> bool:
    """Compare all parameters and buffers."""
    states = one.state_dict(), two.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_two_runs_and_a_resumed_one_end_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    (first, result), (second, again) = train(tmp_path / "one"), train(tmp_path / "two")
    assert same_bits(first, second)
    assert not same_bits(first, tiny_detector())
    assert result.final == again.final
    step: Callable[..., loop.StepResult] = loop.train_step
    left = iter(range(4))

    def interrupted(*arguments: Any) -> loop.StepResult:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "three")
    monkeypatch.setattr(loop, "train_step", step)
    third, resumed = train(tmp_path / "three")
    assert resumed.resumed and resumed.final == result.final
    assert same_bits(first, third)


def test_the_loss_depends_on_draws_which_is_why_they_are_seeded() -> None:
    model, task = tiny_detector(), SceneDetection(scenes(), scenes(2))
    batch = next(task.batches("train", batch_size=2))
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(task.loss(model, batch).value.item())
    assert found[0] == found[1] != found[2]


def test_evaluation_changes_neither_state_nor_modes_nor_the_global_generator() -> None:
    model, task = tiny_detector(), SceneDetection(scenes(), scenes(3))
    modes = [module.training for module in model.modules()]
    before = {name: x.clone() for name, x in model.state_dict().items()}
    torch.manual_seed(5)
    found = [task.evaluate(model, CPU).loss for _ in range(2)]
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert found[0] == found[1] > 0
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_targets_are_corners_and_digits_from_one() -> None:
    digits, boxes_xywh = np.full((1, 4), -1), np.full((1, 4, 4), -1)
    digits[0, 0], boxes_xywh[0, 0] = 0, (3, 5, 10, 20)
    task = SceneDetection(scenes(1, digits=digits, boxes_xywh=boxes_xywh), scenes(1))
    (target,) = next(task.batches("test", batch_size=1)).targets
    (other,) = next(task.batches("train", batch_size=1)).targets
    assert len(target["labels"]) == 2
    assert other["boxes"].tolist() == [[3, 5, 13, 25]]
    assert other["labels"].tolist() == [1]


def test_anchors_are_as_published() -> None:
    with torch.device("meta"):
        pyramid = nn.Identity()
    anchors = make_detector(pyramid, PUBLISHED).rpn.anchor_generator
    assert anchors.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert anchors.num_anchors_per_location() == [3] * 5


@pytest.mark.parametrize("channels", [[8] * 4, [8] * 6, [8, 8, 8, 8, 16], []])
def test_a_pyramid_of_other_maps_gets_a_sentence(channels: list[int]) -> None:
    class Maps(nn.Module):
        """Put out maps of some numbers of channels."""

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(torch.zeros(len(images), count, 4, 4) for count in channels)

    model = make_detector(Maps(), TINY).eval()
    with pytest.raises(UserError, match="the detector expects 5 of 8: give a network for"):
        model([torch.zeros(3, 64, 64)])


def test_images_without_a_pixel_on_the_coarsest_level_get_a_sentence() -> None:
    with torch.device("meta"):
        model = build_network("det_hrnetv2p_w18").eval()
        assert model(torch.zeros(1, 3, 64, 64))[-1].shape[2:] == (1, 1)
        with pytest.raises(UserError, match=r"about 32x64, and a pyramid .* at least 64x64: use"):
            model(torch.zeros(1, 3, 32, 64))


def with_box(*box_xywh: int) -> Scenes:
    """Make two scenes; the second digit of the second one has this box."""
    made = scenes(2)
    made.boxes_xywh[1, 1] = box_xywh
    return made


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (scenes(3, digits=np.full((3, 4), -1)), "the 3 training scenes have no box"),
        (with_box(4, 4, 0, 5), r"box 1 of training scene 1 .*\[4, 4, 0, 5\]\) has no area"),
        (with_box(4, 4, 5, -5), "has no area"),
        (with_box(60, 4, 5, 5), "reaches beyond the image of 64x64 pixels"),
        (with_box(-1, 4, 5, 5), "reaches beyond the image"),
    ],
)
def test_scenes_that_no_detector_can_learn_are_refused(wrong: Scenes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        SceneDetection(wrong, scenes(2))
    with pytest.raises(UserError, match=said.replace("training", "test")):
        SceneDetection(scenes(2), wrong)


def test_a_box_at_the_border_and_a_batch_without_boxes_are_fine() -> None:
    digits = scenes(2).digits
    digits[1] = -1
    task = SceneDetection(replace(with_box(59, 59, 5, 5), digits=digits), scenes(2))
    for batch in task.batches("train", batch_size=1):
        assert torch.isfinite(task.loss(tiny_detector(), batch).value)


def test_a_batch_larger_than_the_set_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="larger than the 6 scenes"):
        next(SceneDetection(scenes(), scenes()).batches("train", batch_size=7))


def as_found(truth: dict[str, Any], score: float = 0.9) -> list[dict[str, Any]]:
    """Return the true boxes as detections."""
    names = ("image_id", "category_id", "bbox")
    return [{**{name: a[name] for name in names}, "score": score} for a in truth["annotations"]]


def test_true_boxes_score_100_and_the_trivial_guess_hardly_anything() -> None:
    task = SceneDetection(scenes(), scenes(4))
    found = as_found(task.test.coco())
    by_scene = [[entry for entry in found if entry["image_id"] == scene] for scene in range(4)]
    assert task.scored(by_scene, 0.0).scores == pytest.approx(
        {"box_ap": 100, "box_ap50": 100, "box_ap75": 100}
    )
    assert task.trivial()["box_ap"] < 10


def square_truth() -> dict[str, Any]:
    """Make the truth of one image: two squares of one class."""
    shared = {"image_id": 0, "category_id": 1, "area": 100, "iscrowd": 0}
    return {
        "images": [{"id": 0, "height": 64, "width": 64}],
        "categories": [{"id": 1, "name": "0"}, {"id": 2, "name": "1"}],
        "annotations": [
            {"id": 1, "bbox": [0, 0, 10, 10], **shared},
            {"id": 2, "bbox": [40, 40, 10, 10], **shared},
        ],
    }


def test_average_precision_by_hand() -> None:
    # Shifted by 2 of 10 pixels: 80 of 120 in common, above thresholds .5 to .65 of ten.
    found = [{"image_id": 0, "category_id": 1, "bbox": [2, 0, 10, 10], "score": 0.9}]
    scores = box_ap(square_truth(), found)
    half = 51 / 101  # precision 1 at the recalls 0, .01, ... .5
    assert scores["AP50"] == pytest.approx(half)
    assert scores["AP"] == pytest.approx(0.4 * half)
    assert (scores["AP75"], scores["AR100"]) == (0, pytest.approx(0.2))
    assert np.isnan(scores["AP_L"])


def test_the_wrong_class_and_no_detection_score_nothing() -> None:
    found = [{**entry, "category_id": 2} for entry in as_found(square_truth())]
    assert box_ap(square_truth(), found)["AP"] == 0
    assert set(box_ap(square_truth(), []).values()) == {0.0}


def test_what_cannot_be_scored_gets_a_sentence() -> None:
    empty = {**square_truth(), "annotations": []}
    with pytest.raises(UserError, match="has 1 images and no box: nothing can be scored"):
        box_ap(empty, [])
    crowds = [{**annotation, "iscrowd": 1} for annotation in square_truth()["annotations"]]
    with pytest.raises(UserError, match=r"has 1 images and no box: .* \(crowds do not count\)"):
        box_ap({**square_truth(), "annotations": crowds}, as_found(square_truth()))
    one_crowd = [crowds[0], square_truth()["annotations"][1]]
    scores = box_ap({**square_truth(), "annotations": one_crowd}, as_found(square_truth()))
    assert scores["AP"] == pytest.approx(1)
    for name, value in (("image_id", 7), ("category_id", 3)):
        found = [{**as_found(square_truth())[0], name: value}]
        with pytest.raises(UserError, match=f"a detection has {name} {value}"):
            box_ap(square_truth(), found)


def test_best_boxes_are_sorted_and_filled_up() -> None:
    found = {
        "boxes": torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        "scores": torch.tensor([0.25, 0.75, 0.5]),
        "labels": torch.tensor([3, 1, 2]),
    }
    boxes, labels = best_boxes([found, {name: x[:1] for name, x in found.items()}], count=2)
    assert labels.tolist() == [[1, 2], [3, -1]]
    assert boxes.tolist() == [
        [[4, 5, 6, 7, 0.75], [8, 9, 10, 11, 0.5]],
        [[0, 1, 2, 3, 0.25], [0, 0, 0, 0, 0]],
    ]
