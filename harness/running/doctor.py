"""`ltbench doctor`: what is wrong with a data set, what to do, and what training on it would be, on one screen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.base.errors import UserError
from harness.datasets._walk import FaultsError
from harness.metrics.shots import group_sizes
from harness.reading.dataset import Dataset, ImageFiles
from harness.reading.decoding import image_size
from harness.running.cells import check_start
from harness.spec.entries import Entry
from harness.spec.recipes import Cell, resolve
from harness.splits import store
from harness.splits.notes import counted, data_notes
from harness.splits.split_names import split_of
from harness.splits.splits import Split, build_split
from harness.splits.verify import verify

ROWS = 8  # classes that are shown: the largest and the smallest of many
FAULTS = 5  # damaged files that are shown
ALL_FAULTS = 50  # other faults that are shown
LONG = 600  # seconds of a run for one seed, beyond which a way to shorten it is named
SAMPLE = 2000  # images, evenly spaced, whose headers are read for their sizes
FEW_TESTS = 10  # test images of a class, below which its accuracy moves in steps of more than ten points
SMALLER = "a smaller network (--backbone resnet18) or smaller images (--set image_size=64)"
PROBE, PATIENCE = 8, 3.0  # images of the first timed step; seconds that a step of a whole batch may take to be timed


@dataclass
class Findings:
    """What was found: lines to read, what stops a run, and what a person should know or do."""

    name: str  # of the split
    facts: list[tuple[str, str]] = field(default_factory=list)  # what, text
    stops: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What a person reads."""
        lines = [f"{what:<10}{text}" for what, text in self.facts]
        lines += [f"{'STOP':<10}{text}" for text in self.stops]
        return lines + [f"{'note':<10}{text}" for text in self.hints]


def examine(
    name: str,
    entry: Entry,
    *,
    holdout: float = 0.0,
    factor: float | None = None,
    backbone: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    quick: bool = False,
) -> Findings:
    """Looks at a data set as a run of `entry` would use it.

    Args:
        name: of the data set or split; like all that follow, as `ltbench run` takes it.
        holdout: share of each class that becomes the test part, where there is none.
        factor: imbalance factor.
        backbone: instead of the recipe's.
        overrides: `key=value` items of the recipe.
        device: where a step is timed.
        quick: of images that stay files, look only whether they are there.

    Raises:
        UserError: there is no such data set, or it cannot be taken for one.
    """
    try:
        dataset, split_name = split_of(name, imbalance_factor=factor, holdout=holdout)
    except FaultsError as error:
        more = [f"{len(error.faults) - ALL_FAULTS} more"] if error.faults[ALL_FAULTS:] else []
        return Findings(name, stops=[*error.faults[:ALL_FAULTS], *more], hints=["mend these, then look again"])
    found = Findings(split_name, [("data set", f"{dataset.name}: {dataset.title}")])
    found.hints += dataset.passed_over
    cell = _look_at_recipe(dataset, entry, overrides, backbone, found)
    if not store.is_here(dataset):
        found.hints.append(f"nothing of it is here yet; to look at it, first: {store.bringing_command(dataset)}")
        return found
    split = _look_at_split(dataset, split_name, found) if _look_at_files(dataset, found, quick) else None
    if split and cell:
        _look_at_training(dataset, split, cell, device, found)
    return found


def _look_at_recipe(
    dataset: Dataset, entry: Entry, overrides: Sequence[str], backbone: str | None, found: Findings
) -> Cell | None:
    try:
        cell = resolve(entry, dataset.name, overrides, backbone)
        check_start(cell, dataset)
    except UserError as error:
        found.stops.append(str(error))
        return None
    return cell


def _look_at_files(dataset: Dataset, found: Findings, quick: bool) -> bool:
    """Whether all of them can be read."""
    report = verify(dataset, quick=quick)
    found.facts.append(("images", ", ".join(f"{count} {part}" for part, count in report.images.items()) or "none"))
    for kind, faults in (("missing", report.missing), ("damaged", report.damaged)):
        found.stops += [f"{kind}: {fault}" for fault in faults[:FAULTS]]
        if faults[FAULTS:]:
            found.stops.append(f"{kind}: {len(faults) - FAULTS} more; all of them: ltbench verify {dataset.name}")
    readable = not (report.missing or report.damaged)
    if not readable:
        found.hints.append("mend or remove what is missing or damaged, then look again")
    found.hints += [f"in more than one class: {files}; remove it from all but the right one" for files in report.torn]
    if report.duplicates_in_train:
        found.hints.append(
            f"training images that are copies of others: {report.duplicates_in_train}; each counts on its own"
        )
    if dataset.listed is not None:
        _look_at_own(dataset, dataset.listed()["train"], found)
    return readable


