"""Official names, and files that do or do not fit."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reproduction import NETWORKS, ClassificationNetwork, UserError, build_network
from reproduction.checkpoints import (
    load_checkpoint,
    official_name,
    our_name,
    save_checkpoint,
    to_official,
)
from reproduction.networks import CLASSES

NAME = "cls_hrnet_w18_small_v1"


@pytest.fixture
def network() -> ClassificationNetwork:
    """Return the smallest network."""
    torch.manual_seed(0)
    return build_network(NAME)


def random_state(network: ClassificationNetwork) -> dict[str, torch.Tensor]:
    """Return a state under official names that differs from the network's in every tensor."""
    torch.manual_seed(1)
    state = to_official(network.state_dict())
    return {name: torch.rand(value.shape).to(value.dtype) + 1 for name, value in state.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_name_table_is_a_bijection(name: str) -> None:
    config = NETWORKS[name]
    with torch.device("meta"):
        ours = list(CLASSES[config.task](config, config.outputs).state_dict())
    official = [official_name(key) for key in ours]
    assert len(set(official)) == len(ours)
    assert [our_name(key) for key in official] == ours


@pytest.mark.parametrize("name", ["backbone.stage5.0.conv", "fc.weight", "", "stage2.0.branches"])
def test_a_name_outside_the_table_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="fits no line of the name table"):
        our_name(name)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_official_files_load(
    network: ClassificationNetwork, tmp_path: Path, prefix: str, wrapped: bool
) -> None:
    state = {prefix + name: value for name, value in random_state(network).items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    load_checkpoint(network, tmp_path / "w.pth")
    for name, value in to_official(network.state_dict()).items():
        assert torch.equal(value, state[prefix + name])


@pytest.mark.parametrize("naming", ["official", "ours"])
def test_what_is_saved_loads(network: ClassificationNetwork, tmp_path: Path, naming: str) -> None:
    save_checkpoint(network, tmp_path / "w.safetensors", naming)
    other = build_network(NAME)
    load_checkpoint(other, tmp_path / "w.safetensors")
    for name, value in other.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_misfits_are_named_and_nothing_is_loaded(
    network: ClassificationNetwork, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = random_state(network)
    classifier = state.pop("classifier.weight")
    cases = {
        "missing classifier.weight": state,
        "unexpected fc.weight": {**state, "classifier.weight": classifier, "fc.weight": classifier},
        r"classifier.weight is \(10, 2048\), expected \(1000, 2048\)": {
            **state,
            "classifier.weight": classifier[:10],
        },
        "and 548 more": {"conv1.weight": state["conv1.weight"]},
    }
    for said, content in cases.items():
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match=said):
            load_checkpoint(network, tmp_path / "w.pth")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def saved(name: str, folder: Path, wrap: Callable[[str], str], **beside: torch.Tensor) -> Path:
    """Save a network under official names as an official script would, and more beside it."""
    state = random_state(build_network(name))
    torch.save({**{wrap(key): value for key, value in state.items()}, **beside}, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize(
    ("name", "prefix", "beside"),
    [
        ("seg_hrnet_w18_small_v1_cityscapes", "model.", "loss.criterion.weight"),
        ("seg_hrnet_w18_small_v1_cityscapes", "module.model.", "module.loss.criterion.weight"),
        ("det_hrnetv2p_w18", "", "rpn_head.rpn_conv.weight"),
        ("face_hrnet_w18_cofw", "module.", None),
    ],
)
def test_files_of_every_repository_load_strictly(
    name: str, prefix: str, beside: str | None, tmp_path: Path
) -> None:
    more = {beside: torch.ones(3)} if beside else {}
    path = saved(name, tmp_path, lambda key: prefix + key, **more)
    network = build_network(name)
    load_checkpoint(network, path)
    content = torch.load(path)
    for key, value in to_official(network.state_dict()).items():
        assert torch.equal(value, content[prefix + key])

    del content[next(iter(content))]
    torch.save(content, path)
    with pytest.raises(UserError, match=r"missing (backbone\.)?conv1.weight"):
        load_checkpoint(network, path)


def frozen_state() -> dict[str, torch.Tensor]:
    """Return a detector's state as HRNet-MaskRCNN-Benchmark saves it, with its box head beside."""
    state: dict[str, torch.Tensor] = {"roi_heads.box.predictor.cls_score.weight": torch.ones(2)}
    for name, value in random_state(build_network("det_hrnetv2p_w18")).items():
        module, _, tensor = name.rpartition(".")
        place = module.replace("backbone.", "backbone.body.").replace("neck.", "backbone.neck.")
        if tensor != "num_batches_tracked":
            state[f"{place}.{tensor}"] = value
        else:
            state[f"{place}.eps"] = torch.full_like(state[f"{place}.weight"], 1e-5)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_detectors_of_maskrcnn_benchmark_load_strictly(
    prefix: str, wrapped: bool, tmp_path: Path
) -> None:
    state = frozen_state()
    named = {prefix + name: value for name, value in state.items()}
    content = {"model": named, "optimizer": {"state": {}}, "iteration": 9} if wrapped else named
    torch.save(content, tmp_path / "w.pth")
    network = build_network("det_hrnetv2p_w18")
    for value in network.state_dict().values():
        value.fill_(7)
    load_checkpoint(network, tmp_path / "w.pth")
    for name, value in to_official(network.state_dict()).items():
        part = "body" if name.startswith("backbone.") else "neck"
        theirs = f"backbone.{part}.{name.partition('.')[2]}"
        counts = name.endswith(".num_batches_tracked")
        assert torch.equal(value, torch.tensor(0) if counts else state[theirs])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone.body.bn1.eps": torch.tensor([1e-5] * 63 + [1e-3])}, r"0.001 in .*bn1.eps; exp"),
        ({"backbone.conv1.weight": torch.ones(1)}, "conv1.weight also as backbone.*remove one"),
        ({"backbone.body.bn9.weight": torch.ones(1)}, "unexpected backbone.bn9.weight"),
    ],
)
def test_what_else_a_detector_of_maskrcnn_benchmark_holds_is_refused(
    changes: dict[str, torch.Tensor], said: str, tmp_path: Path
) -> None:
    torch.save({**changes, **frozen_state(), **changes}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        load_checkpoint(build_network("det_hrnetv2p_w18"), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "left_out", "said"),
    [
        (
            "det_hrnetv2p_w18",
            "neck.",
            r"the network's neck \(12 .* neck.reduction_conv.* only of its body: give",
        ),
        ("det_hrnetv2p_w18", "backbone.", r"network's body \(1830 .* only of its neck: give a fi"),
        (
            "face_hrnet_w18_cofw",
            "head.",
            r"network's head \(9 .* only of its backbone: give a file",
        ),
    ],
)
def test_a_part_that_is_missing_is_named(
    name: str, left_out: str, said: str, tmp_path: Path
) -> None:
    state = random_state(build_network(name))
    rest = {key: value for key, value in state.items() if not key.startswith(left_out)}
    torch.save(rest, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        load_checkpoint(build_network(name), tmp_path / "w.pth")


def test_a_tensor_under_both_names_is_refused(
    network: ClassificationNetwork, tmp_path: Path
) -> None:
    state = random_state(network)
    more = {our_name("conv1.weight"): state["conv1.weight"]}
    torch.save({**state, **more}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds conv1\.weight under two names"):
        load_checkpoint(network, tmp_path / "w.pth")


def test_a_file_of_the_oldest_pytorch_is_refused(tmp_path: Path) -> None:
    name = "seg_hrnet_w18_small_v1_cityscapes"
    state = random_state(build_network(name))
    old = {key: value for key, value in state.items() if not key.endswith("batches_tracked")}
    torch.save(old, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"PyTorch 0\.4 .* scales by \|weight\| \+ eps"):
        load_checkpoint(build_network(name), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda value: value.bfloat16(), "in bfloat16, expected float32: convert the file"),
        (lambda value: value * float("nan"), "that are not finite"),
    ],
)
def test_weights_that_would_change_or_are_no_numbers_are_refused(
    tmp_path: Path, damage: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    network = build_network(NAME)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {
        name: damage(value) if value.is_floating_point() else value
        for name, value in before.items()
    }
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        load_checkpoint(network, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_another_class_count_is_named(tmp_path: Path) -> None:
    name = "seg_hrnet_w18_small_v1_cityscapes"
    path = saved(name, tmp_path, str)
    with pytest.raises(UserError, match="trained with 19 outputs, so build it with num_classes=19"):
        load_checkpoint(build_network(name, num_classes=60), path)


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("seg_hrnet_w18_small_v1_cityscapes", NAME, "for segmentation, expected .* classification"),
        ("face_hrnet_w18_wflw", "seg_hrnet_w48_lip", "for landmarks, expected .* segmentation"),
        ("det_hrnetv2p_w18", "face_hrnet_w18_wflw", "for detection, expected .* landmarks"),
        (NAME, "pose_hrnet_w32", "for classification, expected .* pose"),
    ],
)
def test_another_head_is_named(name: str, other: str, said: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path, str)
    with torch.device("meta"):
        network = build_network(other)
    with pytest.raises(UserError, match=said):
        load_checkpoint(network, path)


