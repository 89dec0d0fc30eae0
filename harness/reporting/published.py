"""The published numbers that come with the project, read when a report is made.

`paper_results.csv` holds the numbers as they were printed; `claims_mapping.yaml` says which of our methods a name in it
means, or why none, and what each source did (selection rule, shot policy, epochs). People edit both. Every number is a
claim of a method, or a claim on the card of something that cannot be run here.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Final, NamedTuple

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml
from harness.reporting.claims import NOT_STATED, Card, Claim, own_claims

NUMBERS = Path(__file__).with_name("paper_results.csv")
MAPPING = Path(__file__).with_name("claims_mapping.yaml")
COLUMNS: Final = (
    "dataset", "imbalance_factor", "backbone", "method", "variant", "group", "top1_accuracy_percent",
    "source_document", "source_location",
)  # fmt: skip


@dataclass(frozen=True)
class Name:
    """What a method and variant of the CSV are here: one of our entries, or left out for a reason."""

    csv_method: str
    csv_variant: str
    method: str | None = None
    variant: str = ""
    left_out: str | None = None
    note: str = ""
    quoted: bool = False  # printed there from somewhere else, so what the source itself did does not apply
    selection: str | None = None  # instead of the source's
    epochs: dict[str, str] = field(default_factory=dict)  # instead of the source's, by data set as there

    def __post_init__(self) -> None:
        """A name is either mapped or left out."""
        if (self.method is None) == (self.left_out is None):
            raise ValueError("give either 'method' or 'left_out' (a reason)")


@dataclass(frozen=True)
class NotRun:
    """A method of the CSV that has no folder here, and why."""

    csv_method: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What one publication did. Mappings are by data set as the CSV names it; the key `default` serves the rest."""

    document: str  # as in the CSV
    short: str  # as the report prints it
    selection: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, str] = field(default_factory=dict)
    backbones: dict[str, str] = field(default_factory=dict)  # printed name -> plain name
    shot_policy: str | None = None
    note: str = ""
    location: str | None = None  # instead of the CSV's, where that is a long explanation
    original: str | None = None  # pattern in the CSV's location for the number as it was printed


@dataclass(frozen=True)
class NameMapping:
    """`claims_mapping.yaml`."""

    names: tuple[Name, ...]
    sources: tuple[Source, ...]
    not_run_here: tuple[NotRun, ...]
    quoted_variants: dict[str, str]  # of methods that are not run here -> note

    def __post_init__(self) -> None:
        """Refuses a name, a source or a method that is there twice."""
        _refuse_twice("names", ((name.csv_method, name.csv_variant) for name in self.names))
        _refuse_twice("sources", (source.document for source in self.sources))
        _refuse_twice("not_run_here", (method.csv_method for method in self.not_run_here))

    @cached_property
    def source(self) -> dict[str, Source]:
        """The sources by document."""
        return {source.document: source for source in self.sources}

    @cached_property
    def _named(self) -> dict[str, dict[str, Name]]:
        """The names by method and variant."""
        named: dict[str, dict[str, Name]] = defaultdict(dict)
        for name in self.names:
            named[name.csv_method][name.csv_variant] = name
        return named

    @cached_property
    def _reasons(self) -> dict[str, str]:
        return {method.csv_method: method.reason for method in self.not_run_here}

    def name(self, method: str, variant: str) -> Name | None:
        """What a method and variant of the CSV are here; None: the mapping does not say."""
        if method not in self._reasons:
            return self._named.get(method, {}).get(variant)
        note = self.quoted_variants.get(variant)
        return Name(method, variant, left_out=self._reasons[method], note=note or "", quoted=note is not None)

    def card(self, name: Name) -> str:
        """The name of the card of something left out: its method, with the variant where other variants are named."""
        several = len(self._named.get(name.csv_method, {})) > 1
        return f"{name.csv_method}, {name.csv_variant}" if several else name.csv_method


class Published(NamedTuple):
    """The content of the CSV, in its order."""

    claims: dict[str, list[Claim]]  # by method
    cards: list[Card]  # of what has no entry here


