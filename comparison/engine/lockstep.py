"""Two forward passes side by side: every tensor is compared while both sides hold it.

The candidate runs in a thread of its own and only one of the two runs at a time. The reference
offers each tensor the moment it exists; the candidate takes the baton and runs until it needs a
tensor that the reference does not have yet. So nothing is kept but what the two compute in another
order, and that is copied before anything can overwrite it.
"""

import threading
from collections.abc import Callable, Collection

import torch

from comparison.engine.recordings import Sink
from comparison.engine.rows import Key
from comparison.engine.storage import Spilled, Store

Run = Callable[[Sink], None]
Compare = Callable[[Key, torch.Tensor, torch.Tensor], None]


class _Stopped(Exception):
    """The other side has failed: leave without a word."""


class _Exchange:
    """Hands the baton to and fro, and tensors from the reference to the candidate."""

    def __init__(self, expected: Collection[Key], compare: Compare, store: Store) -> None:
        self._coming = set(expected)
        self._compare = compare
        self._store = store
        self._live: tuple[Key, torch.Tensor] | None = None
        self._kept: dict[Key, torch.Tensor | Spilled] = {}
        self._theirs, self._ours = threading.Semaphore(0), threading.Semaphore(0)
        self._wanted: Key | None = None
        self.ended = False  # the candidate has nothing more to do
        self.failed = False  # the reference has failed
        self._over = False  # the reference has offered everything

    def offer(self, key: Key, tensor: torch.Tensor) -> None:
        """Take a tensor of the reference; hand over if the candidate waits for it."""
        if key not in self._coming:
            return
        self._coming.discard(key)
        if self.ended:
            return
        self._live = key, tensor
        if self._wanted in (None, key):
            self.hand_over()
        if self._live is not None and not self.ended:
            self._kept[key] = self._store.keep(tensor)
        self._live = None

    def finish(self) -> None:
        """Let the candidate run to its end: nothing more will be offered."""
        self._over = True
        if not self.ended:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the candidate run until it needs more."""
        self._ours.release()
        self._theirs.acquire()

    def take(self, key: Key, tensor: torch.Tensor) -> None:
        """Compare a tensor of the candidate with the reference's, once that exists."""
        while key in self._coming and not self._over:
            self._wanted = key
            self._theirs.release()
            self._ours.acquire()
            if self.failed:
                raise _Stopped
        self._wanted = None
        if self._live is not None and self._live[0] == key:
            theirs, self._live = self._live[1], None
            self._compare(key, theirs, tensor)
        elif key in self._kept:
            self._compare(key, self._store.read(self._kept.pop(key)), tensor)

    def begin(self) -> None:
        """Wait, in the candidate's thread, for the first turn."""
        self._ours.acquire()
        if self.failed:
            raise _Stopped

    def end(self) -> None:
        """Say, in the candidate's thread, that it is done."""
        self.ended = True
        self._theirs.release()


def run_lockstep(
    reference: Run, candidate: Run, expected: Collection[Key], compare: Compare, store: Store
) -> None:
    """Run two sides side by side.

    Args:
        reference: Runs the reference with the sink that it is given.
        candidate: Runs the candidate, in a thread; keys are the reference's.
        expected: What the reference will report.
        compare: Receives key, the reference's tensor and the candidate's, while both are intact.
        store: Keeps what the two sides compute in another order.

    Raises:
        Exception: What either side raised; the other one is ended.
    """
    exchange = _Exchange(expected, compare, store)
    raised: list[BaseException] = []

    def follow() -> None:
        try:
            exchange.begin()
            candidate(exchange.take)
        except _Stopped:
            pass
        except BaseException as error:  # handed on to the caller's thread
            raised.append(error)
        finally:
            exchange.end()

    state = torch.get_rng_state()
    thread = threading.Thread(target=follow, name="candidate", daemon=True)
    thread.start()
    try:
        reference(exchange.offer)
        exchange.finish()
    except BaseException:
        exchange.failed = True
        if not exchange.ended:
            exchange.hand_over()
        raise
    finally:
        thread.join()
        torch.set_rng_state(state)
    if raised:
        raise raised[0]