class Harmful:
    """What a malicious file would hold: code that runs when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (setattr, (Harmful, "ran", True))


def test_nothing_in_a_file_is_executed(network: ClassificationNetwork, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"conv1.weight": Harmful()}))
    with pytest.raises(UserError, match="damaged or holds more than tensors"):
        load_checkpoint(network, tmp_path / "w.pth")
    assert not Harmful.ran


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
def test_damaged_and_missing_files_get_a_sentence(
    network: ClassificationNetwork, tmp_path: Path, file: str
) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(network, tmp_path / file)
    state = random_state(network)
    if file.endswith("pth"):
        torch.save(state, tmp_path / file)
    else:
        save_checkpoint(network, tmp_path / file)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read as a weights file"):
        load_checkpoint(network, tmp_path / file)


def test_a_file_without_a_state_dict_gets_a_sentence(
    network: ClassificationNetwork, tmp_path: Path
) -> None:
    torch.save([1, 2, 3], tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_checkpoint(network, tmp_path / "w.pth")
    for content in (
        {0: torch.ones(1)},
        {"state_dict": {"conv1.weight": torch.ones(1), (): torch.ones(1)}},
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(
            UserError, match=r"the key (0|\(\)), of type (int|tuple); expected names"
        ):
            load_checkpoint(network, tmp_path / "w.pth")


def test_an_unknown_naming_is_refused(network: ClassificationNetwork, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use official or ours"):
        save_checkpoint(network, tmp_path / "w.safetensors", "timm")
