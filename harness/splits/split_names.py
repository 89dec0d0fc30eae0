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
from typing import TYPE_CHECKING

from harness.base.errors import UserError
from harness.datasets._forms import KINDS, OWN
from harness.splits import store

if TYPE_CHECKING:
    from harness.reading.dataset import Dataset

FORM = "<data set>-lt-if<factor>, e.g. mnist5k-lt-if100"
_NAME = re.compile(
    rf"(?P<dataset>(?:{'|'.join(KINDS)}):.+?|[a-z0-9_-]+?)(?P<join>-lt-if|-cut)(?P<factor>[0-9]+(?:\.[0-9]+)?)"
    r"(?:-(?P<profile>step|zipf))?(?:-(?P<rule>(?:pool-)?hash(?:0|[1-9][0-9]*)|numpy0|first_n))?",
    re.DOTALL,
)
_PATHS = tuple(f"{kind}:" for kind in KINDS)


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


def split_of(
    text: str, *, imbalance_factor: float | None = None, holdout: float = 0.0, where: str = ""
) -> tuple[Dataset, str]:
    """The data set and the split that a person means: by the split's name, or by the data set's for its usual split.

    Args:
        text: e.g. cifar10-lt-if100, cifar10, folder:photos, folder:photos-lt-if10.
        imbalance_factor: of a data set's split, instead of the usual one.
        holdout: as `store.get_dataset` takes it.
        where: the option that the text comes from.

    Raises:
        UserError: as `parse_split_name`, or a split's name and an imbalance factor.
    """
    match = None if _is_path(text) else _NAME.fullmatch(text)
    if match and imbalance_factor is not None:
        raise UserError(
            f"--imbalance-factor {imbalance_factor:g}: '{text}' has one; leave it out, or name the data set"
        )
    dataset = store.get_dataset(match["dataset"] if match else text, where=where, holdout=holdout)
    name = f"{dataset.name}{text[match.end('dataset') :]}" if match else str(name_split(dataset, imbalance_factor))
    return dataset, str(parse_split_name(name, where=where if match else "--imbalance-factor"))


def _is_path(name: str) -> bool:
    """Whether it names a folder as a whole, even if that is called like a split."""
    return name.startswith(_PATHS) and Path(name.partition(":")[2]).expanduser().is_dir()


def _parse_given(name: str, origin: str, where: str) -> SplitName:
    if name.startswith(OWN) or name in store.available_datasets():
        dataset = store.get_dataset(name, where=where)
        if dataset.given:
            return SplitName(dataset.name, None)
    raise UserError(f"{origin}{name!r} is not a split; write {FORM}")
