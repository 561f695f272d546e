"""Both arms of detection start equal, lose equally and find the same boxes."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import reference
from comparison import arms, dense_arms, task_figures, tasks
from comparison.snapshots import snapshots
from comparison.study import ARMS, SMALL
from reference import store
from reference.detection import Shape
from reference.errors import ReferenceAbsent
from reproduction.tasks.detection.config import SCENES, SMALL_PYRAMID
from reproduction.tasks.detection.detector import make_detector
from reproduction.tasks.detection.task import Detected, SceneDetection
from reproduction.tasks.scenes.plans import scene_plan
from tests.unit.test_detection import TINY, TINY_PYRAMID, as_found, scenes

PLAN = replace(
    scene_plan("detection"),
    network=replace(TINY_PYRAMID, width=4, exchange_blocks=(1, 2, 1), stage1_blocks=2),
    complete=lambda pyramid: make_detector(pyramid, TINY),
)


def both() -> list[nn.Module]:
    """Build both arms; skip where the official files are absent."""
    try:
        return [dense_arms.build_from_seed(PLAN, arm, SMALL, 0) for arm in ARMS]
    except ReferenceAbsent as absent:
        pytest.skip(str(absent))


@pytest.mark.reference
def test_both_arms_lose_equally_and_find_the_same_boxes_to_the_bit() -> None:
    models = both()
    assert type(models[0].backbone.pyramid) is not type(models[1].backbone.pyramid)
    images = list(torch.randn(2, 3, 64, 64))
    boxes = torch.tensor([[3.0, 4.0, 30.0, 40.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([label])} for label in (1, 7)]
    losses, gradients, found = [], [], []
    for model in models:
        torch.manual_seed(1)
        lost = model(images, targets)
        sum(lost.values()).backward()
        losses.append({name: value.item() for name, value in lost.items()})
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.roi_heads.score_thresh = 0.0  # or an untrained detector may find nothing
        found.append(model.eval()(images))
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    for one, two in zip(*found, strict=True):
        assert len(one["boxes"]) > 0
        assert all(torch.equal(one[name], two[name]) for name in ("boxes", "labels", "scores"))


@pytest.mark.reference
def test_weights_handed_over_decide_alike_and_a_fault_is_seen() -> None:
    theirs, _ = both()
    theirs.roi_heads.score_thresh = 0.0
    task = SceneDetection(scenes(), scenes(4))
    find_all = replace(PLAN, complete=lambda pyramid: finding_all(PLAN.complete(pyramid)))
    equal = tasks.exchange(theirs, "reference", find_all, SMALL, task)
    assert equal is not None
    assert (equal.images, equal.decisions) == (4, 40)
    assert (equal.max_difference, equal.other_decisions) == (0, 0)
    # A fault that lives in code, not in weights, is what the exchange is there to find.
    theirs.backbone.pyramid.neck.register_forward_hook(
        lambda _, __, levels: tuple(level.flip(1) for level in levels)
    )
    faulty = tasks.exchange(theirs, "reference", find_all, SMALL, task)
    assert faulty is not None and faulty.max_difference > 1e-3
    theirs.roi_heads.score_thresh = 1.0
    blind = replace(PLAN, complete=lambda pyramid: finding_all(PLAN.complete(pyramid), 1.0))
    nothing = tasks.exchange(theirs, "reference", blind, SMALL, task)
    assert nothing is not None and (nothing.decisions, nothing.max_difference) == (0, 0)


def finding_all(model: nn.Module, score: float = 0.0) -> nn.Module:
    """Let a detector that has learned nothing find something, or nothing at all."""
    model.roi_heads.score_thresh = score
    return model


@pytest.mark.reference
def test_the_default_shape_is_the_official_network() -> None:
    both()  # skips
    with torch.device("meta"):
        states = [
            build().state_dict()
            for build in (
                lambda: reference.build("det_hrnetv2p_w18"),
                lambda: reference.build_pyramid(Shape(width=18)),
            )
        ]
    assert [(name, x.shape) for name, x in states[0].items()] == [
        (name, x.shape) for name, x in states[1].items()
    ]


def test_without_the_official_files_only_ours_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "OFFICIAL", tmp_path)
    with pytest.raises(ReferenceAbsent, match="python -m reference fetch"):
        dense_arms.build_from_seed(PLAN, "reference", SMALL, 0)
    one, two = (dense_arms.build_from_seed(PLAN, "reproduction", SMALL, seed) for seed in (0, 1))
    for name in ("backbone.pyramid.neck.reduce.weight", "roi_heads.box_head.fc6.weight"):
        assert not torch.equal(one.state_dict()[name], two.state_dict()[name])


def test_official_names_stand_behind_the_place_in_the_detector() -> None:
    model = dense_arms.build_from_seed(PLAN, "reproduction", SMALL, 0)
    names = list(arms.official_state(model))
    assert names[0] == "backbone.pyramid.backbone.conv1.weight"
    assert "backbone.pyramid.neck.reduction_conv.0.bias" in names
    assert names[-1] == "roi_heads.box_predictor.bbox_pred.bias"
    other = copy.deepcopy(model)
    nn.init.zeros_(other.backbone.pyramid.neck.reduce.weight)
    arms.transfer(model, other)
    states = model.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_shims_name_what_makes_the_network_small() -> None:
    shims = dense_arms.shims(scene_plan("detection"))
    assert "constructor's width 18 replaced by 16" in shims
    assert "constructor's channels 256 replaced by 64" in shims
    assert SMALL_PYRAMID.outputs == SCENES.channels


def test_the_picture_shows_the_surest_boxes_of_both_arms_beside_the_truth() -> None:
    task = SceneDetection(scenes(), scenes(3))
    found = as_found(task.test.coco())
    found.insert(0, {**found[0], "bbox": [1, 1, 9, 9], "score": 0.25})  # one more than is true
    by_scene = [[entry for entry in found if entry["image_id"] == scene] for scene in range(3)]
    rows = snapshots(task, nn.Identity(), Detected(0.0, {}, by_scene), torch.device("cpu"))
    assert [len(row["boxes"]) for row in rows] == [2, 2, 2]
    for row in rows:
        assert np.allclose(row["predicted_boxes"], row["boxes"])
    figure = task_figures.predictions(
        [
            {"subject": {"task": "detection", "arm": arm}, "tables": {"snapshots": rows}}
            for arm in ARMS
        ]
    )
    drawn = [len(axes.patches) for axes in figure.axes]
    assert drawn == [0, 2, 2, 2, 0, 2, 2, 2]  # image, truth and both arms of two scenes
