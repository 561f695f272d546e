"""The recipe records the same numbers everywhere, and the comparison sees every deviation."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reference import ReferenceUnavailable, anchors, build, load_trace, record, recorded, store
from reference.pins import load_pins
from reference.recorded import COUNT, LARGEST, MEAN, NORM, Trace

SMALLEST = "cls_hrnet_w18_small_v1"
SHAPE = (4, 3, 8, 8)
OFFICIAL_IS_THERE = all(
    store.presence(pin, store.OFFICIAL).state == "verified" for pin in load_pins().used()
)
needs_official = pytest.mark.skipif(
    not OFFICIAL_IS_THERE,
    reason="the official code is not there: python -m reference fetch --from PATH",
)
SOURCES = [pytest.param("official", marks=needs_official), "timm"]


class Small(nn.Module):
    """A convolution whose bias feeds a BN, an in-place ReLU, dropout, and a linear layer."""

    def __init__(self, names: tuple[str, str, str] = ("conv", "norm", "classifier")) -> None:
        super().__init__()
        self.add_module(names[0], nn.Conv2d(3, 4, 3))
        self.add_module(names[1], nn.BatchNorm2d(4))
        self.add_module(names[2], nn.Linear(4, 2))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        conv, norm, classifier = list(self.children())[:3]
        x = norm(conv(x)).relu_()
        logits = classifier(self.dropout(x.mean((2, 3))))
        return logits, 2 * logits


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    """Return what the recipe records of the small network."""
    return record.trace(Small(), SHAPE)


def as_recorded(rows: dict[str, np.ndarray]) -> Trace:
    """Treat rows as the recorded side."""
    return Trace(
        network="small",
        repository="",
        input_shape=SHAPE,
        rows=rows,
        analytic_zeros=("conv.bias",),
    )


def failures(measured: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    """Return the keys of the rows that do not pass."""
    comparison = recorded.compare(measured, as_recorded(expected))
    return [row["key"] for row in comparison if not row["passes"]]


def changed(rows: dict[str, np.ndarray], key: str, column: int, by: float) -> dict:
    """Return rows with one number moved by a part of the row's largest magnitude."""
    moved = {name: row.copy() for name, row in rows.items()}
    moved[key][column] += by * rows[key][LARGEST]
    return moved


@pytest.mark.reference
@pytest.mark.parametrize("source", SOURCES)
def test_the_reference_meets_the_shipped_trace(source: str) -> None:
    shipped = load_trace(SMALLEST)
    measured = record.trace(build(SMALLEST, source=source), shipped.input_shape)
    comparison = recorded.compare(measured, shipped)
    assert [row for row in comparison if not row["passes"]] == []
    assert len(comparison) == len(shipped.rows) == 925
    assert sum(row["analytic_zero"] for row in comparison) == 4


@pytest.mark.full
@pytest.mark.reference
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("network", ["cls_hrnet_w18", "cls_hrnet_w32", "cls_hrnet_w48"])
def test_the_larger_references_meet_their_traces(network: str, source: str) -> None:
    shipped = load_trace(network)
    measured = record.trace(build(network, source=source), shipped.input_shape)
    assert all(row["passes"] for row in recorded.compare(measured, shipped))


@pytest.mark.reference
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "name",
    [
        "w18_small_v1",
        "w18_small_v2",
        *(pytest.param(f"w{c}", marks=pytest.mark.full) for c in (18, 30, 32, 40, 44, 48, 64)),
    ],
)
def test_the_reference_meets_the_anchors(name: str, source: str) -> None:
    anchor = anchors.load_anchors()[f"cls_{name}"]
    expected = anchor["outputs_float64"][0]
    model = build(f"cls_hrnet_{name}", source=source)
    anchors.fill(model)
    with torch.no_grad():
        output = model.double().eval()(anchors.image(anchor["input"]).double()).numpy()
    scale = 1e-12 * max(abs(expected["min"]), abs(expected["max"]))
    np.testing.assert_allclose(output.reshape(-1)[:6], expected["first6"], rtol=0, atol=scale)
    np.testing.assert_allclose(output.mean(), expected["mean"], rtol=0, atol=scale)
    np.testing.assert_allclose(output.std(), expected["std"], rtol=1e-12)


