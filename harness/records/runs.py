"""What a run was and how it ended: written by the training stages, read by evaluate. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from harness.base import config
from harness.base.files import read_json, sha256_json, stamped, unstamped, write_json
from harness.spec.entries import Entry
from harness.spec.provenance import code_version
from harness.spec.registry import get_plugin
from harness.spec.spread import ONE_PROCESS, Spread

if TYPE_CHECKING:
    from harness.api import Stage
    from harness.spec.recipes import Cell
    from harness.splits.splits import Split


Bad = Literal["failed", "skipped"]


@dataclass(frozen=True)
class Failure:
    """Why a run has no result, and where it stopped."""

    reason: str
    epoch: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class RunInfo:
    """Identity and outcome of one run: the same bytes for the same run."""

    method: str
    variant: str  # "" is the method's default
    track: str
    seed: int
    split: str
    split_sha256: str
    stages: list[str]
    recipe: dict[str, Any]  # resolved: backbone, precision, params, train, finetune
    recipe_sha256: str
    stage1_key: str  # run key of the first stage, shared by every method that starts from it
    run_key: str
    code_version: str
    status: Literal["ok", "failed", "skipped"]
    failure: Failure | None = None
    notes: tuple[str, ...] = config.later(())  # what a reader must know: images that parts share, classes not tested

    @property
    def entry(self) -> str:
        """method[-variant]@track, the name of a row."""
        return str(Entry(self.method, self.variant, self.track))

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.entry} on {self.split}, seed {self.seed}"

    def failed(self, reason: str, epoch: int | None = None, step: int | None = None, status: Bad = "failed") -> RunInfo:
        """The same run, come to this end."""
        return replace(self, status=status, failure=Failure(reason, epoch, step))

    @property
    def how_it_ended(self) -> str:
        """For messages."""
        return f"{self.status}: {self.failure.reason}" if self.failure else self.status


def stage_files(folder: Path, seed: int) -> dict[str, Path]:
    """What a finished stage leaves for a seed in a cell's folder, by the names that it has while the run goes on."""
    return {
        "run.json": folder / "predictions" / f"seed{seed}.json",  # says that the others are there
        "predictions.npz": folder / "predictions" / f"seed{seed}.npz",
        "weights.safetensors": folder / "checkpoint" / f"seed{seed}.safetensors",
        "costs.json": folder / "costs" / f"seed{seed}.json",
    }


def read_run_info(path: Path) -> RunInfo:
    """A run's identity and outcome.

    Raises:
        UserError: missing or damaged.
    """
    return config.build(RunInfo, unstamped(read_json(path, "run"), path), str(path))


def write_run_info(path: Path, info: RunInfo) -> None:
    """Writes it atomically, with a hash over its content."""
    write_json(path, stamped(config.as_dict(info)))


def run_info(
    cell: Cell,
    split: Split,
    seed: int,
    stage: Stage,
    spread: Spread = ONE_PROCESS,
    codes: Mapping[str, str] = MappingProxyType({}),
    recorded: Mapping[str, Any] | None = None,
) -> RunInfo:
    """The identity of a run up to `stage`, with its run keys; nothing is run.

    How it is spread over processes is part of it, as key `parallel` of the recipe, where that changes numbers.

    The run key is a hash over recipe, split, seed and code: a file that carries another key belongs to another run.

    Args:
        codes: code versions by method, where they are not this checkout's.
        recorded: the recipe as a record holds it, where names or defaults have changed since; keys are made from that.
    """
    first_code, own_code = (
        codes.get(method.name) or code_version(get_plugin(method.name).folder)
        for method in (cell.first_stage, cell.method)
    )
    recipe = cell.recipe.as_dict() | spread.in_recipe if recorded is None else dict(recorded)
    first = {"split": split.sha256, "seed": seed, "code": first_code, **cell.first_stage_identity()}
    first |= {"recipe": recipe["train"], **spread.in_recipe}
    first_key = sha256_json(first)[:16]
    second = {"stage1": first_key, "code": own_code, "method": cell.method.name, "recipe": recipe}
    own = stage == "train"
    return RunInfo(
        **vars(cell.entry),
        seed=seed,
        split=split.id,
        split_sha256=split.sha256,
        stages=["train"] if own else ["train", "finetune"],
        recipe=recipe,
        recipe_sha256=sha256_json(recipe),
        stage1_key=first_key,
        run_key=first_key if own else sha256_json(second)[:16],
        code_version=own_code,
        status="ok",
    )
