"""Every fault is one: a plain training loop, which knows nothing of the engine, sees it.

The oracle here shares no code with the package: it runs eval, train, loss, backward and three
steps, and says which of these is the first to come out otherwise.
"""

import copy
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from comparison.engine.sides import Batch, Side
from comparison.engine.states import random_batch, random_state
from comparison.mutation.fault import FAMILIES, LATER, Fault
from comparison.mutation.operations import operation_sites
from comparison.mutation.operators import all_faults, draw_neutral, sample
from comparison.mutation.reshaped import reshaped
from comparison.mutation.witness import Witness
from reproduction import build_network

OUTSIDE = {"loss", "optimizer", "scheduler", "data"}
DECAYS = (30, 60, 90)


class Unit(nn.Module):
    """A residual unit."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(self.relu(x.clone()))), inplace=True)


class Toy(nn.Module):
    """Two resolutions that are summed: every kind of operation, and a layer of every kind."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True))
        self.units = nn.Sequential(Unit(6), Unit(6))
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=False)
        self.low = Unit(6)
        self.classifier = nn.Linear(6, 5)

    def forward(self, images):
        x = self.units(self.stem(images))
        low = self.low(self.down(x))
        x = x + F.interpolate(low, size=x.shape[-2:], mode="nearest")
        x = F.avg_pool2d(x, x.shape[-2:]) + F.avg_pool2d(low, low.shape[-2:])
        return self.classifier(x.flatten(1))


def toy_side():
    model = Toy().double()
    state = random_state(model, 1)
    # Large activations, so that a cap at 6 is reached.
    state = {k: v * 8 if k.endswith("norm.weight") else v for k, v in state.items()}
    model.load_state_dict(state)
    return _side(model)


def hrnet_side(seed=None):
    model = build_network("cls_hrnet_w18_small_v1", num_classes=10).double()
    model.load_state_dict(random_state(model, 0))
    return _side(model if seed is None else reshaped(model, seed))


def _side(model):
    make = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    return Side(
        model=model,
        loss=F.cross_entropy,
        make_optimizer=lambda model: make(model.parameters()),
        make_scheduler=lambda optimizer: MultiStepLR(optimizer, DECAYS),
    )


def batches_of(size, classes):
    return [Batch(*random_batch((4, 3, size, size), classes, seed)) for seed in range(3)]


BATCHES = batches_of(8, 5)


def observed(side, batches):
    """Run everything once and return what came out, phase by phase, in the order of the modes."""
    model, optimizer = side.model, side.make_optimizer(side.model)
    facts = {"static": _rates(side)}
    with torch.no_grad():
        facts["forward eval"] = [model.eval()(batches[0].inputs)]
    model.train()
    for step, (inputs, targets) in enumerate(batches):
        torch.manual_seed(step)
        optimizer.zero_grad()
        output = model(inputs)
        loss = side.loss(output, targets)
        loss.backward()
        if not step:
            facts["forward train"], facts["loss"] = [output.detach()], [loss.detach()]
            facts["backward"] = [copy.deepcopy(p.grad) for p in model.parameters()]
        optimizer.step()
        facts[f"step {step}"] = [value.clone() for value in model.state_dict().values()]
        facts[f"step {step}"].append(torch.get_rng_state())
    facts["data path"] = [tensor for batch in batches for tensor in batch]
    return facts


def _rates(side):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.05)
    scheduler, rates = side.make_scheduler(optimizer), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [torch.tensor(rates, dtype=torch.float64)]


