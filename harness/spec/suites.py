"""Suites: named sets of cells; and the grid that DVC expands, generated from the default suite."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from harness.base import config
from harness.base.errors import UserError, lookup
from harness.base.files import PACKAGE, read_yaml, sha256_json, shown, write_json, write_text
from harness.spec.entries import Entry, parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipe_layers import has_recipe
from harness.spec.recipes import Cell, resolve
from harness.spec.registry import available_methods, get_plugin
from harness.splits.split_names import parse_split_name
from harness.splits.store import module_name

if TYPE_CHECKING:
    from harness.api import Stage

SUITES_FILE = PACKAGE / "suites.yaml"
GRID_FILE = PACKAGE / "grid.yaml"
RESULTS = Path("results")
RUNS, RECORDS, SPLITS, RECIPES = (RESULTS / name for name in ("runs", "records", "splits", "recipes"))
PARTS = ("splits", "train", "finetune", "evaluate")  # of the grid
Resolve = Callable[[Entry, str], Cell]


@dataclass(frozen=True)
class Suite:
    """Splits x entries x seeds, as `suites.yaml` writes it.

    Attributes:
        entries: one a line, or several in brackets, which are a group.
        without: methods that `*` leaves out.
        order: how a campaign goes through them: so that one cell after the other is complete; or `listed`, group by
            group, and within a group seed by seed.
    """

    splits: list[str]
    entries: list[str | list[str]]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    order: Literal["cells", "listed"] = "cells"
    without: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different whole numbers of at least 0, found {self.seeds}")
        if twice := [name for name in self.splits if self.splits.count(name) > 1]:
            raise ValueError(f"splits: '{twice[0]}' stands twice")

    @property
    def groups(self) -> list[list[str]]:
        """The entries by group; one that stands alone is a group of its own."""
        return [[item] if isinstance(item, str) else item for item in self.entries]


def read_suites() -> dict[str, Suite]:
    """All suites, by name, checked."""
    where = shown(SUITES_FILE)
    return {
        name: config.build(Suite, value or {}, f"{where}: {name}") for name, value in read_yaml(SUITES_FILE).items()
    }


def get_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        UserError: there is none.
    """
    return lookup("suite", name, read_suites(), where=shown(SUITES_FILE))


def entries_for(suite: Suite, dataset: str) -> dict[Entry, int]:
    """The suite's entries that have a recipe for the data set, with their group.

    `*` stands for each method found, but for those in `without`.

    A method whose recipes cannot be read counts as one that has a recipe: it becomes a failed row, not a hole.
    """
    where = shown(SUITES_FILE)
    found: dict[Entry, int] = {}
    for group, texts in enumerate(suite.groups):
        for text in texts:
            if text.startswith("*@"):
                track = parse_entry(f"{available_methods()[0]}@{text[2:]}", where=where).track
                entries = [Entry(name, "", track) for name in available_methods() if name not in suite.without]
                entries = [entry for entry in entries if _may_run(entry, dataset)]
            else:
                entries = [parse_entry(text, where=where)]
            found |= {entry: group for entry in entries if entry not in found}
    return found


def members(name: str) -> Callable[[str, str, str], bool]:
    """Tells of a record's split, data set and entry whether it is of the suite of that name.

    Raises:
        UserError: there is no such suite.
    """
    suite = get_suite(name)
    entries = functools.cache(lambda dataset: {str(entry) for entry in entries_for(suite, dataset)})
    return lambda split, dataset, entry: split in suite.splits and entry in entries(dataset)


def _may_run(entry: Entry, dataset: str) -> bool:
    try:
        return has_recipe(entry, dataset)
    except UserError:
        return True


def _key(split: str, entry: Entry) -> str:
    """Name of a cell's DVC stages."""
    return f"{split}.{str(entry).replace('@', '.')}"


def _folder(split: str, entry: Entry, stage: Stage) -> str:
    """Where a stage's results lie."""
    return (RUNS / split / entry.path / stage).as_posix()


def _cells(suite: Suite, dataset: str, resolve: Resolve) -> dict[Entry, Cell | None]:
    """The suite's cells on a data set; None for one that cannot be resolved."""
    found: dict[Entry, Cell | None] = {}
    for entry in entries_for(suite, dataset):
        try:
            found[entry] = resolve(entry, dataset)
        except UserError as error:
            print(f"will fail: {error}", file=sys.stderr)
            found[entry] = None
    return found


