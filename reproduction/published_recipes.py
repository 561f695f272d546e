"""The published recipes as data: each value of `published_recipes.toml` with its source.

They are what the official files train and test with; `reproduction.recipe.Recipe` is the part of
one that the training loop needs, made by `PublishedRecipe.training`.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reproduction.errors import UserError
from reproduction.recipe import Recipe

FILE = Path(__file__).with_name("published_recipes.toml")
FIELDS = {"task", "data", "networks", "values"}
OPTIONAL = {"based_on", "official_file"}
A_FILE = re.compile(r"\b(yaml|files?)\b")  # in the words of a source
# What every recipe has to say, whatever its task.
REQUIRED = {
    *("optimizer", "learning_rate", "weight_decay", "schedule", "epochs", "batch_per_gpu", "gpus"),
    *("sync_norm", "input_wh", "flip_share", "loss", "start"),
}


@dataclass(frozen=True)
class Cited:
    """A value and where it comes from; "yaml SECTION.KEY" is an entry of the official file."""

    value: Any
    source: str


@dataclass(frozen=True)
class PublishedRecipe:
    """One recipe.

    Attributes:
        name: Its key in the file.
        task: As in `NetworkConfig.task`.
        data: A key of `reproduction.tasks.trees.TREES`, ``image_folder`` or ``cocostuff``.
        networks: What is trained by it, by official name.
        entries: Values by name.
    """

    name: str
    task: str
    data: str
    networks: tuple[str, ...]
    entries: Mapping[str, Cited]

    def __getitem__(self, key: str) -> Any:
        """Return the value of an entry.

        Raises:
            UserError: The recipe has no such entry.
        """
        if key not in self.entries:
            raise UserError(
                f"recipe {self.name} has no {key!r}; it has {', '.join(sorted(self.entries))}"
            )
        return self.entries[key].value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of an entry, or the default if the recipe has none."""
        return self[key] if key in self.entries else default

    @property
    def batch_size(self) -> int:
        """Images a step, over all GPUs."""
        return self["batch_per_gpu"] * self["gpus"]

    def training(self) -> Recipe:
        """Return what the training loop needs.

        >>> published_recipe("pose_coco").training().batch_size
        128
        """
        epochs = self["epochs"]
        return Recipe(
            optimizer=self["optimizer"],
            learning_rate=self["learning_rate"],
            momentum=self.get("momentum", 0.0),
            nesterov=self.get("nesterov", False),
            weight_decay=self["weight_decay"],
            batch_size=self.batch_size,
            epochs=epochs,
            schedule=self["schedule"],
            milestones=tuple(epoch / epochs for epoch in self.get("milestone_epochs", ())),
            gamma=self.get("gamma", 0.1),
            power=self.get("power", 0.9),
            head_rate_factor=self.get("head_rate_factor", 1.0),
            sync_norm=self["sync_norm"],
            source=f"published recipe {self.name}",
        )


@cache
def published_recipes(path: Path = FILE) -> dict[str, PublishedRecipe]:
    """Return all recipes by name.

    Raises:
        UserError: The file is not as expected.
    """
    tables = _tables(path)
    sections = {key: name for name, keys in tables.pop("sections", {}).items() for key in keys}
    tables.pop("fixed", None)
    return {name: _recipe(name, tables, sections) for name in tables}


def fixed_values(path: Path = FILE) -> dict[str, dict[str, str]]:
    """Return what no code reads: by task, by the name of the value, the reason.

    >>> fixed_values()["pose"]["heatmap_wh"]
    'networks put out a quarter of input_wh'
    """
    found: dict[str, dict[str, str]] = {}
    for group in _tables(path)["fixed"]:
        for task in group["tasks"]:
            found.setdefault(task, {}).update(dict.fromkeys(group["keys"], group["reason"]))
    return found


def _tables(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _recipe(name: str, tables: dict[str, Any], sections: Mapping[str, str]) -> PublishedRecipe:
    table = _resolved(name, tables, ())
    unknown = FIELDS ^ (set(table) - OPTIONAL)
    if unknown:
        raise UserError(f"recipe {name} has or lacks {', '.join(sorted(unknown))}")
    own, entries = tables[name].get("values", {}), {}
    for key, entry in table["values"].items():
        if not isinstance(entry, dict) or set(entry) != {"value", "source"} or not entry["source"]:
            raise UserError(f"{key} of recipe {name} is {entry!r}; give a value and its source")
        value, source = entry["value"], entry["source"]
        if key not in own and not table.get("official_file", True) and A_FILE.search(source):
            if key not in sections:
                raise UserError(
                    f"{key} of recipe {name} is taken over with the source {source!r}, a file of "
                    "another recipe; say under [sections] which section it is in"
                )
            source = sections[key]
        entries[key] = Cited(tuple(value) if isinstance(value, list) else value, source)
    if REQUIRED - set(entries):
        raise UserError(f"recipe {name} lacks {', '.join(sorted(REQUIRED - set(entries)))}")
    networks = tuple(table["networks"])
    return PublishedRecipe(name, table["task"], table["data"], networks, entries)


def _resolved(name: str, tables: dict[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    """Return a recipe's table with what it takes over from the one that it is based on."""
    if name not in tables or name in seen:
        raise UserError(f"recipe {(seen or ('',))[-1]} is based on {name}, unknown or in a circle")
    own = tables[name]
    if "based_on" not in own:
        return own
    base = _resolved(own["based_on"], tables, (*seen, name))
    return {**base, **own, "values": {**base["values"], **own.get("values", {})}}


def published_recipe(name: str) -> PublishedRecipe:
    """Look a recipe up by its name, or by that of a network that is trained by it.

    Raises:
        UserError: There is no such recipe.

    >>> published_recipe("seg_hrnet_ocr_w48_lip").name
    'ocr_lip'
    """
    recipes = published_recipes()
    of_network = {network: recipe for recipe in recipes.values() for network in recipe.networks}
    found = recipes.get(name) or of_network.get(name)
    if found is None:
        raise UserError(
            f"no recipe or network is called {name!r}; recipes are {', '.join(recipes)}"
        )
    return found


def recipe_for(network: str, name: str = "") -> PublishedRecipe:
    """Return a network's own recipe, or another one that fits it.

    A recipe fits a network if it is for the same task and data as the network's own, and resizes
    logits alike.

    Args:
        network: By official name.
        name: Of a recipe; the network's own if empty.

    Raises:
        UserError: The recipe does not exist or does not fit.

    >>> recipe_for("seg_hrnet_w48_cityscapes", "seg_cityscapes_ohem")["ohem"]
    True
    """
    own, recipes = published_recipe(network), published_recipes()
    if not name:
        return own

    def rule(recipe: PublishedRecipe) -> tuple[Any, ...]:
        return recipe.task, recipe.data, recipe.get("align_corners")

    fitting = [other for other, recipe in recipes.items() if rule(recipe) == rule(own)]
    if name not in fitting:
        raise UserError(
            f"recipe {name!r} {'does not fit' if name in recipes else 'is unknown to'} {network}, "
            f"a network for {own.task} on {own.data}; those that fit are {', '.join(fitting)}"
        )
    return recipes[name]