def _differ(clean, faulty):
    if len(clean) != len(faulty):
        return True
    sizes = sorted(float(t.abs().max()) for t in clean if t is not None)
    return any(_differs(a, b, sizes[len(sizes) // 2]) for a, b in zip(clean, faulty, strict=True))


def _differs(a, b, median):
    if a is None or b is None or a.shape != b.shape:
        return (a is None) != (b is None) or (a is not None and a.shape != b.shape)
    a, b = a.double(), b.double()
    return bool((a - b).abs().max() > 1e-11 * max(float(a.abs().max()), 1e-9 * median))


def first_difference(fault: Fault, side, batches, clean):
    """Return the first phase that a fault changes; empty if there is none."""
    seen = fault.inject_data(batches) if fault.inject_data else batches
    if fault.inject_data:
        faulty = {**clean, "data path": [tensor for batch in seen for tensor in batch]}
    else:
        faulty = observed(fault.applied(side), seen)
    first = next((phase for phase in clean if _differ(clean[phase], faulty[phase])), "")
    return "state after step" if first == "step 0" else first


def assert_all_are_faults(faults, side, batches):
    clean = observed(side.copied(), batches)
    for fault in faults:
        first = first_difference(fault, side, batches, clean)
        later = LATER[1] if first in ("step 1", "step 2") else first
        assert later in fault.modes, (fault.name, first)


@pytest.fixture(scope="module")
def toy():
    return toy_side()


@pytest.fixture(scope="module")
def drawn(toy):
    return sample(toy, BATCHES, 240, seed=4)


def test_plain_loop_sees_every_fault_in_its_mode_first(toy, drawn):
    assert len(drawn.faults) == 240
    assert_all_are_faults(drawn.faults, toy, BATCHES)


@pytest.mark.full
@pytest.mark.parametrize("seed", (None, 1))
def test_plain_loop_sees_every_fault_of_the_network(seed):
    side, batches = hrnet_side(seed), batches_of(64, 10)
    faults = sample(side, batches, 150, seed=6).faults
    assert len({fault.name for fault in faults}) == 150
    assert_all_are_faults(faults, side, batches)


def test_every_operator_is_drawn_or_excluded_with_a_reason(toy, drawn):
    operators = {fault.operator for fault in all_faults(toy, BATCHES)}
    seen = {fault.operator for fault in drawn.faults}
    excluded = {fault.operator for fault, _ in drawn.excluded}
    assert operators - seen <= excluded
    assert {fault.family for fault in drawn.faults} == set(FAMILIES)
    assert all("equivalent" in reason or "cannot run" in reason for _, reason in drawn.excluded)


def test_what_is_excluded_changes_nothing(toy, drawn):
    clean = observed(toy.copied(), BATCHES)
    excluded = [fault for fault, reason in drawn.excluded if "equivalent" in reason]
    assert excluded
    for fault in excluded:
        assert first_difference(fault, toy, BATCHES, clean) not in fault.modes[:1], fault.name


def test_draws_are_repeatable_and_distinct(toy):
    one, again, other = (
        [fault.name for fault in sample(toy, BATCHES, 150, seed).faults] for seed in (1, 1, 2)
    )
    assert one == again != other
    assert len(set(one)) == 150


def test_sites_are_module_paths_of_the_candidate(toy):
    paths = {path for path, _ in toy.model.named_modules()}
    for fault in all_faults(toy, BATCHES):
        assert fault.sites and set(fault.sites) <= paths | OUTSIDE, fault.name


def test_candidate_and_its_batches_stay_as_they_are(toy):
    before = copy.deepcopy(toy.model.state_dict())
    images = BATCHES[0].inputs.clone()
    sample(toy, BATCHES, 60, seed=3)
    assert all(torch.equal(value, before[key]) for key, value in toy.model.state_dict().items())
    assert toy.model.training and type(toy.model) is Toy
    assert torch.equal(BATCHES[0].inputs, images)


def test_faults_keep_state_dict_keys_and_survive_a_copy(toy, drawn):
    keys = list(toy.model.state_dict())
    for fault in (one for one in drawn.faults if one.operation):
        faulty = fault.applied(toy)
        assert list(faulty.model.state_dict()) == keys
        outputs = [side.model.eval()(BATCHES[0].inputs) for side in (faulty, faulty.copied())]
        assert torch.equal(*outputs), fault.name


def test_neutral_changes_change_nothing(toy):
    clean = observed(toy.copied(), BATCHES)
    neutral = draw_neutral(toy, BATCHES, 100, seed=0)
    assert len(neutral) > 20
    for change in neutral:
        assert change.modes == ()
        assert first_difference(change, toy, BATCHES, clean) == "", change.name


def test_operations_are_listed_with_module_and_readers(toy):
    sites = operation_sites(toy.model, BATCHES[0].inputs)
    assert Counter(site.kind for site in sites) == {
        **{"conv": 5, "norm": 4, "relu": 7, "sum": 5, "interpolate": 1},
        **{"pool": 2, "flatten": 1, "linear": 1},
    }
    stem, unit = sites[0], next(site for site in sites if site.kind == "sum")
    assert (stem.kind, stem.call, stem.module) == ("conv", 0, "stem.0")
    assert stem.readers == ("stem.1",) and set(stem.later) == {None}
    assert (unit.module, unit.shape) == ("units.0", (4, 6, 8, 8))
    assert str(next(site for site in sites if site.kind == "interpolate")) == (
        "network (interpolate 1)"
    )
    down = next(site for site in sites if site.module == "down")
    assert down.later[0] == ("",)


def test_a_side_without_loss_or_optimizer_has_faults_of_the_model_only(toy):
    bare = replace(toy, loss=None, make_optimizer=None, make_scheduler=None)
    families = {fault.family for fault in all_faults(bare, BATCHES)}
    assert families.isdisjoint({"loss", "optimizer"})


def test_witness_says_why(toy):
    witness = Witness(toy, BATCHES)
    faults = {fault.name: fault for fault in all_faults(toy, BATCHES)}
    assert witness.objection(faults["BN eps x1.1 in stem.1"]) == ""
    neutral = replace(faults["BN eps x1.1 in stem.1"], inject=lambda side: side)
    assert "equivalent on this input" in witness.objection(neutral)
    broken = replace(neutral, inject=lambda side: replace(side, model=nn.Linear(1, 1)))
    assert witness.objection(broken).startswith("cannot run")
