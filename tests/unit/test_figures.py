"""Figures: what they draw, that nothing is too small to read, and that their bytes are stable."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from comparison import figures, products
from comparison.build import draw
from comparison.study import Study
from reproduction import CLASSIFICATION
from tests import synthetic

COLUMN_IN, PAGE_IN = 3.33, 6.94
SMALLEST_PT = 7


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


@pytest.fixture(autouse=True)
def closed() -> object:
    """Leave no figure open."""
    yield
    plt.close("all")


def drawn(name: str, study: Study) -> Figure:
    """Draw a figure from good records."""
    made = draw(name, study, synthetic.all_records())
    assert made is not None
    return made[0]


@pytest.mark.parametrize("name", products.FIGURES)
def test_figures_fit_the_page_and_can_be_read(name: str, study: Study) -> None:
    figure = drawn(name, study)
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    assert width == pytest.approx(PAGE_IN if name == "network" else COLUMN_IN)
    assert height < 4
    shown = [text for text in figure.findobj(Text) if text.get_text().strip()]
    assert min(text.get_fontsize() for text in shown) >= SMALLEST_PT
    used = [figure.get_tightbbox(), *(_inches(text) for axes in figure.axes for text in axes.texts)]
    slack = 0.02
    for box in used:
        assert -slack <= box.x0 and box.x1 <= width + slack
        assert -slack <= box.y0 and box.y1 <= height + slack


def _inches(text: Text) -> Bbox:
    """Return where a text stands on the page."""
    assert text.figure is not None
    return text.get_window_extent().transformed(text.figure.dpi_scale_trans.inverted())


@pytest.mark.parametrize("name", products.FIGURES)
def test_without_records_nothing_is_drawn_but_the_network(name: str, study: Study) -> None:
    assert (draw(name, study, []) is None) is (name != "network")


@pytest.mark.parametrize("name", products.FIGURES)
def test_saved_bytes_are_stable_and_name_their_records(
    name: str, study: Study, tmp_path: Path
) -> None:
    records = synthetic.all_records()
    saved = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        made = draw(name, study, records)
        assert made is not None
        paths = figures.save(made[0], folder, name, made[1])
        saved.append([path.read_bytes() for path in paths])
    assert saved[0] == saved[1]
    svg, png = saved[0]
    for record in made[1]:
        assert f"{record['case']}/{record['run_id']}".encode() in svg
        assert record["provenance"]["commit"][:12].encode() in svg
    assert (b"runs: " in png) is bool(made[1])
    assert b"<dc:date>" not in svg
    assert re.search(rb'id="p[0-9a-f]{10}"', svg) or name == "network"


def test_arms_keep_their_colors_and_differ_without_color() -> None:
    """Gray, blue, orange; apart by marker, and apart in lightness on a gray printer."""
    assert list(figures.COLORS) == ["paper", "reference", "reproduction"]
    assert len(set(figures.MARKERS.values())) == 3
    lightness = []
    for color in (figures.COLORS["reference"], figures.COLORS["reproduction"]):
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        lightness.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    assert abs(lightness[0] - lightness[1]) > 40


def test_error_by_layer_shows_every_layer_below_the_bound() -> None:
    record = synthetic.equivalence()
    axes = figures.error_by_layer(record).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    values = lines["outputs"].get_ydata()
    assert list(values) == [row["forward_eval"] for row in record["tables"]["layers"]]
    (equal,) = set(lines["gradients of weights"].get_ydata())
    assert equal < 1e-16
    assert numpy.isnan(lines["gradients, rewritten"].get_ydata()[0])


def test_the_noise_floor_counts_every_tensor_once() -> None:
    axes = figures.noise_floor(synthetic.equivalence()).axes[0]
    deviation, eval_noise, *_ = [patch.get_data().values for patch in axes.patches[1:]]
    assert list(deviation[:4]) == [50, 0, 0, 10]  # equal bits, then 1e-17, 1e-16, 1e-15
    assert sum(eval_noise) == 30
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [-12]


def test_divergence_marks_the_horizon_where_rounding_has_grown() -> None:
    top, bottom = figures.divergence(synthetic.equivalence()).axes
    lines = {line.get_label(): line for line in bottom.get_lines()}
    assert list(lines["horizon"].get_xdata()) == [2.5, 2.5]
    assert list(lines["reference, rewritten"].get_ydata()) == [1e-12, 1e-8, 1e-4]
    assert set(lines["reproduction"].get_ydata()) == {1e-18}
    assert list(top.get_lines()[0].get_ydata()) == [2e-15] * 3


def test_without_a_lost_step_there_is_no_horizon_to_mark() -> None:
    record = synthetic.equivalence()
    record["tables"]["trajectory"] = record["tables"]["trajectory"][:5]
    _, bottom = figures.divergence(record).axes
    assert "horizon" not in {line.get_label() for line in bottom.get_lines()}


def test_the_longest_run_of_steps_is_shown(study: Study) -> None:
    records = [synthetic.equivalence(), synthetic.equivalence(steps=9)]
    made = draw("divergence", study, records)
    assert made is not None and made[1] == [records[1]]


def test_a_notebooks_backend_is_loaded_in_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded in the style's, it would lose that it is interactive, and show one figure only."""
    usual, seen = plt.rcParams["font.family"], []
    monkeypatch.setattr(
        figures.plt, "draw_if_interactive", lambda: seen.append(plt.rcParams["font.family"])
    )
    figures.noise_floor(synthetic.equivalence())
    assert seen[:1] == [usual]


