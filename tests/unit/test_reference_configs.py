"""A yaml file of another official repository, or of another commit, is refused with its name."""

from dataclasses import replace
from pathlib import Path

import pytest

from reference import ReferenceUnavailable, build, configs, loader, store
from reference.pins import NetworkPin, Pins, load_pins
from tests.unit.fake_pins import CONFIG_FILE, FILES, fake_pins, write_tree

PRESENT = {
    pin.key
    for pin in load_pins().repositories
    if store.presence(pin, store.OFFICIAL).state == "verified"
}
WITH_YAML = {name: pin for name, pin in load_pins().networks.items() if pin.config}
# The network that is asked for, the one whose yaml file is given, and what is said of a changed
# copy of that file.
FOREIGN = [
    ("cls_hrnet_w18", "seg_hrnet_w48_cityscapes", "MODEL.NAME 'seg_hrnet', but .* 'cls_hrnet'"),
    ("cls_hrnet_w48", "pose_hrnet_w48", "MODEL.NAME 'pose_hrnet', but .* needs 'cls_hrnet'"),
    ("face_hrnet_w18_wflw", "pose_hrnet_w32", "MODEL.NAME 'pose_hrnet', but .* needs 'hrnet'"),
    ("pose_hrnet_w32", "face_hrnet_w18_300w", "MODEL.NAME 'hrnet', but .* needs 'pose_hrnet'"),
    ("seg_hrnet_w48_lip", "seg_hrnet_ocr_w48_lip", "MODEL.NAME 'seg_hrnet_ocr', but .*'seg_hrnet'"),
    (
        "seg_hrnet_w48_pascal_ctx60",
        "seg_hrnet_w48_cityscapes",
        "MODEL.ALIGN_CORNERS, which HRNet-Semantic-Segmentation@0bbb2880 reads .*@88419ab1, which",
    ),
    (
        "seg_hrnet_w48_cityscapes",
        "seg_hrnet_w18_small_v1_cityscapes",
        "lacks ALIGN_CORNERS, which .* of HRNet-Semantic-Segmentation@0bbb2880 reads",
    ),
]


def official_yaml(pin: NetworkPin, *needed: NetworkPin) -> bytes:
    """Return a network's yaml file; skip where its repository or another one is not there."""
    for key in {pin.repository, *(other.repository for other in needed)} - PRESENT:
        pytest.skip(f"{key} is not there: python -m reference fetch --from PATH")
    return store.read_verified(load_pins().repository(pin.repository), pin.config, store.OFFICIAL)


@pytest.mark.parametrize(("network", "other", "said"), FOREIGN)
def test_a_changed_yaml_file_of_another_repository_is_named(
    network: str, other: str, said: str, tmp_path: Path
) -> None:
    content = official_yaml(WITH_YAML[other], WITH_YAML[network])
    path = tmp_path / "own.yaml"
    path.write_bytes(content + b"# mine\n")
    with pytest.raises(ReferenceUnavailable, match=rf"own\.yaml (has )?{said}"):
        build(network, source="official", config=path)


@pytest.mark.parametrize(
    ("network", "other"),
    [
        (network, other)
        for network, other, _ in FOREIGN
        if WITH_YAML[network].repository != WITH_YAML[other].repository
    ],
)
def test_the_bytes_of_a_pinned_yaml_file_name_repository_and_commit(
    network: str, other: str, tmp_path: Path
) -> None:
    mine, theirs = WITH_YAML[network], WITH_YAML[other]
    path = tmp_path / "own.yaml"
    path.write_bytes(official_yaml(theirs, mine))
    said = f"is a configuration of {theirs.repository}, but {network} needs one of"
    with pytest.raises(ReferenceUnavailable, match=f"{said} {mine.repository}, such as"):
        build(network, source="official", config=path)


@pytest.mark.parametrize("name", WITH_YAML)
def test_a_changed_yaml_file_of_the_same_repository_is_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(official_yaml(WITH_YAML[name]) + b"# mine\n")
    configs.check_own(path, WITH_YAML[name], load_pins(), "official")


def named(*names: str) -> Pins:
    """Pin one repository at as many commits as there are names, its yaml files differing by them.

    The network of the first is `tiny`; of the second `tiny2`, and so on.
    """
    repositories, networks = [], {}
    for number, text in enumerate(names):
        pins = fake_pins(yaml_of(text), commit=str(number) * 40)
        name = f"tiny{number + 1 if number else ''}"
        repositories.extend(pins.repositories)
        networks[name] = replace(pins.networks["tiny"], name=name)
    return replace(pins, repositories=tuple(repositories), networks=networks)


def yaml_of(more: str) -> dict[str, str]:
    """Return the files of the fake repository with a further setting."""
    return {**FILES, CONFIG_FILE: f"MODEL:\n  WIDTH: 3\n  {more}\n"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "NAME: big",
            r"has MODEL\.NAME 'big', but tiny needs 'small': give .* Tiny@00000000, such",
        ),
        ("DEPTH: 2", r"has MODEL\.DEPTH, which Tiny@11111111 reads and Tiny@00000000, which tiny"),
        ("NAME: small", ""),
        ("OTHER: 1", ""),
    ],
)
def test_what_a_yaml_file_says_decides_whose_it_is(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ("NAME: small", "DEPTH: 1")
    pins = named(*texts)
    monkeypatch.setattr(loader, "load_pins", lambda: pins)
    monkeypatch.setattr(store, "OFFICIAL", tmp_path)
    for repository, content in zip(pins.repositories, texts, strict=True):
        write_tree(tmp_path / repository.key, yaml_of(content))
    path = tmp_path / "own.yaml"
    path.write_text(yaml_of(text)[CONFIG_FILE] + "# mine\n")
    if not said:
        assert type(build("tiny", config=path)).__name__ == "Tiny"
        return
    with pytest.raises(ReferenceUnavailable, match=said):
        build("tiny", config=path)