def _look_at_own(dataset: Dataset, train: ImageFiles, found: Findings) -> None:
    sizes = [image_size(train.place(i)) for i in range(0, len(train.names), -(-len(train.names) // SAMPLE))]
    sides = sorted(min(size) for size in sizes if size)
    target = dataset.image_shape[0]
    if sides:
        text = f"short sides {sides[0]} to {sides[-1]} pixels, median {statistics.median(sides):g}; used at {target}"
        found.facts.append(("sizes", text))
    if small := sum(side < target for side in sides):
        looked = f"{small} of {len(sides)} training images"
        found.hints.append(f"{looked} have a short side below {target} pixels and are enlarged")


def _look_at_split(dataset: Dataset, name: str, found: Findings) -> Split | None:
    try:
        split = build_split(name, store.find(dataset), store.load(dataset))
    except UserError as error:
        found.stops.append(str(error))
        return None
    counts, tests = split.class_counts, split.test.class_counts
    found.facts.append(("split", f"{name}: {sum(counts)} training images, {max(counts)} to {min(counts)} of a class"))
    found.facts += _class_table(split)
    groups = ", ".join(f"{size} {group}" for group, size in group_sizes(counts).items())
    found.facts.append(("groups", f"{groups} (classes with more than 100, 20 to 100, fewer than 20 training images)"))
    found.hints += data_notes(split, dataset)
    if 0 < (fewest := min((n for n in tests if n), default=0)) < FEW_TESTS:
        found.hints.append(
            f"{counted(fewest, 'test image')} of a class: its accuracy moves in steps of {100 / fewest:.0f} points"
        )
    if name == dataset.name and dataset.listed is not None and max(counts) < 2 * min(counts):
        found.hints.append("the classes are about equal; to make them long-tailed: --imbalance-factor 10")
    if not sum(split.val.class_counts):
        found.hints.append("no validation part: there will be no best_val, the last epoch counts")
    return split


def _class_table(split: Split) -> Iterator[tuple[str, str]]:
    order = sorted(range(split.num_classes), key=lambda c: -split.class_counts[c])
    shown = order if len(order) <= ROWS else [*order[: ROWS // 2], -1, *order[-(ROWS // 2) :]]
    width = max(len(split.class_names[c]) for c in shown if c >= 0)
    for c in shown:
        counts = [part[c] for part in (split.class_counts, split.val.class_counts, split.test.class_counts)]
        text = f"{split.class_names[c]:<{width}}  {counts[0]:>6} train {counts[1]:>5} val {counts[2]:>5} test"
        yield "" if c != order[0] else "classes", text if c >= 0 else f"... {len(order) - len(shown) + 1} more"


def _look_at_training(dataset: Dataset, split: Split, cell: Cell, device: str, found: Findings) -> None:
    from torch import OutOfMemoryError

    try:
        seconds, whole = seconds_a_step(cell, split, device)
    except UserError as error:
        found.stops.append(str(error))
        return
    except OutOfMemoryError:
        size = cell.recipe.train.batch_size
        fewer = f"smaller batches (--set batch_size={max(size // 2, 1)})"
        found.stops.append(f"a batch of {size} does not fit into the device's memory; take {fewer}, {SMALLER}")
        return
    count, recipe, total = sum(split.class_counts), cell.recipe, 0.0
    side, _, _ = cell.recipe.shape_of(split.image_shape)
    used = f"{recipe.backbone}, {side} x {side} pixels, batches of {recipe.train.batch_size}"
    found.facts.append(("recipe", f"{cell.entry} of {dataset.recipes_of or dataset.name}: {used}"))
    found.facts.append(("a step", f"{'' if whole else 'about '}{seconds:.2g} s without reading images"))
    for what, given in (("stage 1", recipe.train), ("stage 2", recipe.finetune)):
        if given:
            stage = given.for_images(count)
            steps = len(stage.batches(count))
            lasts = seconds * steps * stage.epochs * stage.batch_size / recipe.train.batch_size
            most = "at most " if given is recipe.finetune else ""  # as if it tuned the whole network
            length = f"{steps} steps an epoch, {stage.epochs} epochs"
            found.facts.append((what, f"{length}: {most}{duration(lasts)} a seed"))
            total += lasts
    if total > LONG:
        both = "epochs=5" + (" --set finetune.epochs=5" if recipe.finetune else "")
        found.hints.append(f"to shorten a run: --set {both}, {SMALLER}")


def seconds_a_step(cell: Cell, split: Split, device: str) -> tuple[float, bool]:
    """Seconds that a training step of the backbone takes here, and whether a whole batch was timed.

    Where that would take long, a few images are, and the time is multiplied.
    """
    from torch import nn, optim, rand

    from harness.engine.backbones import create_backbone
    from harness.engine.device import pick_device

    place, shape = pick_device(device), cell.recipe.shape_of(split.image_shape)
    network, width = create_backbone(cell.recipe.backbone, shape)
    model = nn.Sequential(network, nn.Linear(width, split.num_classes)).to(place)
    optimiser = optim.SGD(model.parameters(), lr=0.0)

    def timed(count: int) -> float:
        images = rand(count, shape[2], *shape[:2], device=place)
        started = time.monotonic()
        optimiser.zero_grad()
        loss = model(images).logsumexp(1).mean()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        return time.monotonic() - started

    size = min(cell.recipe.train.batch_size, max(2, sum(split.class_counts)))
    few = min(PROBE, size)
    probe = min(timed(few) for _ in range(2))  # the first one warms up
    if probe * size / few > PATIENCE:
        return probe * size / few, False
    return min(timed(size) for _ in range(2)), True


def duration(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.3g} {unit}"
    return f"about {seconds:.3g} s"
