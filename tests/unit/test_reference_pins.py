"""The pins are complete and fit together."""

import re

import pytest

from reference import ReferenceUnavailable
from reference.pins import PINS_PATH, load_pins
from reproduction import NETWORKS


def test_every_network_of_the_reproduction_has_a_reference() -> None:
    assert list(load_pins().networks) == list(NETWORKS)


@pytest.mark.parametrize("name", load_pins().networks)
def test_a_network_is_built_from_pinned_files_that_bear_its_name(name: str) -> None:
    pin = load_pins().network(name)
    repository = load_pins().repository(pin.repository)
    assert repository.file(pin.file).sha256 != repository.file(pin.config).sha256
    assert pin.config.startswith(f"experiments/{name}_sgd_")


def test_no_two_networks_share_a_configuration_or_a_stand_in() -> None:
    networks = load_pins().networks.values()
    assert len({pin.config for pin in networks}) == len(networks)
    assert len({pin.standin for pin in networks}) == len(networks)


def test_all_hashes_have_their_full_length() -> None:
    for repository in load_pins().repositories:
        assert re.fullmatch("[0-9a-f]{40}", repository.commit)
        for file in repository.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert re.fullmatch("[0-9a-f]{12}", file.blob)


def test_a_repository_pinned_twice_has_two_keys() -> None:
    keys = [pin.key for pin in load_pins().repositories]
    assert len(set(keys)) == len(keys)
    assert sum(key.startswith("HRNet-Semantic-Segmentation@") for key in keys) == 2


def test_an_unknown_network_is_refused_with_the_known_names() -> None:
    with pytest.raises(ReferenceUnavailable, match=r"no network 'w18'.*cls_hrnet_w18_small_v1"):
        load_pins().network("w18")


def test_the_pins_are_read_once() -> None:
    assert load_pins(PINS_PATH) is load_pins(PINS_PATH)