def _owner(cell: Cell, others: Iterable[Cell | None]) -> Entry:
    """The entry whose first stage is this cell's: the plain method's own if that is among them."""
    identity = sha256_json(cell.first_stage_identity())
    same = [other for other in others if other and sha256_json(other.first_stage_identity()) == identity]
    plain = [other for other in same if other.entry.method == cell.first_stage.name and not other.entry.variant]
    return (plain or same)[0].entry


def grid() -> dict[str, Any]:
    """What `dvc.yaml` expands: the default suite's splits, and one item for each stage of each cell.

    A second stage uses the folder of an equal first stage, wherever one is. A cell of one stage that shares its first
    one has a second DVC stage all the same: it takes the first one's results over.
    """
    return _grid("default", resolve)[0]


def _grid(name: str, resolve: Resolve) -> tuple[dict[str, Any], list[str]]:
    """The grid, and the keys of its cells that cannot be resolved (a method does not import, a recipe has a mistake).

    They stay in the grid: their train stage will record the reason.
    """
    suite, broken = get_suite(name), list[str]()
    result: dict[str, Any] = {"suite": name, **{part: {} for part in PARTS}}
    for split in suite.splits:
        parsed = parse_split_name(split, where=shown(SUITES_FILE))
        if str(parsed) != split:  # a path (`folder:...`), which a shell would read in its own way
            raise UserError(f"{shown(SUITES_FILE)}: split '{split}' of suite '{name}': write it as {parsed}")
        result["splits"][split] = {"dataset": parsed.dataset, "module": module_name(parsed.dataset)}
        common = {"split": split, "dataset": parsed.dataset, "seeds": ",".join(map(str, suite.seeds))}
        cells = _cells(suite, parsed.dataset, resolve)
        for entry, cell in cells.items():
            key, own = _key(split, entry), common | {"entry": str(entry)}
            owner = _owner(cell, cells.values()) if cell else entry
            first = last = _folder(split, owner, "train")
            recipe = recipe_file(split, owner, "train").as_posix()
            result["train"][_key(split, owner)] = common | {"entry": str(owner), "recipe": recipe, "out": first}
            if cell and ("finetune" in cell.stages or owner != entry):
                last = _folder(split, entry, "finetune")
                recipe = recipe_file(split, entry, "finetune").as_posix()
                result["finetune"][key] = own | {"recipe": recipe, "first": first, "out": last}
            out = (RECORDS / split / entry.path).as_posix()
            result["evaluate"][key] = own | {"first": first, "last": last, "out": out}
            broken += [] if cell else [key]
    return result, broken


def grid_text() -> str:
    """The grid file's content."""
    head = "# Generated by `ltbench grid` from harness/suites.yaml and the methods found; do not edit.\n"
    return head + yaml.safe_dump(grid(), sort_keys=False, width=200)


def write_grid() -> bool:
    """Writes the grid file; returns whether it changed."""
    text = grid_text()
    if GRID_FILE.is_file() and GRID_FILE.read_text(encoding="utf-8") == text:
        return False
    write_text(GRID_FILE, text)
    return True


def check_grid(name: str, resolve: Resolve = resolve) -> None:
    """Compares the committed grid with the one that would be generated now.

    A cell that cannot be resolved counts as unchanged: its stages record why, and hold nothing else up.

    Raises:
        UserError: they differ, so DVC would leave out a stage, or run one that no recipe has any more.
    """
    there, (now, broken) = read_grid(name), _grid(name, resolve)
    for key in (key for key in broken if key in there["evaluate"]):
        for part in ("train", "finetune", "evaluate"):
            now[part].pop(key, None)
            now[part] |= {key: there[part][key]} if key in there[part] else {}
    found = [(part, key) for part in PARTS for key in {**now[part], **there[part]}]
    different = [f"{part}@{key}" for part, key in found if now[part].get(key) != there[part].get(key)]
    if different:
        more = f" and {len(different) - 1} more" if different[1:] else ""
        raise _stale(f"differs from suites and recipes in {different[0]}{more}")


def check_cell(cell: Cell, split: str, out: Path) -> None:
    """Before a stage writes to `results/runs`: does the grid have the same stages as the cell's recipe?

    It compares this cell only, so it costs milliseconds. Runs into other folders are not the pipeline's.

    Raises:
        UserError: the grid has other stages, so one stage alone would be scored as the method.
    """
    if not lies_in(out, RUNS):
        return
    item = read_grid("default")["evaluate"].get(_key(split, cell.entry))
    if item is None:  # DVC has no stage for it
        return
    shares = item["first"] != _folder(split, cell.entry, "train")
    if (item["last"] != item["first"]) != (shares or "finetune" in cell.stages):
        raise _stale(f"{cell.entry} on {split} has {' and '.join(cell.stages)} in its recipe, other stages here")


