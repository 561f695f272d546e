"""What holds for every composed scene."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.tasks.scenes import compose
from reproduction.tasks.scenes.compose import (
    DIGITS_PER_SCENE,
    INK_LEVEL,
    LEVEL_ONE,
    MAX_ANGLE_DEG,
    Pose,
    Scene,
    compose_scene,
    digit_axes,
    draw_levels,
)
from reproduction.tasks.scenes.dataset import read_scans, scan_pools

SCANS, DIGITS = read_scans()
POOLS = scan_pools(SCANS, DIGITS)
seeds = st.integers(0, 2**32)
sizes = st.sampled_from([64, 96, 128])
few = settings(max_examples=25, deadline=None)


def compose_one(seed: int, size: int, split: str = "train") -> Scene:
    """Compose a scene from a seed."""
    return compose_scene(SCANS, DIGITS, POOLS[split], size, np.random.default_rng(seed))


@few
@given(seed=seeds, size=sizes)
def test_labels_boxes_and_keypoints_agree_with_the_instances(seed: int, size: int) -> None:
    scene = compose_one(seed, size)

    assert 1 <= len(scene.digits) <= DIGITS_PER_SCENE[1]
    assert (scene.digits == DIGITS[scene.sources]).all()
    expected = np.concatenate([[0], scene.digits + 1])
    assert (scene.labels == expected[scene.instances]).all()
    for place, (left, top, width, height) in enumerate(scene.boxes_xywh):
        ink = scene.instances == place + 1
        inside = ink[top : top + height, left : left + width]
        assert inside.sum() == ink.sum() > 0
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()
        columns, rows = scene.keypoints_xy[place].T
        assert ink[rows, columns].all()


@few
@given(seed=seeds)
def test_the_same_seed_gives_the_same_bytes(seed: int) -> None:
    first, second = compose_one(seed, 96), compose_one(seed, 96)

    for name, array in vars(first).items():
        assert array.tobytes() == getattr(second, name).tobytes()


@few
@given(seed=seeds)
def test_ink_stands_out_from_what_is_around_it(seed: int) -> None:
    """Ink has a tone of its own: half or more of a bright or dark color."""
    scene = compose_one(seed, 96)
    tones = scene.image.astype(int).mean(axis=2)
    for place in range(len(scene.digits)):
        ink = tones[scene.instances == place + 1]
        assert abs(np.median(ink) - np.median(tones[scene.labels == 0])) > 25


@few
@given(
    source=st.integers(0, len(SCANS) - 1),
    cell=st.integers(*compose.CELL_SIZES),
    angle_deg=st.integers(-MAX_ANGLE_DEG, MAX_ANGLE_DEG),
)
def test_levels_are_those_of_the_scan_turned_and_resized(
    source: int, cell: int, angle_deg: int
) -> None:
    """Compare with floating-point interpolation by SciPy."""
    ndimage = pytest.importorskip("scipy.ndimage")
    pose = Pose((40, 45), cell, angle_deg)
    levels = draw_levels(SCANS[source], pose, 96) / LEVEL_ONE
    turn = np.deg2rad(angle_deg)
    rows, columns = np.mgrid[:96, :96]
    dx, dy = (columns - 40) * 16 / cell, (rows - 45) * 16 / cell
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    padded = np.pad(SCANS[source].astype(float), 2)
    exact = ndimage.map_coordinates(padded, [v + 5.5, u + 5.5], order=1, mode="constant")

    # A place is known to 1/256 of a cell and levels change by 16 a cell, on both axes.
    assert np.abs(levels - exact).max() < 2 * 16 * (1 / 256 + 0.01)
    assert levels.max() > INK_LEVEL


@few
@given(seed=seeds)
def test_extreme_keypoints_are_extreme_along_the_axes_of_an_upright_digit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scan = SCANS[rng.integers(len(SCANS))]
    pose = Pose((48, 48), 64, int(rng.integers(-MAX_ANGLE_DEG, MAX_ANGLE_DEG + 1)))
    ink = draw_levels(scan, pose, 96) >= INK_LEVEL * LEVEL_ONE
    (top, bottom, left, right, center) = compose.find_keypoints(ink, pose)
    u, v = digit_axes(pose, 96)

    assert v[ink].min() == v[top[1], top[0]] and v[ink].max() == v[bottom[1], bottom[0]]
    assert u[ink].min() == u[left[1], left[0]] and u[ink].max() == u[right[1], right[0]]
    points = np.argwhere(ink)[:, ::-1]
    distances = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = np.linalg.norm(center - points.mean(axis=0))
    assert chosen == pytest.approx(distances.min())


@few
@given(seed=seeds)
def test_splits_share_no_digit(seed: int) -> None:
    train, test = (compose_one(seed, 96, split).sources for split in ("train", "test"))

    seen = {SCANS[source].tobytes() for source in POOLS["train"]}
    assert set(train) <= set(POOLS["train"]) and set(test) <= set(POOLS["test"])
    assert not any(SCANS[source].tobytes() in seen for source in test)