def test_rows_come_in_the_order_of_the_recipe(rows: dict[str, np.ndarray]) -> None:
    names = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    names += ["classifier.weight", "classifier.bias"]
    assert list(rows) == [
        *("forward/conv", "forward/norm", "forward/classifier", "output/0", "output/1", "loss"),
        *(f"grad/{name}" for name in names),
        *("buffer/norm.running_mean", "buffer/norm.running_var"),
        *(f"step/{name}" for name in names),
    ]


def test_forward_rows_are_taken_before_an_in_place_operation(rows: dict) -> None:
    model = Small().double()
    record.fill(model)
    images = torch.from_numpy(record.rng("input").standard_normal(SHAPE))
    conv, norm, _ = list(model.eval().children())[:3]
    with torch.no_grad():
        before_relu = norm(conv(images))
    assert before_relu.min() < 0
    np.testing.assert_allclose(rows["forward/norm"][NORM], before_relu.norm(), rtol=1e-12)


def test_a_row_is_count_norm_mean_largest_and_eight_elements() -> None:
    values = torch.tensor([[3.0, -4.0], [0.0, 0.0]], dtype=torch.float64)
    row = record.row("loss", values)
    assert row[:4].tolist() == [4.0, 5.0, -0.25, 4.0]
    positions = record.rng("sample:loss").integers(0, 4, 8)
    assert row[4:].tolist() == values.flatten()[positions].tolist()


def test_the_step_is_the_documented_one(rows: dict[str, np.ndarray]) -> None:
    key = "classifier.bias"
    start = record.draw(key, (2,))
    gradient = rows[f"grad/{key}"]
    mean_step = 0.05 * 1.9 * (gradient[MEAN] + 1e-4 * start.mean())
    np.testing.assert_allclose(rows[f"step/{key}"][MEAN], start.mean() - mean_step, rtol=1e-12)


def test_a_network_with_other_names_gives_the_same_rows(rows: dict[str, np.ndarray]) -> None:
    theirs = {"a": "conv", "b": "norm", "c": "classifier"}
    model = Small(("a", "b", "c"))
    measured = record.trace(
        model, SHAPE, name_of=lambda path: path.replace(path[0], theirs[path[0]], 1)
    )
    assert list(measured) == list(rows)
    assert failures(measured, rows) == []


def test_recording_leaves_the_model_as_it_was() -> None:
    model = Small().train()
    before = copy.deepcopy(model.state_dict())
    threads = torch.get_num_threads()
    record.trace(model, SHAPE)
    assert model.training
    assert torch.get_num_threads() == threads
    for key, entry in model.state_dict().items():
        assert entry.dtype == before[key].dtype
        assert torch.equal(entry, before[key])


def test_equal_rows_pass_and_are_summed_up_by_phase(rows: dict[str, np.ndarray]) -> None:
    summary = recorded.summarize(recorded.compare(rows, as_recorded(rows)))
    assert [phase["phase"] for phase in summary] == [
        *("forward", "output", "loss", "grad", "buffer", "step")
    ]
    assert all(phase["failures"] == 0 for phase in summary)
    assert sum(phase["rows"] for phase in summary) == len(rows)


@pytest.mark.parametrize("column", range(12))
@pytest.mark.parametrize(
    ("key", "bound"),
    [
        ("forward/conv", 1e-11),
        ("output/1", 1e-11),
        ("loss", 1e-11),
        ("buffer/norm.running_var", 1e-11),
        ("grad/conv.weight", 1e-10),
        ("step/classifier.weight", 1e-10),
    ],
)
def test_every_number_is_held_to_its_bound(
    rows: dict[str, np.ndarray], key: str, bound: float, column: int
) -> None:
    scale = rows[key][NORM] / rows[key][LARGEST] if column == NORM else 1.0
    assert failures(changed(rows, key, column, 1.1 * bound * scale), rows) == [key]
    if column != COUNT:
        assert failures(changed(rows, key, column, 0.9 * bound * scale), rows) == []


def test_a_missing_and_an_extra_row_fail(rows: dict[str, np.ndarray]) -> None:
    fewer = {key: row for key, row in rows.items() if key != "grad/norm.bias"}
    assert failures(fewer, rows) == ["grad/norm.bias"]
    assert failures(rows, fewer) == ["grad/norm.bias"]