def _stale(what: str) -> UserError:
    return UserError(f"{shown(GRID_FILE)}: stale ({what}); to make it anew: ltbench grid")


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, both as seen from the working folder."""
    return path.resolve().is_relative_to(folder.resolve())


# ---- frozen recipes: what the training stages depend on in DVC -----------------------------------------------------


def recipe_file(split: str, entry: Entry, stage: Stage) -> Path:
    """Where the frozen recipe of a cell's stage lies."""
    return RECIPES / split / entry.path.with_name(f"{entry.path.name}.{stage}.json")


def write_recipes(name: str, out: Path = RECIPES) -> list[Path]:
    """Freezes the recipe and code version of each stage of a suite's grid.

    A stage reruns in DVC when its frozen file changes: a comment in a recipe, or an edit to another method or data
    set, changes nothing. A cell that cannot be resolved (its method no longer imports, say) gets a file that says so;
    its own stages then fail and become rows, and nothing else is held up.

    Raises:
        UserError: the grid is not what would be generated now.
    """
    paths, items, once = [], read_grid(name), functools.cache(resolve)
    check_grid(name, once)
    for stage in ("train", "finetune"):
        for item in items[stage].values():
            path = out / Path(item["recipe"]).relative_to(RECIPES)
            write_json(path, _frozen(item, stage, once))
            paths.append(path)
    return paths


def _frozen(item: dict[str, Any], stage: Stage, resolve: Resolve) -> dict[str, Any]:
    try:
        cell = resolve(parse_entry(item["entry"]), item["dataset"])
    except UserError as error:
        return {"entry": item["entry"], "error": str(error)}
    method = cell.first_stage if stage == "train" else cell.method
    recipe = cell.first_stage_identity() if stage == "train" else cell.recipe.as_dict()
    return {
        "entry": item["entry"],
        "stage": stage,
        "seeds": item["seeds"],
        "recipe": recipe,
        "code": code_version(get_plugin(method.name).folder),
    }


def read_grid(name: str) -> dict[str, Any]:
    """The committed grid.

    Raises:
        UserError: missing, no such suite, or of another one.
    """
    if not GRID_FILE.is_file():
        raise UserError(f"{shown(GRID_FILE)}: missing; to make it: ltbench grid")
    value = read_yaml(GRID_FILE)
    if value.get("suite") != name:
        hint = "to make it anew: ltbench grid"
        if name != "default":
            get_suite(name)
            hint = f"`ltbench campaign {name} --budget SECONDS` tries what failed there again"
        raise UserError(f"{shown(GRID_FILE)}: the pipeline is of suite '{value.get('suite')}', not of '{name}'; {hint}")
    if not all(isinstance(value.get(part), dict) for part in PARTS):
        raise UserError(f"{shown(GRID_FILE)}: {', '.join(PARTS)} expected; to make it anew: ltbench grid")
    return value


MOST_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` or `0-2` as numbers.

    Raises:
        UserError: not a list of different whole numbers of at least 0.
    """
    seeds: list[int] = []
    parts = [re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII) for part in text.split(",")]
    spans = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    for first, last in spans:
        seeds += range(first, min(last, first + MOST_SEEDS) + 1)
    if (
        not all(parts)
        or any(first > last for first, last in spans)
        or len(set(seeds)) < len(seeds)
        or len(seeds) > MOST_SEEDS
    ):
        raise UserError(f"--seeds {text}: expected different whole numbers, e.g. 0,1,2 or 0-2 (at most {MOST_SEEDS})")
    return seeds


def failed_cells(name: str, records: Sequence[tuple[Path, Any]]) -> list[tuple[str, str]]:
    """(DVC stage to force, reason) for each cell of the suite's grid that has a failed record."""
    items, found = read_grid(name), {}
    for path, record in records:
        if record.status != "failed":
            continue
        key = next((k for k, item in items["evaluate"].items() if Path(item["out"]) == path.parent), None)
        if key is None:
            continue
        first = str(record.failure.reason).startswith("first stage") or key not in items["finetune"]
        owner = next(k for k, item in items["train"].items() if item["out"] == items["evaluate"][key]["first"])
        found[f"train@{owner}" if first else f"finetune@{key}"] = f"seed {record.seed}: {record.failure.reason}"
    return sorted(found.items())
