"""The pins are complete and fit together."""

import re

import pytest

from reference import ReferenceUnavailable, shims
from reference.pins import PINS_PATH, load_pins
from reproduction import NETWORKS


def test_every_network_of_the_reproduction_has_a_reference() -> None:
    assert list(load_pins().networks) == list(NETWORKS)


@pytest.mark.parametrize("name", load_pins().networks)
def test_a_network_is_built_from_pinned_files(name: str) -> None:
    pin = load_pins().network(name)
    repository = load_pins().repository(pin.repository)
    second = pin.neck or pin.config
    assert repository.file(pin.file).sha256 != repository.file(second).sha256
    if pin.task == "cls":
        assert pin.config.startswith(f"experiments/{name}_sgd_")
    assert bool(pin.neck) == (pin.task == "det") == bool(pin.width)


def test_no_two_classification_networks_share_a_configuration_or_a_stand_in() -> None:
    networks = [pin for pin in load_pins().networks.values() if pin.task == "cls"]
    assert len({pin.config for pin in networks}) == len(networks)
    assert len({pin.standin for pin in networks}) == len(networks)


def test_no_two_networks_are_described_alike() -> None:
    networks = load_pins().networks.values()
    described = {
        (pin.repository, pin.file, pin.config, str(pin.settings), pin.width) for pin in networks
    }
    assert len(described) == len(networks)


def test_the_wheel_carries_the_official_files_but_for_one() -> None:
    (wheel,) = load_pins().wheels
    networks = [pin for pin in load_pins().networks.values() if pin.wheel]
    assert {pin.task for pin in networks} == {"pose"}
    for pin in networks:
        repository = load_pins().repository(pin.repository)
        assert wheel.file(pin.config) == repository.file(pin.config)
        assert wheel.file(pin.file).sha256 != repository.file(pin.file).sha256


def test_all_hashes_have_their_full_length() -> None:
    for repository in load_pins().repositories:
        assert re.fullmatch("[0-9a-f]{40}", repository.commit)
        for file in repository.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert re.fullmatch("[0-9a-f]{12}", file.blob)
    for wheel in load_pins().wheels:
        assert re.fullmatch("[0-9a-f]{64}", wheel.sha256)
        assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in wheel.files)


def test_a_repository_pinned_twice_has_two_keys() -> None:
    keys = [pin.key for pin in load_pins().repositories]
    assert len(set(keys)) == len(keys)
    assert sum(key.startswith("HRNet-Semantic-Segmentation@") for key in keys) == 2


def test_every_listed_shim_exists_and_every_shim_is_listed() -> None:
    files = [file for repository in load_pins().repositories for file in repository.files]
    named = {name for file in files for name in shims.names_of(file.shims)}
    assert named == {*shims.STANDINS, shims.QUIET}


def test_an_unknown_network_is_refused_with_the_known_names() -> None:
    with pytest.raises(ReferenceUnavailable, match=r"no network 'w18'.*cls_hrnet_w18_small_v1"):
        load_pins().network("w18")


def test_the_pins_are_read_once() -> None:
    assert load_pins(PINS_PATH) is load_pins(PINS_PATH)
