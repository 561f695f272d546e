"""Layers are matched by the map of names alone; what finds no counterpart is named."""

import pytest
import torch
from torch import nn

from comparison import arms
from comparison.sites import call_order, match
from reference import build
from reproduction import build_network
from reproduction.checkpoints import official_name
from tests.unit.toys import Ours, Theirs, name_of, toy_batches

IMAGES = toy_batches()[0].images.float()


def findings(theirs: nn.Module, ours: nn.Module, names=name_of) -> dict[str, str]:
    return {f.name: f.text for f in match(theirs, ours, names, IMAGES).findings}


def test_sites_come_in_the_order_of_the_references_calls() -> None:
    found = match(Theirs(), Ours(), name_of, IMAGES)

    assert [site.name for site in found.layers()] == [
        *("conv1", "bn1", "conv2", "bn2", "fuse.0", "fuse.1", "classifier")
    ]
    assert found.sites[0].candidate == "first.conv" and found.sites[0].op == "Conv2d"
    assert found.sites[0].shapes == ((4, 6, 6),)
    assert found.findings == ()


def test_modules_that_hold_the_same_layers_and_shapes_match_and_others_are_listed() -> None:
    theirs = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Linear(6, 2))
    ours = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Linear(6, 2))
    wider = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ZeroPad2d(1), nn.AvgPool2d(3, 1)),
        nn.Linear(6, 2),
    )
    flat = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(6, 2))
    to_theirs = {"0": "0.0", "1": "0.1", "2": "1"}.__getitem__

    assert "0" in {site.name for site in match(theirs, ours, str, IMAGES).sites}
    assert "0" in {site.name for site in match(theirs, wider, str, IMAGES).sites}
    unmatched = match(theirs, flat, to_theirs, IMAGES)
    assert [site.name for site in unmatched.sites] == ["0.0", "0.1", "1"]
    assert unmatched.findings == ()
    assert unmatched.undivided == {"reference": ("0",), "reproduction": ()}


def test_a_module_with_other_shapes_is_listed_and_its_layers_still_match() -> None:
    theirs = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)))
    ours = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Upsample(scale_factor=2))

    found = match(theirs, ours, str, IMAGES)

    assert [site.name for site in found.sites] == ["0.0"]
    assert found.undivided == {"reference": ("0",), "reproduction": ("0",)}


def test_a_layer_that_is_missing_or_extra_is_a_finding() -> None:
    ours = Ours()
    ours.second.norm = nn.Identity()
    ours.extra = nn.Linear(1, 1)

    found = findings(Theirs(), ours)

    assert found["bn2"] == "has no counterpart in the reproduction"
    assert found["extra"] == "the map of names does not know this layer"


def test_a_name_the_reference_lacks_and_a_name_claimed_twice_are_findings() -> None:
    def wrong(path: str) -> str:
        return {"paths.0": "fuse.7", "paths.1": "conv2"}.get(path) or name_of(path)

    found = findings(Theirs(), Ours(), wrong)

    assert found["fuse.7"] == "paths.0 has no counterpart in the reference"
    assert found["conv2"] == "claimed by both second.conv and paths.1"
    assert found["fuse.0"] == "has no counterpart in the reproduction"


def test_another_kind_of_layer_is_a_finding_but_a_subclass_is_not() -> None:
    class OwnNorm(nn.BatchNorm2d):
        pass

    ours, subclassed = Ours(), Ours()
    ours.first.norm = nn.InstanceNorm2d(4, affine=True)
    subclassed.first.norm = OwnNorm(4)

    assert findings(Theirs(), ours)["bn1"] == "is a InstanceNorm2d, in the reference BatchNorm2d"
    assert findings(Theirs(), subclassed) == {}


def test_a_layer_that_only_one_side_calls_is_a_finding() -> None:
    ours = Ours()
    ours.forward = lambda x: ours.head(ours.second(ours.first(x)).mean((2, 3)))  # type: ignore[method-assign]

    assert findings(Theirs(), ours)["fuse.0"] == "is called by one side only"


def test_looking_at_the_call_order_leaves_the_model_as_it_was() -> None:
    model = Theirs()
    model.bn2.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    call_order(model, IMAGES)

    assert model.training and not model.bn2.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.reference
def test_every_layer_of_the_reference_has_its_counterpart_and_the_larger_modules_too() -> None:
    network = "cls_hrnet_w18_small_v1"
    found = match(build(network), build_network(network), official_name, torch.zeros(1, 3, 64, 64))

    assert found.findings == ()
    assert len(found.layers()) == 91 + 91 + 1  # SPEC 4.4: convolutions, BN, the classifier
    composites = {site.name: len(site.shapes) for site in found.sites if not site.layer}
    assert {"layer1.0", "stage3.0.branches.2.1", "incre_modules.3.0"} <= composites.keys()
    assert [composites[f"stage{stage}.0"] for stage in (2, 3, 4)] == [2, 3, 4]


def test_networks_of_another_size_do_not_match_in_silence() -> None:
    small, large = (build_network(f"cls_hrnet_w18_small_{v}") for v in ("v1", "v2"))
    found = match(small, large, str, torch.zeros(1, 3, 64, 64))

    assert len(found.findings) == 164 + 164 - 91 - 91
    assert arms.name_of(small) is official_name