def test_a_number_that_is_not_finite_fails(rows: dict[str, np.ndarray]) -> None:
    assert failures(changed(rows, "loss", MEAN, float("nan")), rows) == ["loss"]
    assert failures(changed(rows, "grad/conv.bias", LARGEST, float("nan")), rows)


@pytest.mark.parametrize("is_measured", [True, False])
def test_an_analytic_zero_must_be_near_zero_on_both_sides(rows: dict, is_measured: bool) -> None:
    key = "grad/conv.bias"
    assert rows[key][LARGEST] < 1e-15
    off = {**rows, key: rows[key] + np.array([0, 0, 0, 1e-6] + [0] * 8)}
    sides = (off, rows) if is_measured else (rows, off)
    assert failures(*sides) == [key]


def test_noise_in_an_analytic_zero_passes(rows: dict[str, np.ndarray]) -> None:
    key = "grad/conv.bias"
    noisy = {**rows, key: rows[key] * np.array([1, -3, 2, 3] + [-1] * 8)}
    assert failures(noisy, rows) == []


def test_a_parameter_without_gradient_is_found(rows: dict[str, np.ndarray]) -> None:
    model = Small()
    model.classifier.bias.requires_grad_(False)  # type: ignore[union-attr]
    assert "grad/classifier.bias" in failures(record.trace(model, SHAPE), rows)


def test_a_trace_file_gives_back_its_rows_and_the_same_bytes(tmp_path: Path, rows: dict) -> None:
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    recorded.write_rows(first, rows)
    recorded.write_rows(second, recorded.read_rows(first))
    assert first.read_bytes() == second.read_bytes()
    assert failures(recorded.read_rows(first), rows) == []


@pytest.mark.parametrize("network", recorded.recorded_networks())
def test_every_trace_fits_its_index_and_the_pins(network: str) -> None:
    trace = load_trace(network)
    entry = recorded.recorded_networks()[network]
    forward = [key for key in trace.rows if key.startswith("forward/")]
    assert len(forward) == entry["layers"]
    parameters = [row[COUNT] for key, row in trace.rows.items() if key.startswith("grad/")]
    assert sum(parameters) == entry["parameters"]
    for name in trace.analytic_zeros:
        assert trace.rows[f"grad/{name}"][LARGEST] < 1e-15
    assert load_pins().repository(trace.repository).file(entry["file"]).sha256


def test_a_network_without_a_trace_is_refused() -> None:
    with pytest.raises(ReferenceUnavailable, match="no trace of 'w18' is recorded here; there are"):
        load_trace("w18")


@pytest.mark.fault(
    "truncated or bit-flipped trace",
    how="a recorded trace cut off, or one bit flipped in the middle of it",
    told="restore reference/traces from version control",
    kept="nothing is compared with damaged numbers; the message names the file",
)
@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
def test_a_damaged_trace_is_refused(tmp_path: Path, told: str, how: str) -> None:
    (tmp_path / "index.json").write_bytes((recorded.TRACES / "index.json").read_bytes())
    content = bytearray((recorded.TRACES / f"{SMALLEST}.npz").read_bytes())
    content[len(content) // 2] ^= 4
    kept = len(content) if how == "bit-flipped" else 5000
    (tmp_path / f"{SMALLEST}.npz").write_bytes(content[:kept])
    with pytest.raises(ReferenceUnavailable, match=f"{SMALLEST}.npz cannot be read.*{told}"):
        load_trace(SMALLEST, tmp_path)


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"cls_hrnet_w18": ')
    with pytest.raises(ReferenceUnavailable, match=r"index\.json, cannot be read.*restore"):
        load_trace(SMALLEST, tmp_path)


def test_a_trace_with_rows_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes((recorded.TRACES / "index.json").read_bytes())
    rows = load_trace(SMALLEST).rows
    recorded.write_rows(tmp_path / f"{SMALLEST}.npz", {"loss": rows["loss"]})
    with pytest.raises(ReferenceUnavailable, match="has 1 rows, but its index says 925"):
        load_trace(SMALLEST, tmp_path)


def test_bounds_do_not_depend_on_the_size_of_a_tensor(rows: dict[str, np.ndarray]) -> None:
    trace = replace(as_recorded(rows), rows={"loss": np.array([1e9, 1, 1, 1] + [1] * 8)})
    measured = {"loss": np.array([1e9, 1, 1 + 1e-6, 1] + [1] * 8)}
    assert recorded.compare(measured, trace)[0]["passes"] is False
