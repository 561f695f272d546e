from collections.abc import Callable

import pytest
import torch

from comparison.engine.lockstep import run_lockstep
from comparison.engine.recordings import Sink
from comparison.engine.rows import Key
from comparison.engine.storage import Store

KEYS = [Key("forward eval", name, "output") for name in "abcd"]


def shows(order: str, factor: float = 1.0) -> Callable[[Sink], None]:
    """Show one tensor a key, then overwrite it, as in-place operations do."""

    def run(sink: Sink) -> None:
        for name in order:
            tensor = torch.full((3,), factor * (1 + "abcdx".index(name)))
            sink(Key("forward eval", name, "output"), tensor)
            tensor.zero_()

    return run


def compared(theirs: str, ours: str, memory: int = 0) -> dict[str, tuple[float, float]]:
    """Run two orders in lock-step and return what was compared."""
    seen = {}

    def compare(key: Key, a: torch.Tensor, b: torch.Tensor) -> None:
        seen[key.name] = a[0].item(), b[0].item()

    run_lockstep(shows(theirs), shows(ours, 10.0), KEYS, compare, Store(memory))
    return seen


@pytest.mark.parametrize("memory", [0, 2**20])
@pytest.mark.parametrize("ours", ["abcd", "dcba", "badc"])
def test_every_pair_is_compared_intact_in_any_order(ours: str, memory: int) -> None:
    assert compared("abcd", ours, memory) == {
        "a": (1, 10),
        "b": (2, 20),
        "c": (3, 30),
        "d": (4, 40),
    }


def test_what_one_side_lacks_is_not_compared_and_does_not_block() -> None:
    assert compared("abd", "acbd").keys() == {"a", "b", "d"}
    assert compared("abcd", "xab").keys() == {"a", "b"}
    assert compared("abcd", "").keys() == set()


def test_nothing_is_kept_where_the_order_is_the_same() -> None:
    store = Store(0)
    run_lockstep(shows("abcd"), shows("abcd"), KEYS, lambda *_: None, store)
    assert not store.spilled_bytes


@pytest.mark.parametrize("at", [0, 2])
def test_a_side_that_fails_ends_the_other_and_says_why(at: int) -> None:
    def failing(sink: Sink) -> None:
        shows("abcd"[:at])(sink)
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        run_lockstep(failing, shows("abcd"), KEYS, lambda *_: None, Store(0))
    with pytest.raises(RuntimeError, match="out of order"):
        run_lockstep(shows("abcd"), failing, KEYS, lambda *_: None, Store(0))


def test_the_random_state_stays_as_it_was() -> None:
    def draws(sink: Sink) -> None:
        torch.manual_seed(5)
        sink(KEYS[0], torch.rand(3))

    before = torch.get_rng_state()
    run_lockstep(draws, draws, KEYS, lambda *_: None, Store(0))
    assert torch.equal(before, torch.get_rng_state())
