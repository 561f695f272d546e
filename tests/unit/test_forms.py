"""Training forms: off is bit-equal, on is reproducible, and the table is read or refused."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from comparison import parameters, tune
from reproduction import NETWORKS, TrainConfig, UserError, build_network, forms
from reproduction import train as loop
from reproduction.checkpoints import load_checkpoint, save_checkpoint
from reproduction.forms import EAGER, Form
from reproduction.small_maps import SmallMapConv2d
from reproduction.tasks.classification.task import classification_loss
from reproduction.tasks.task import Batch
from tests.unit.test_train import CPU, toy_model, toy_task

FAST = Form(name="fast", channels_last=True, gemm_limit=6, fused_optimizer=True)
ALL = [FAST, Form(name="bf16", channels_last=True, autocast="bfloat16")]
ROW = {"network": "cls_hrnet_w18", "image_size": 32, "batch_size": 8, "precision": "float32"}


def run(out_dir: Path, form: Form) -> tuple[nn.Module, Any]:
    """Train the toy network in a form."""
    model = toy_model()
    config = TrainConfig(epochs=2, batch_size=8)
    result = loop.train(
        *(model, toy_task(), config),
        **{"seed": 0, "out_dir": out_dir, "device": CPU, "form": form, "show_progress": False},
    )
    return model, result


def bits(model: nn.Module) -> list[bytes]:
    """Return all of a state as bytes."""
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def table(path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    """Put a table in the committed one's place; none at all for None."""
    monkeypatch.setattr(forms, "TABLE", path / "training_forms.toml")
    if content is not None:
        forms.TABLE.write_text(content)


def test_the_eager_form_is_the_loop_without_forms_to_the_bit() -> None:
    models, config = (toy_model(), toy_model()), TrainConfig()
    plain = loop.make_optimizer(models[0], config)
    prepared = loop.make_optimizer(forms.prepare(models[1], EAGER), config, fused=False)
    assert plain.state_dict() == prepared.state_dict()
    for seed in range(3):
        torch.manual_seed(seed)
        images, labels = torch.randn(8, 3, 8, 8), torch.randint(2, (8,))
        loss = classification_loss(models[0], Batch(images, labels, "")).value
        plain.zero_grad()
        loss.backward()
        plain.step()
        loop.train_step(models[1], Batch(images, labels, ""), prepared, classification_loss, EAGER)
    assert bits(models[0]) == bits(models[1])
    assert [type(module) for module in models[0]] == [type(module) for module in models[1]]


