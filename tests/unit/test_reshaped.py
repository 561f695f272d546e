"""The reshaped network computes the same, in a tree that shares nothing with the original."""

import pytest
import torch

from comparison.engine.sides import Side
from comparison.engine.states import random_state
from comparison.mutation.operations import operation_sites
from comparison.mutation.operators_modules import module_faults
from comparison.mutation.operators_operations import operation_faults
from comparison.mutation.reshaped import reshaped, true_sites
from reproduction import build_network

NAME = "cls_hrnet_w18_small_v1"
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()


@pytest.fixture(scope="module")
def network():
    network = build_network(NAME, num_classes=10).double()
    network.load_state_dict(random_state(network, 0))
    return network


@pytest.fixture(scope="module", params=(0, 1), ids=("plain sums", "sums from zero"))
def other(request, network):
    return reshaped(network, request.param)


@pytest.mark.parametrize("train", (False, True))
def test_outputs_gradients_and_buffers_are_the_same(network, other, train):
    def run(model):
        output = Side(model=model).copied().model.train(train)
        logits = output(IMAGES)
        logits.square().sum().backward()
        facts = {name: p.grad for name, p in output.named_parameters()}
        return {"logits": logits.detach(), **facts, **dict(output.named_buffers())}

    theirs, ours = run(network), run(other)
    named = {key if key == "logits" else other.true_name(key): ours[key] for key in ours}
    assert named.keys() == theirs.keys()
    assert torch.equal(named["logits"], theirs["logits"])
    median = torch.stack([value.abs().max().double() for value in theirs.values()]).median()
    for key, value in theirs.items():
        assert (named[key] - value).abs().max() <= 1e-12 * max(value.abs().max(), median), key


def test_the_tree_says_nothing(network, other):
    paths = [path for path, _ in other.named_modules() if path]
    assert all(path == "layers" or path.startswith("layers.") for path in paths)
    kinds = {type(module).__name__ for module in other.layers}
    assert kinds == {"Conv2d", "BatchNorm2d", "Linear"}
    in_order = [other.true_name(path) for path in paths if path != "layers"]
    original = [path for path, module in network.named_modules() if path in set(in_order)]
    assert sorted(in_order) == sorted(original)
    assert in_order != original


def test_values_are_copies(network, other):
    theirs = {p.data_ptr() for p in network.parameters()}
    assert theirs.isdisjoint(p.data_ptr() for p in other.parameters())


def test_seeds_decide_the_order(network):
    orders = [
        [type(module).__name__ for module in reshaped(network, seed).layers] for seed in (2, 2, 4)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_operations_are_called_in_the_same_order(network, other):
    theirs, ours = (operation_sites(model, IMAGES) for model in (network, other))
    for kind in ("conv", "norm", "relu", "sum", "interpolate", "pool", "linear"):
        shapes = [[site.shape for site in sites if site.kind == kind] for sites in (theirs, ours)]
        assert shapes[0] == shapes[1]
    conv = next(site for site in ours if site.kind == "conv" and site.call == 40)
    twin = next(site for site in theirs if site.kind == "conv" and site.call == 40)
    assert other.true_name(conv.module) == twin.module


def test_true_sites_of_layers_and_of_functions(network, other):
    layer = next(fault for fault in module_faults(other) if fault.operator == "BN eps x3")
    assert true_sites(layer, other, []) == (other.true_name(layer.sites[0]),)
    originals = [f for f in operation_faults(network, IMAGES) if f.operator == "added term x0.9"]
    faults = [f for f in operation_faults(other, IMAGES) if f.operator == "added term x0.9"]
    assert {fault.sites for fault in faults} == {("",)}
    places = [true_sites(fault, other, originals) for fault in faults]
    assert places[0] == ("backbone.stage1.0",)
    assert ("backbone.stage4.0.exchange.paths.3",) in places
    assert places[-1] == ("head",)
