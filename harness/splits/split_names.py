"""Names of splits. A name says everything about how a split is drawn, and each split has one name.

- `<data set>-lt-if<factor>`: the exponential profile and the subset rule `hash:0`;
- with `-step` or `-zipf` behind it another profile, then with `-hash<k>`, `-numpy0` or `-first_n` another rule;
- `...-pool-hash<k>`: re-drawn by `hash:<k>` within the images that the data set's pool archive has;
- `<data set>`: all of a training set that is long-tailed as it is;
- `<data set>-cut<factor>`: the exponential profile of a data set whose own name ends with `-lt`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import UserError
from harness.reading.dataset import Dataset
from harness.splits import store

FORM = "<data set>-lt-if<factor>, e.g. mnist5k-lt-if100"
_NAME = re.compile(
    r"(?P<dataset>(?:folder|list):.+?|[a-z0-9_-]+?)(?P<join>-lt-if|-cut)(?P<factor>[0-9]+(?:\.[0-9]+)?)"
    r"(?:-(?P<profile>step|zipf))?(?:-(?P<rule>(?:pool-)?hash(?:0|[1-9][0-9]*)|numpy0|first_n))?",
    re.DOTALL,
)
_PATHS = ("folder:", "list:")


@dataclass(frozen=True)
class SplitName:
    """A split's name, read into its parts."""

    dataset: str
    imbalance_factor: float | None  # None: the training set as it is
    profile: str = "exponential"
    rule: str = "hash:0"  # or numpy0, first_n, pool-hash:<k>

    def __str__(self) -> str:
        if self.imbalance_factor is None:
            return self.dataset
        join = "-cut" if self.dataset.endswith("-lt") else "-lt-if"
        parts = [f"{self.dataset}{join}{repr(self.imbalance_factor).removesuffix('.0')}"]
        parts += [self.profile] if self.profile != "exponential" else []
        parts += [self.rule.replace(":", "")] if self.rule != "hash:0" else []
        return "-".join(parts)

    @property
    def seed(self) -> int:
        """The k of `hash:<k>`; 0 for rules without one."""
        return int(self.rule.partition("hash:")[2] or 0)


def name_split(dataset: Dataset, imbalance_factor: float | None) -> SplitName:
    """The split that `ltbench run` takes: for the given factor, or what is usual for the data set without one."""
    if imbalance_factor is None and not dataset.given:
        imbalance_factor = dataset.default_imbalance_factor
    return SplitName(dataset.name, None if imbalance_factor is None else float(imbalance_factor))


def parse_split_name(name: str, *, where: str = "") -> SplitName:
    """Reads the name of a split.

    Raises:
        UserError: another form, an unknown data set, an imbalance factor below 1, or a split that cannot be made of
            the data set.
    """
    origin = f"{where}: " if where else ""
    match = _NAME.fullmatch(name)
    if not match or _is_path(name):
        return _parse_given(name, origin, where)
    dataset = store.get_dataset(match["dataset"], where=where)
    rule = re.sub(r"hash(\d+)", r"hash:\1", match["rule"] or "hash0")
    parsed = SplitName(dataset.name, float(match["factor"]), match["profile"] or "exponential", rule)
    factor = parsed.imbalance_factor
    if factor is None or not 1 <= factor < 1e15:
        raise UserError(f"{origin}'{name}': the imbalance factor must be a number of at least 1 (n_max / n_min)")
    if not dataset.profiled:
        raise UserError(f"{origin}'{name}': data set '{dataset.name}' is used as it is; the split is '{dataset.name}'")
    if dataset.given and not rule.startswith("hash:"):
        raise UserError(
            f"{origin}'{name}': data set '{dataset.name}' has no official order; only hash rules can cut it"
        )
    if rule.startswith("pool") and not any(form.pool_min_imbalance_factor for form in dataset.all_forms):
        raise UserError(f"{origin}'{name}': data set '{dataset.name}' has no pool archive to draw from")
    if str(parsed) != name and not name.startswith(_PATHS):
        raise UserError(f"{origin}'{name}' is not how this split is written; write {parsed}")
    return parsed


def _is_path(name: str) -> bool:
    """Whether it names a folder as a whole, even if that is called like a split."""
    return name.startswith(_PATHS) and Path(name.partition(":")[2]).expanduser().is_dir()


def _parse_given(name: str, origin: str, where: str) -> SplitName:
    if name.startswith(store.OWN) or name in store.available_datasets():
        dataset = store.get_dataset(name, where=where)
        if dataset.given:
            return SplitName(dataset.name, None)
    raise UserError(f"{origin}{name!r} is not a split; write {FORM}")
