"""Shares of batches: together they are the batches of one process, whatever their number."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reproduction.distributed import Group
from reproduction.evaluate import Evaluation
from reproduction.tasks.order import read_batches, steps_of
from reproduction.tasks.task import Batch, Loss


@dataclass(frozen=True)
class Numbers:
    """A task whose images are the numbers of its samples."""

    count: int

    @property
    def identity(self) -> list[Any]:
        return [self.count]

    def steps(self, batch_size: int) -> int:
        return steps_of(self.count, "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 1, start: int = 0
    ) -> Iterator[Batch]:
        for numbers in read_batches(
            lambda index, rng: index,
            self.count,
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
        ):
            yield Batch(torch.tensor(numbers), torch.tensor(numbers), str(numbers))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return Loss(batch.images.sum())

    def evaluate(self, model: nn.Module, device: torch.device) -> Evaluation:
        raise AssertionError("is not evaluated")


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_shares_drop_and_repeat_nothing(data: st.DataObject) -> None:
    ranks = data.draw(st.integers(1, 6), "ranks")
    batch_size = ranks * data.draw(st.integers(1, 5), "images a process")
    count = batch_size * data.draw(st.integers(1, 6), "steps") + data.draw(
        st.integers(0, batch_size - 1), "left over"
    )
    drawn = {"seed": data.draw(st.integers(0, 9)), "batch_size": batch_size}
    task = Numbers(count)
    shares = [Group(rank, ranks).shared(task) for rank in range(ranks)]
    for epoch in range(3):
        whole = list(task.batches("train", epoch=epoch, **drawn))
        start = data.draw(st.integers(0, len(whole)), "resumed at")
        parts = [list(s.batches("train", epoch=epoch, start=start, **drawn)) for s in shares]
        assert {len(part) for part in parts} == {len(whole) - start}
        assert {s.steps(batch_size) for s in shares} == {len(whole)}
        seen = []
        for step, batch in enumerate(whole[start:]):
            numbers = [part[step].images.tolist() for part in parts]
            assert {len(own) for own in numbers} == {batch_size // ranks}
            assert sorted(chain(*numbers)) == sorted(batch.images.tolist())
            assert all(torch.equal(part[step].images, part[step].targets) for part in parts)
            assert {part[step].digest for part in parts} == {batch.digest}
            seen += chain(*numbers)
        assert len(set(seen)) == len(seen) == (len(whole) - start) * batch_size
    for own in shares:
        tested = own.batches("test", batch_size=batch_size)
        assert list(chain(*(batch.images.tolist() for batch in tested))) == list(range(count))
