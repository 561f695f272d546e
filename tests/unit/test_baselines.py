"""Every policy of another tool flags what it should, and nothing else."""

import pytest
import torch

from comparison.mutation.baselines import Policy, either_agrees, policies

POLICIES = {policy.name.partition(",")[0]: policy for policy in policies()}
BASE = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def agrees(policy: Policy, ours: torch.Tensor, theirs: torch.Tensor = BASE) -> bool:
    return policy.agrees(theirs, ours, theirs.double())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("scale", (1.0, 1e-12))
def test_equal_tensors_agree_at_any_scale(name: str, scale: float) -> None:
    assert agrees(POLICIES[name], BASE * scale, BASE * scale)


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_plainly_wrong_is_flagged(name: str) -> None:
    assert not agrees(POLICIES[name], BASE * 1.5 + 0.5)


@pytest.mark.parametrize(
    ("name", "small", "flags"),
    [
        ("PaDiff", 3e-5, False),
        ("PaDiff", 3e-4, True),
        ("reprod_log", 5e-7, False),
        ("reprod_log", 2e-6, True),
        ("Polygraphy", 5e-6, False),
        ("Polygraphy", 5e-4, True),
        ("assert_close", 5e-6, False),
        ("assert_close", 5e-5, True),
        ("msprobe", 5e-4, False),
        ("msprobe", 2e-3, True),
        ("dynamo same", 2e-5, False),
        ("dynamo same", 2e-2, True),
        ("TorchLens", 1e-8, False),
        ("TorchLens", 5e-4, True),
    ],
)
def test_each_policy_has_its_own_tolerance(name: str, small: float, flags: bool) -> None:
    assert agrees(POLICIES[name], BASE + small) is not flags


def test_means_are_blind_to_order_and_cosines_to_scale() -> None:
    assert agrees(POLICIES["PaDiff"], BASE.flip(0))
    tiny = BASE * 1e-5
    assert agrees(POLICIES["msprobe"], tiny * 3, tiny)


def test_polygraphy_is_called_where_it_is_installed() -> None:
    """The rule written here and the package's own agree, on either side of the tolerance."""
    policy = POLICIES["Polygraphy"]
    for small in (0.0, 5e-6, 2e-5, 1e-3):
        expected = either_agrees(BASE, BASE + small, BASE.double())
        assert agrees(policy, BASE + small) is expected
    assert policy.origin.startswith(("polygraphy ", "re-implemented"))
