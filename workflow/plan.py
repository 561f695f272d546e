"""What training on ImageNet and COCO would cost: an estimate, from published figures.

    hours = epochs x samples / throughput / 3600
    throughput(network) = throughput(body) x MACs(body at 224) / MACs(network at its training size)

Epochs are the published recipe's, samples and throughput those of `workflow/throughput.toml`, MACs
those of the committed study. The body is the classification network of the same width. Left out are
evaluation, reading and decoding, and what a slower or faster GPU, or float32, changes.

`python -m workflow.plan` prints the table; `--save FILE` writes it.
"""

import argparse
import csv
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from comparison.study import ROOT
from reproduction.durable import whole
from reproduction.published_recipes import PublishedRecipe, published_recipes

FIGURES = Path(__file__).with_name("throughput.toml")
TABLES = ROOT / "results" / "standard" / "tables"
DATA = ("image_folder", "coco")
COLUMNS = ("recipe", "network", "epochs", "samples", "gmacs", "images_per_s", "gpu_hours", "basis")
GIB = 2**30 / 1e9  # published figures count in units of 2^30


def gmacs() -> dict[str, float]:
    """Return the cost of each network, in 10^9 multiply-accumulates, as the study counted it."""
    found: dict[str, float] = {}
    for name, quantity in (("cost", "published_gflops"), ("dense_cost", "gflops")):
        with (TABLES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["quantity"] == quantity:
                    found[row["network"]] = float(row["reproduction"]) * GIB
    return found


def plan() -> list[dict[str, Any]]:
    """Return a row for every network of a recipe on ImageNet or COCO whose cost is on record."""
    with FIGURES.open("rb") as file:
        figures = tomllib.load(file)
    cost = gmacs()
    return [
        _row(recipe, network, figures, cost)
        for recipe in published_recipes().values()
        if recipe.data in DATA
        for network in recipe.networks
        if network in cost
    ]


def _row(
    recipe: PublishedRecipe, network: str, figures: dict[str, Any], cost: dict[str, float]
) -> dict[str, Any]:
    data = "coco_images" if recipe.task == "detection" else recipe.data
    samples, epochs = figures["samples"][data]["value"], recipe["epochs"]
    body = network
    if recipe.task != "classification":
        width = next(word for word in network.split("_") if word.startswith("w"))
        body = f"cls_hrnet_{width}"
    rate = figures["throughput"][body] * cost[body] / cost[network]
    values = (
        *(recipe.name, network, epochs, samples, round(cost[network], 2), round(rate, 1)),
        round(epochs * samples / rate / 3600, 1),
        "measured by others" if body == network else f"scaled from {body} by MACs",
    )
    return dict(zip(COLUMNS, values, strict=True))


def page_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of the page's table."""
    columns = ("recipe", "network", "epochs", "gmacs", "images_per_s", "gpu_hours")
    return [[str(row[column]) for column in columns] for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(prog="python -m workflow.plan", description=__doc__)
    parser.add_argument("--save", type=csv_file, help="a CSV file")
    options = parser.parse_args(argv)
    rows = plan()
    if options.save is None:
        for row in rows:
            print(*row.values(), sep="  ")
        return 0
    save_rows(options.save, COLUMNS, rows)
    return 0


def save_rows(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table as CSV, whole or not at all."""
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def csv_file(name: str) -> Path:
    """Read the name of a file to write; its folder must be there (for `argparse`)."""
    path = Path(name)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name} has no folder: give one that exists")
    return path


if __name__ == "__main__":
    sys.exit(main())