def test_the_eager_form_leaves_the_identity_of_runs_as_it_was() -> None:
    assert EAGER.identity() == {}
    assert FAST.identity() == {"form": asdict(FAST), "table_sha256": forms.table_sha256()}


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_two_fast_runs_and_a_killed_one_end_with_equal_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    (first, told), (second, _) = run(tmp_path / "a", form), run(tmp_path / "b", form)
    assert bits(first) == bits(second)
    step: Callable[..., loop.StepResult] = loop.train_step
    left = iter(range(7))

    def interrupted(*arguments: Any) -> loop.StepResult:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", form)
    monkeypatch.setattr(loop, "train_step", step)
    resumed, again = run(tmp_path / "killed", form)
    assert again.resumed
    assert bits(resumed) == bits(first)
    assert again.losses == told.losses


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_a_form_trains_near_the_eager_one_and_not_with_its_bits(tmp_path: Path, form: Form) -> None:
    (eager, _), (fast, _) = run(tmp_path / "eager", EAGER), run(tmp_path / "fast", form)
    assert bits(eager) != bits(fast)
    tolerance = 0.05 if form.autocast else 1e-4
    for a, b in zip(eager.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(a, b, atol=tolerance)
        assert b.is_contiguous()


def test_a_checkpoint_of_another_form_or_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", FAST)
    with pytest.raises(UserError, match="holds another run"):
        run(tmp_path / "run", EAGER)
    table(tmp_path, monkeypatch, "# another table\n")
    with pytest.raises(UserError, match="holds another run"):
        run(tmp_path / "run", FAST)


def test_a_form_changes_no_name_and_no_value_and_can_be_undone(tmp_path: Path) -> None:
    network = build_network("cls_hrnet_w18_small_v1", num_classes=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert forms.prepare(network, FAST) is network
    assert any(type(module) is SmallMapConv2d for module in network.modules())
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    save_checkpoint(network, tmp_path / "fast.safetensors")
    forms.prepare(network, EAGER)
    assert not any(type(module) is SmallMapConv2d for module in network.modules())
    assert all(value.is_contiguous() for value in network.state_dict().values())
    other = build_network("cls_hrnet_w18_small_v1", num_classes=3)
    load_checkpoint(other, tmp_path / "fast.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_the_fused_update_is_the_plain_one_in_the_channels_last_layout() -> None:
    """Where a gradient's layout is not its weight's, PyTorch's fused update goes wrong silently."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 8, 3, padding=1) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(4, 16, 5, 5)
    for fused, layer in enumerate(layers):
        optimizer = loop.make_optimizer(
            forms.prepare(layer, FAST), TrainConfig(), fused=bool(fused)
        )
        for _ in range(3):
            optimizer.zero_grad()
            layer(FAST.place(x)).square().mean().backward()
            optimizer.step()
    assert torch.allclose(layers[0].weight, layers[1].weight, rtol=1e-5, atol=1e-7)


def test_the_table_gives_each_shape_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path, monkeypatch, tune.HEAD)
    tune.write_row({**ROW, "form": asdict(FAST), "measured": []}, forms.TABLE)
    assert forms.choose_form("cls_hrnet_w18", 32, 8) == FAST
    first = forms.table_sha256()
    slower = Form(name="other", channels_last=True)
    tune.write_row({**ROW, "form": asdict(slower), "measured": []}, forms.TABLE)
    assert [row["form"] for row in forms.table_rows(forms.TABLE)] == [slower]
    assert forms.table_sha256() != first
    for absent in (("cls_hrnet_w18", 32, 9), ("cls_hrnet_w18", 64, 8), ("cls_hrnet_w30", 32, 8)):
        assert forms.choose_form(*absent) == EAGER
    assert forms.choose_form("cls_hrnet_w18", 32, 8, "bfloat16") == EAGER


def test_the_committed_table_holds_forms_of_known_networks_with_what_was_measured() -> None:
    for row in forms.table_rows():
        assert row["network"] in NETWORKS
        best = next((found for found in row["measured"] if found["form"] == row["form"].name), None)
        assert row["form"] == EAGER or (best and best["low"] > 1)
        assert {"threads", "cpu", "rounds", "reference", "torch"} <= set(row)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "training_forms.toml cannot be read .* restore the committed file"),
        ("[[row", "training_forms.toml is damaged .* restore the committed file"),
        ('[[row]]\nnetwork = "x"\n', "training_forms.toml is damaged"),
        ('row = "x"', "training_forms.toml is damaged"),
    ],
)
def test_a_missing_or_damaged_table_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, said: str
) -> None:
    table(tmp_path, monkeypatch, content)
    with pytest.raises(UserError, match=said):
        forms.choose_form("cls_hrnet_w18", 32, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gemm_limit": -1},
        {"gemm_limit": True},
        {"gemm_weights": -1},
        {"autocast": "float16"},
        {"channels_last": 1},
    ],
)
def test_a_form_that_is_none_gets_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(wrong))}.* is "):
        Form(**{"name": "x", **wrong})


def test_an_unknown_form_or_precision_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="form 'quick' is unknown; use one of eager, fast"):
        parameters.check("03_training", {"form": "quick"})
    with pytest.raises(UserError, match="forms are of the reproduction"):
        parameters.check("03_training", {"form": "fast", "arm": "reference"})
    with pytest.raises(UserError, match="precision 'int8' is unknown"):
        forms.choose_form("cls_hrnet_w18", 32, 8, "int8")


def test_a_record_of_the_eager_form_is_named_as_before() -> None:
    eager = parameters.check("03_training", {"form": "eager"})
    assert "form" not in eager.decisive()
    assert parameters.check("03_training", {"form": "fast"}).decisive()["form"] == "fast"