def load_claims(methods: Mapping[str, Path]) -> list[Claim]:
    """The published numbers of these methods: those of the CSV, and those in the methods' own folders.

    Raises:
        UserError: as `read_published` and `own_claims`.
    """
    shipped = read_published().claims
    return [
        claim
        for name, folder in sorted(methods.items())
        for claim in [*shipped.get(name, ()), *own_claims(name, folder)]
    ]


@cache
def read_published(numbers: Path = NUMBERS, mapping: Path = MAPPING) -> Published:
    """Every number of the CSV as a claim of a method or of a card. The files are read once.

    Raises:
        UserError: a damaged file; a number that the mapping does not know, or whose source it does not; or a mapping
            that names something twice.
    """
    names = config.build(NameMapping, read_yaml(mapping), str(mapping))
    claims: dict[str, list[Claim]] = defaultdict(list)
    cards: dict[str, Card] = {}
    for where, row in _rows(numbers):
        name = names.name(row["method"], row["variant"])
        if name is None:
            raise UserError(
                f"{where}: '{row['method']}', variant '{row['variant']}', is neither mapped nor left out; "
                f"add it to {mapping.name}"
            )
        claim = _claim(row, name, names, where)
        if name.left_out is None:
            claims[claim.method].append(claim)
        else:
            card = cards.get(claim.method) or Card(claim.method, name.left_out, ())
            cards[card.name] = replace(card, claims=(*card.claims, claim))
    return Published(dict(claims), list(cards.values()))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of the CSV, each with its place for messages."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            if tuple(head) != COLUMNS:
                raise UserError(f"{path}:1: expected the columns {', '.join(COLUMNS)}, found {', '.join(head)}")
            for cells in filter(None, reader):
                where = f"{path}:{reader.line_num}"
                if len(cells) != len(COLUMNS):
                    raise UserError(
                        f"{where}: expected {len(COLUMNS)} cells, found {len(cells)}; a cell with a comma needs quotes"
                    )
                yield where, dict(zip(COLUMNS, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _claim(row: dict[str, str], name: Name, names: NameMapping, where: str) -> Claim:
    document = row["source_document"].strip().rstrip(";")
    if document not in names.source:
        raise UserError(f"{where}: no source has the document '{document}'; add it to the mapping's sources")
    source, dataset, location = names.source[document], row["dataset"], row["source_location"]
    did = Source(document, source.short) if name.quoted else source
    if name.left_out is not None:  # the epochs of a source are those of the methods that are mapped
        did = replace(did, epochs={})
    values = {
        "dataset": dataset,
        "imbalance_factor": _number(row, "imbalance_factor", where),
        "backbone": source.backbones.get(row["backbone"], row["backbone"]),
        "method": names.card(name) if name.method is None else name.method,
        "variant": name.csv_variant if name.method is None else name.variant,
        "group": row["group"],
        "value": _number(row, "top1_accuracy_percent", where),
        "selection": name.selection or _of(did.selection, dataset) or NOT_STATED,
        "source": source.short,
        "location": source.location or location,
        "shot_policy": source.shot_policy,
        "epochs": _of(name.epochs, dataset) or _of(did.epochs, dataset),
        "note": _note(row, name, did, source),
        "original": _original(source, location, where),
    }
    return config.build(Claim, values, where)


def _note(row: dict[str, str], name: Name, did: Source, source: Source) -> str:
    printed = row["backbone"]
    parts = [
        name.note or ("quoted there from another publication" if name.quoted else ""),
        did.note,
        f"backbone: {printed}" if source.backbones.get(printed, printed) != printed else "",
    ]
    return "; ".join(filter(None, parts))


def _number(row: dict[str, str], key: str, where: str) -> float:
    try:
        return float(row[key])
    except ValueError:
        raise UserError(f"{where}: {key}: expected a number, found '{row[key]}'") from None


def _of(by_dataset: dict[str, str], dataset: str) -> str | None:
    return by_dataset.get(dataset, by_dataset.get("default"))


def _original(source: Source, location: str, where: str) -> str | None:
    if source.original is None:
        return None
    found = re.search(source.original, location)
    if found is None:
        raise UserError(f"{where}: the pattern {source.original!r} is not in '{location}'")
    return found.group(0).lower()


def _refuse_twice(key: str, values: Iterable[Hashable]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{key}: {value!r} is there twice")
        seen.add(value)
