"""Published figures are kept as printed, and a value meets them only by rounding to them."""

import pytest

from comparison import published
from comparison.published import Figure
from reproduction import CLASSIFICATION


def printed(digits: str) -> Figure:
    return Figure(source="s", title="t", quantity="q", printed=digits)


@pytest.mark.parametrize(
    ("digits", "value", "met"),
    [
        ("13.2", 13.187464, True),
        ("13.2", 13.25, True),  # the middle rounds either way
        ("13.2", 13.15, True),
        ("23.2", 23.15, True),  # which no binary number is exactly
        ("13.2", 13.2501, False),
        ("13.2", 13.1499, False),
        ("13.20", 13.187464, False),  # a printed zero is a digit
        ("1.49", 1.4915, True),
        ("1.49", 1.602, False),
        ("21295164", 21295164, True),
        ("21295164", 21295165, False),
        ("100", 100.4, True),
    ],
)
def test_a_value_meets_the_digits_it_rounds_to(digits: str, value: float, met: bool) -> None:
    assert printed(digits).is_met_by(value) is met


def test_the_readme_prints_all_nine_networks() -> None:
    assert published.networks("readme") == list(CLASSIFICATION)
    for name in CLASSIFICATION:
        assert set(published.figures(name, "readme")) == {
            "parameters_m",
            "gflops",
            "top1_error",
            "top5_error",
        }


@pytest.mark.parametrize("source", ["readme", "paper", "timm", "mmpretrain"])
def test_every_row_belongs_to_a_network_and_has_a_named_source(source: str) -> None:
    assert set(published.networks(source)) <= set(CLASSIFICATION)
    for name in published.networks(source):
        for figure in published.figures(name, source).values():
            assert figure.title and float(figure.printed) > 0 and figure.half_unit > 0


def test_a_source_that_prints_nothing_about_a_network_gives_nothing() -> None:
    assert published.figures("cls_hrnet_w18_small_v1", "mmpretrain") == {}