def test_training_curves_draw_every_run() -> None:
    runs = synthetic.training_runs()
    top, bottom = figures.training_curves(runs).axes
    drawn_runs = [line for line in bottom.get_lines() if len(line.get_xdata())]
    assert len(drawn_runs) == len(runs)
    ends = sorted(float(line.get_ydata()[-1]) for line in drawn_runs)
    assert ends == sorted(entry["measurements"][0]["value"] for entry in runs)
    assert [text.get_text() for text in top.get_legend().get_texts()] == list(synthetic.ARMS)


def test_accuracy_shows_difference_and_margin() -> None:
    top, bottom = figures.accuracy_intervals(synthetic.training_runs(margin=0.7)).axes
    assert [tick.get_text() for tick in top.get_yticklabels()] == list(synthetic.ARMS)
    edges = sorted(line.get_xdata()[0] for line in bottom.get_lines() if len(line.get_xdata()) == 2)
    assert (edges[0], edges[-1]) == (-0.7, 0.7)


def test_one_arm_has_no_difference_to_show() -> None:
    _, bottom = figures.accuracy_intervals(synthetic.training_runs()[:3]).axes
    assert [text.get_text() for text in bottom.texts] == ["difference: not run"]


def test_cost_is_drawn_as_printed_and_as_counted() -> None:
    networks = [synthetic.network(name) for name in synthetic.PUBLISHED]
    axes = figures.cost_accuracy(networks).axes[0]
    printed, counted = axes.get_lines()
    assert list(printed.get_xdata()) == [1.49, 3.99]
    assert list(counted.get_xdata()) == [1.4915, 3.9894]
    assert list(printed.get_ydata()) == list(counted.get_ydata()) == [72.3, 76.8]


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_diagram_has_a_slab_for_every_unit(name: str) -> None:
    config = CLASSIFICATION[name]
    figure = figures.network_diagram(config)
    axes = figure.axes[0]
    rectangles = [p for p in axes.patches if type(p).__name__ == "Rectangle"]
    units = sum(
        blocks * streams * config.residual_units
        for streams, blocks in zip((2, 3, 4), config.exchange_blocks, strict=True)
    )
    stem, head = 2, 4
    assert len(rectangles) == stem + config.stage1_blocks + units + head
    shown = " ".join(text.get_text() for text in axes.texts)
    assert all(f"{width} ch., 1/" in shown for width in config.stream_widths(4))


def test_the_png_is_not_blank(study: Study, tmp_path: Path) -> None:
    figures.save(drawn("speed", study), tmp_path, "speed", [])
    assert float(imread(tmp_path / "speed.png").std()) > 0.05
