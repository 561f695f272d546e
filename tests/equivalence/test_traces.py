"""The reproduction meets what the official code once computed; a network with a fault does not."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from comparison import traces
from reference import load_trace
from reference.anchors import fill as fill_anchor
from reference.anchors import image, load_anchors
from reference.record import trace
from reference.recorded import BOUNDS, compare, recorded_networks
from reproduction import NETWORKS, Network, build_network
from reproduction.checkpoints import official_name, to_official
from reproduction.config import ALIGNED, BILINEAR, Upsampling
from reproduction.heads import ocr

FAST = (
    *("cls_hrnet_w18_small_v1", "cls_hrnet_w18_small_v2", "cls_hrnet_w18"),
    *("seg_hrnet_w18_small_v1_cityscapes", "seg_hrnet_w18_small_v2_cityscapes"),
    *("face_hrnet_w18_wflw", "det_hrnetv2p_w18"),
)
SMALLEST = FAST[0]


def tiered(networks: Iterable[str]) -> list[Any]:
    """Leave what takes long to fill to the full tier."""
    slow = pytest.mark.full
    return [pytest.param(name, marks=() if name in FAST else slow) for name in networks]


# What the specification lists: convolution biases that feed a train-mode normalization.
ZEROS = {"classification": 4, "pose": 0, "segmentation": 1, "ocr": 2, "landmarks": 1}
ANCHORED = [name for name in NETWORKS if traces.anchors_of(name)]
# Networks that no official configuration describes, but that anchors do.
OTHER_CORNERS = (
    ("seg_hrnet_w48_cityscapes", ALIGNED, "seg_w48_alignTrue_64x96"),
    ("seg_hrnet_w48_cityscapes", ALIGNED, "seg_w48_alignTrue_65x97"),
    ("seg_hrnet_ocr_w48_cityscapes", BILINEAR, "ocr_w48_alignFalse_64x96"),
)


@pytest.mark.parametrize("network", tiered(recorded_networks()))
def test_every_row_of_the_official_trace_is_met(network: str) -> None:
    recorded = load_trace(network)

    measured = trace(build_network(network), recorded.input_shape, name_of=official_name)
    rows = compare(measured, recorded)

    assert len(rows) == len(recorded.rows)
    assert [row["key"] for row in rows if not row["passes"]] == []
    assert {row["phase"] for row in rows} == set(BOUNDS)
    assert sum(row["analytic_zero"] for row in rows) == ZEROS[NETWORKS[network].task]


def test_every_trace_and_every_anchor_of_a_network_is_used() -> None:
    used = {anchor for name in NETWORKS for anchor in traces.anchors_of(name)}
    used |= {anchor for _, _, anchor in OTHER_CORNERS}
    assert set(recorded_networks()) <= set(NETWORKS)
    assert used | set(TRAINED) == set(load_anchors())


@pytest.mark.parametrize("network", tiered(ANCHORED))
def test_every_network_meets_its_anchors(network: str) -> None:
    rows = traces.replay_anchors(network, build_network(network))

    assert traces.passes(rows)
    assert len(rows) == (2 if network in ("cls_hrnet_w18", "seg_hrnet_w48_cityscapes") else 1)


@pytest.mark.full
@pytest.mark.parametrize(("network", "upsampling", "anchor"), OTHER_CORNERS)
def test_other_corners_meet_their_anchors(
    network: str, upsampling: Upsampling, anchor: str
) -> None:
    config = replace(NETWORKS[network], upsampling=upsampling)

    assert traces.passes(traces.replay_named([anchor], Network(config, config.outputs)))
    (row,) = traces.replay_named([anchor], build_network(network))
    assert row["worst_relative_error"] > 1e-3


TRAINED = {
    "cls_w18_small_v1_train": "cls_hrnet_w18_small_v1",
    "pose_coco_w32_256x192_train": "pose_hrnet_w32",
    "seg_w48_alignFalse_train": "seg_hrnet_w48_cityscapes",
    "seg_v11_w18_small_v1_train": "seg_hrnet_w18_small_v1_cityscapes",
    "face_w18_wflw_train": "face_hrnet_w18_wflw",
}


@pytest.mark.parametrize(
    "anchor",
    [pytest.param(a, marks=() if n in FAST else pytest.mark.full) for a, n in TRAINED.items()],
)
def test_one_pass_in_train_mode_meets_its_anchor(anchor: str) -> None:
    expected, model = load_anchors()[anchor], build_network(TRAINED[anchor])
    fill_anchor(model, name_of=official_name)
    output = model.train()(image(expected["input"])).detach()
    state = to_official(model.state_dict())

    # Both sides computed in float32: 24 bits, over a chain of some hundred layers.
    assert output.std(correction=0).item() == pytest.approx(expected["output"]["std"], rel=1e-4)
    torch.testing.assert_close(
        output.flatten()[:6], torch.tensor(expected["output"]["first6"]), rtol=0, atol=2e-3
    )
    for name, value in expected["buffers"].items():
        assert state[name].flatten()[0].item() == pytest.approx(value, rel=1e-4), name


def change_eps(model: nn.Module) -> None:
    model.get_submodule("backbone.stage3.0.streams.1.0.unit1.norm").eps = 1.1e-5


def change_momentum(model: nn.Module) -> None:
    model.get_submodule("backbone.stage4.0.streams.2.0.unit1.norm").momentum = 0.11


def cut_gradient(model: nn.Module) -> None:
    path = model.get_submodule("backbone.stage3.0.exchange.paths.1.0")
    path.register_forward_hook(lambda _m, _i, output: output.detach())


def drop_relu(model: nn.Module) -> None:
    model.get_submodule("backbone.stage2.0.streams.0.0.unit1").relu = nn.Identity()


@pytest.mark.parametrize(
    ("change", "phase", "key"),
    [
        (change_eps, "forward", "forward/stage3.0.branches.1.0.bn1"),
        (drop_relu, "forward", "forward/stage2.0.branches.0.0.conv2"),
        (change_momentum, "buffer", "buffer/stage4.0.branches.2.0.bn1.running_mean"),
        (cut_gradient, "grad", None),
    ],
)
def test_a_fault_fails_the_trace_in_its_phase(
    change: Callable[[nn.Module], None], phase: str, key: str | None
) -> None:
    model = build_network(SMALLEST)
    change(model)
    recorded = load_trace(SMALLEST)

    failed = [
        row
        for row in compare(trace(model, recorded.input_shape, name_of=official_name), recorded)
        if not row["passes"]
    ]

    assert failed[0]["phase"] == phase
    assert key is None or failed[0]["key"] == key


def align_corners(model: nn.Module) -> None:
    model.get_submodule("backbone.stage4.0.exchange.paths.1").upsampling = ALIGNED


def change_head_momentum(model: nn.Module) -> None:
    model.get_submodule("head.classify.mix.norm").momentum = 0.1


def cut_head_gradient(model: nn.Module) -> None:
    model.get_submodule("head.classify.mix").register_forward_hook(lambda _m, _i, y: y.detach())


@pytest.mark.parametrize(
    ("change", "phase"),
    [
        (align_corners, "forward"),
        (change_head_momentum, "buffer"),
        (cut_head_gradient, "grad"),
    ],
)
def test_a_fault_of_a_dense_network_fails_its_trace_in_its_phase(
    change: Callable[[nn.Module], None], phase: str
) -> None:
    network = "seg_hrnet_w18_small_v1_cityscapes"
    model = build_network(network)
    change(model)
    recorded = load_trace(network)

    measured = trace(model, recorded.input_shape, name_of=official_name)
    failed = [row["phase"] for row in compare(measured, recorded) if not row["passes"]]

    assert failed[0] == phase


@pytest.mark.full
def test_scores_that_teach_nothing_fail_the_trace_of_ocr() -> None:
    network = "seg_hrnet_ocr_w48_cityscapes"
    model = build_network(network)
    describe = ocr.describe_classes

    def detached(scores: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return describe(scores.detach(), pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ocr, "describe_classes", detached)
        recorded = load_trace(network)
        measured = trace(model, recorded.input_shape, name_of=official_name)
    failed = {row["phase"] for row in compare(measured, recorded) if not row["passes"]}
    assert failed == {"grad", "step"}


@pytest.mark.parametrize("change", [change_eps, drop_relu])
def test_a_fault_fails_the_anchor(change: Callable[[nn.Module], None]) -> None:
    model = build_network(SMALLEST)
    change(model)

    (row,) = traces.replay_anchors(SMALLEST, model)

    assert row["failures"] > 0 and row["worst_relative_error"] > 1000 * row["bound"]
    assert not traces.passes([row])


def test_an_output_of_another_shape_fails_the_anchor() -> None:
    (row,) = traces.replay_anchors(SMALLEST, _Doubled(build_network(SMALLEST)), _inside)

    assert row["worst_key"] == "shape" and row["failures"] > 0


class _Doubled(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images)
        return torch.cat([logits, logits])


def _inside(name: str) -> str:
    return official_name(name.removeprefix("network."))


def test_nothing_on_record_is_no_pass() -> None:
    assert not traces.passes([])
    assert traces.replay_anchors("cls_hrnet_unheard_of", nn.Linear(1, 1)) == []


def test_a_replay_sums_up_trace_and_anchor() -> None:
    rows = traces.replay(SMALLEST, build_network(SMALLEST))

    assert {row["phase"] for row in rows} == {*BOUNDS, "anchor cls_w18_small_v1"}
    assert all(row["network"] == SMALLEST and not row["failures"] for row in rows)
    assert sum(row["rows"] for row in rows) == len(load_trace(SMALLEST).rows) + 7
