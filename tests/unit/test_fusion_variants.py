"""The paper's variants of fusion and of downsampling (TPAMI'20 table XII)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reproduction import HRNet, NetworkConfig, UserError, build_network, network_config
from reproduction.checkpoints import from_official, to_official
from reproduction.config import DOWNSAMPLINGS, FUSIONS, ablation_config
from reproduction.hrnet import BilinearDownsampling, Downsampling, ExchangeBlock, Fusion
from reproduction.networks import make_network


def shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the state dict's names and shapes, without memory for the weights."""
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in make_network(config).state_dict().items()}


def small(task: str = "segmentation", **options: str) -> NetworkConfig:
    """Describe the network of the ablations."""
    return ablation_config(task, 5, **options)


@pytest.mark.parametrize(("fusion", "count"), [("full", 8), ("across stages", 3), ("final", 1)])
def test_the_standard_network_fuses_as_often_as_in_the_paper(fusion: str, count: int) -> None:
    with torch.device("meta"):
        body = HRNet(replace(network_config("pose_hrnet_w32"), fusion=fusion))
    assert sum(isinstance(module, ExchangeBlock) for module in body.modules()) == count


def test_less_fusion_only_leaves_exchange_units_out() -> None:
    full, across, final = (shapes(small(fusion=fusion)) for fusion in FUSIONS)
    assert final.items() < across.items() < full.items()
    assert {name.split(".exchange")[0] for name in full.keys() - across.keys()} == {
        "backbone.stage3.0",
        "backbone.stage4.0",
    }
    assert {name.split(".exchange")[0] for name in across.keys() - final.keys()} == {
        "backbone.stage2.0",
        "backbone.stage3.1",
    }


def test_small_v1_has_no_fusion_within_a_stage() -> None:
    config = network_config("cls_hrnet_w18_small_v1")
    full, across, final = (shapes(replace(config, fusion=fusion)) for fusion in FUSIONS)
    assert full == across != final


def test_bilinear_downsampling_only_changes_downward_paths() -> None:
    strided, bilinear = (shapes(small(downsampling=kind)) for kind in DOWNSAMPLINGS)
    changed = {name for name, _ in strided.items() ^ bilinear.items()}
    targets_and_sources = {
        tuple(name.split(".exchange.paths.")[1].split(".")[:2]) for name in changed
    }
    assert all(int(source) < int(target) for target, source in targets_and_sources)
    assert bilinear["backbone.stage4.1.exchange.paths.3.0.conv.weight"] == (128, 16, 1, 1)
    # Of streams of 4 and 16 channels, two halvings apart, with scale and shift of the norms.
    counts = [
        sum(p.numel() for p in Fusion((4, 8, 16), 2, downsampling=kind)[0].parameters())
        for kind in DOWNSAMPLINGS
    ]
    assert counts == [4 * 4 * 9 + 2 * 4 + 4 * 16 * 9 + 2 * 16, 4 * 16 + 2 * 16]


def test_transitions_stay_strided() -> None:
    body = HRNet(small(downsampling="bilinear"))
    for transition in (body.transition1, body.transition2, body.transition3):
        assert isinstance(transition.paths[-1], Downsampling)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("downsampling", DOWNSAMPLINGS)
def test_names_translate_both_ways(fusion: str, downsampling: str) -> None:
    with torch.device("meta"):
        state = make_network(small(fusion=fusion, downsampling=downsampling)).state_dict()
    assert list(from_official(to_official(state))) == list(state)


def dependence(stage: nn.Module) -> list[list[bool]]:
    """Tell for each output stream on which input streams it depends."""
    inputs = [torch.rand(1, 16 * 2**r, 8 // 2**r, 8 // 2**r, requires_grad=True) for r in range(3)]
    outputs = stage.eval()(inputs)
    gradients = [
        torch.autograd.grad(x.sum(), inputs, retain_graph=True, allow_unused=True) for x in outputs
    ]
    return [[g is not None and bool(g.any()) for g in row] for row in gradients]


@pytest.mark.parametrize("downsampling", DOWNSAMPLINGS)
def test_streams_depend_on_one_another_only_where_they_are_fused(downsampling: str) -> None:
    torch.manual_seed(0)
    own = [[row == column for column in range(3)] for row in range(3)]
    everything = [[True] * 3] * 3
    for fusion, first, whole in (
        ("full", everything, everything),
        ("across stages", own, everything),
        ("final", own, own),
    ):
        stage = HRNet(small(fusion=fusion, downsampling=downsampling)).stage3
        assert dependence(stage[0]) == first
        assert dependence(stage) == whole


def test_the_last_exchange_unit_fuses_in_every_variant() -> None:
    for fusion in FUSIONS:
        last = HRNet(small("pose", fusion=fusion)).stage4[-1]
        assert isinstance(last, ExchangeBlock)
        assert len(last.exchange.paths) == 1


def test_bilinear_halvings_are_means_of_four_then_a_convolution() -> None:
    torch.manual_seed(0)
    path = BilinearDownsampling(2, 6, steps=2).eval()
    x = torch.randn(1, 2, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(path(x), path.norm(path.conv(F.avg_pool2d(x, 4))))
        assert path(torch.randn(1, 2, 17, 25)).shape == (1, 6, 5, 7)


@pytest.mark.parametrize("downsampling", DOWNSAMPLINGS)
def test_every_variant_takes_any_size(downsampling: str) -> None:
    for fusion in FUSIONS:
        network = make_network(small(fusion=fusion, downsampling=downsampling)).eval()
        with torch.no_grad():
            assert network(torch.randn(1, 3, 65, 97)).shape == (1, 5, 17, 25)


def test_make_network_builds_what_the_name_stands_for() -> None:
    networks = []
    for build in (
        lambda: build_network("cls_hrnet_w18_small_v1"),
        lambda: make_network(network_config("cls_hrnet_w18_small_v1")),
    ):
        torch.manual_seed(0)
        networks.append(build().state_dict())
    assert list(networks[0]) == list(networks[1])
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fusion": "none"}, "fusion is 'none'; use 'full' or 'across stages' or 'final'"),
        ({"downsampling": "pool"}, "downsampling is 'pool'; use 'strided' or 'bilinear'"),
        ({"task": "depth"}, "task 'depth' is unknown; use one of"),
    ],
)
def test_a_wrong_variant_gets_a_sentence(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        small(**options)
