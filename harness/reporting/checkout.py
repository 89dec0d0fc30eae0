"""What a report takes from this checkout besides the records."""

from __future__ import annotations

from functools import cache

from harness.base.errors import UserError
from harness.reporting.drawer import RecipeValues
from harness.reporting.published import load_claims, read_published
from harness.reporting.report import Sources
from harness.reporting.speed import FOLDER
from harness.spec.entries import parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipe_layers import has_recipe
from harness.spec.recipes import resolve
from harness.spec.registry import find_plugins
from harness.weights.record import FOLDER as WEIGHTS


def sources() -> Sources:
    """Claims, descriptions and code versions of the methods found, and the benchmark files.

    Raises:
        UserError: published numbers that cannot be read.
    """
    folders = {name: plugin.folder for name, plugin in find_plugins().items()}
    current = {name: code_version(folder) for name, folder in folders.items()}
    benches, weights = sorted(FOLDER.glob("*.json")), sorted(WEIGHTS.glob("*.json"))
    claims, cards = load_claims(folders), read_published().cards
    return Sources(claims, folders, current, recipe_now, cards, benches=benches, weights=weights)


@cache
def recipe_now(entry: str, dataset: str) -> RecipeValues | None:
    """The recipe that an entry has now; None where it has none, or its method does not import."""
    try:
        parsed = parse_entry(entry)
        return resolve(parsed, dataset).recipe.as_dict() if has_recipe(parsed, dataset) else None
    except UserError:
        return None
