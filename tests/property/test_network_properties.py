"""What holds of every network and every image: sizes, independence within a batch, names."""

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reproduction import build_network
from reproduction.checkpoints import official_name, our_name

SMALLEST = "cls_hrnet_w18_small_v1"
# Every layout there is: the wider networks differ from the last in width alone.
LAYOUTS = (SMALLEST, "cls_hrnet_w18_small_v2", "cls_hrnet_w18")
sides = st.integers(min_value=1, max_value=64)
layouts = st.sampled_from(LAYOUTS)


@cache
def network() -> nn.Module:
    """Build the smallest network once, in eval mode and float64."""
    torch.manual_seed(0)
    return build_network(SMALLEST, num_classes=3).double().eval()


@cache
def names(name: str) -> tuple[str, ...]:
    """Return our names of a network's state."""
    return tuple(build_network(name).state_dict())


@settings(max_examples=6, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 2**31))
def test_an_image_is_classified_alike_alone_and_in_company(
    height: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together = network()(images)
        alone = torch.cat([network()(image[None]) for image in images])

    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(name=layouts, data=st.data())
def test_every_name_survives_the_translation_there_and_back(name: str, data: st.DataObject) -> None:
    ours = data.draw(st.sampled_from(names(name)))

    assert our_name(official_name(ours)) == ours


@settings(max_examples=len(LAYOUTS), deadline=None)
@given(name=layouts)
def test_no_two_names_translate_to_the_same(name: str) -> None:
    assert len({official_name(ours) for ours in names(name)}) == len(names(name))
