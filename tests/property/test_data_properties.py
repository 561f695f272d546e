"""What holds of every seed, epoch and batch size: each image once, and the same on resuming."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.tasks.classification.data import ArraySplit, Dataset

seeds = st.integers(0, 2**31)
epochs = st.integers(0, 300)
sizes = st.integers(1, 90)


def numbered(count: int) -> ArraySplit:
    """Make images of noise, each with a label of its own."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 1, 6, 5), dtype=np.uint8)
    return ArraySplit(noise, np.arange(count), flip=True)


NUMBERED = Dataset(
    name="numbered",
    train=numbered(90),
    test=numbered(40),
    num_classes=90,
    image_size=6,
    sha256="",
    source="drawn here",
    license="none needed",
)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, epoch=epochs, batch_size=sizes, data=st.data())
def test_a_resumed_epoch_sees_the_batches_it_would_have_seen(
    seed: int, epoch: int, batch_size: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, NUMBERED.steps("train", batch_size)))
    call = {"seed": seed, "epoch": epoch, "batch_size": batch_size}
    whole = [batch.digest for batch in NUMBERED.batches("train", **call)]

    assert [batch.digest for batch in NUMBERED.batches("train", start=start, **call)] == whole[
        start:
    ]


@settings(max_examples=25, deadline=None)
@given(seed=seeds, epoch=epochs, batch_size=sizes)
def test_an_epoch_takes_no_image_twice(seed: int, epoch: int, batch_size: int) -> None:
    batches = NUMBERED.batches("train", seed=seed, epoch=epoch, batch_size=batch_size)
    seen = [int(label) for batch in batches for label in batch.labels]

    assert len(seen) == len(set(seen)) == 90 - 90 % batch_size


@settings(max_examples=25, deadline=None)
@given(batch_size=sizes)
def test_the_test_images_come_once_and_in_order_whatever_the_batch_size(batch_size: int) -> None:
    batches = list(NUMBERED.batches("test", batch_size=batch_size))

    assert [int(label) for batch in batches for label in batch.labels] == list(range(40))
    assert len(batches) == NUMBERED.steps("test", batch_size)
