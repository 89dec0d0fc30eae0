"""The published numbers that come with the project, read when a report is made.

`paper_results.csv` holds the numbers as they were printed; `claims_mapping.yaml` says which of our methods a name in it
means, or why none, and what each source did (selection rule, shot policy, epochs). People edit both. Every number is a
claim of a method, or a claim on the card of something that cannot be run here.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
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

    method: str | None = None
    variant: str = ""
    left_out: str | None = None
    note: str = ""
    quoted: bool = False  # the source prints it from elsewhere, so its own protocol does not apply
    selection: str | None = None  # instead of the source's
    epochs: dict[str, str] = field(default_factory=dict)  # instead of the source's, by data set as there

    def __post_init__(self) -> None:
        """A name is either mapped or left out."""
        if (self.method is None) == (self.left_out is None):
            raise ValueError("give either 'method' or 'left_out' (a reason)")


@dataclass(frozen=True)
class Source:
    """What one publication did. Mappings are by data set as the CSV names it; the key `default` serves the rest."""

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
    """`claims_mapping.yaml`. Its names are those of the CSV."""

    names: dict[str, dict[str, Name]]  # method -> variant
    sources: dict[str, Source]  # by document
    not_run_here: dict[str, str]  # method without a folder here -> reason
    quoted_variants: dict[str, str]  # of methods that are not run here -> note

    def name(self, method: str, variant: str) -> Name | None:
        """What a method and variant of the CSV are here; None: the mapping does not say."""
        if method not in self.not_run_here:
            return self.names.get(method, {}).get(variant)
        note = self.quoted_variants.get(variant)
        return Name(left_out=self.not_run_here[method], note=note or "", quoted=note is not None)


class Published(NamedTuple):
    """The content of the CSV, in its order."""

    claims: list[Claim]
    cards: list[Card]  # of what has no entry here


def load_claims(methods: Mapping[str, Path]) -> list[Claim]:
    """The published numbers of these methods: those of the CSV, and those in the methods' own folders.

    Raises:
        UserError: as `read_published` and `own_claims`.
    """
    shipped = [claim for claim in read_published().claims if claim.method in methods]
    own = [claim for name, folder in methods.items() for claim in own_claims(name, folder)]
    return sorted([*shipped, *own], key=attrgetter("method"))


def load_shipped_cards(methods: Mapping[str, Path]) -> list[Card]:
    """The cards of the CSV, and one for each of its methods that is not among these.

    Raises:
        UserError: as `read_published`.
    """
    claims, cards = read_published()
    absent = dict.fromkeys(claim.method for claim in claims if claim.method not in methods)
    return cards + [
        Card(name, f"no method '{name}' is here", tuple(claim for claim in claims if claim.method == name))
        for name in absent
    ]


@cache
def read_published(numbers: Path = NUMBERS, mapping: Path = MAPPING) -> Published:
    """Every number of the CSV as a claim of a method or of a card. The files are read once.

    Raises:
        UserError: a damaged file; or a number that the mapping does not know, or whose source it does not.
    """
    names = config.build(NameMapping, read_yaml(mapping), str(mapping))
    claims: list[Claim] = []
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
            claims.append(claim)
        else:
            card = cards.get(claim.method) or Card(claim.method, name.left_out, ())
            cards[card.name] = replace(card, claims=(*card.claims, claim))
    return Published(claims, list(cards.values()))


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
    document, method, variant = row["source_document"].strip().rstrip(";"), name.method, name.variant
    if document not in names.sources:
        raise UserError(f"{where}: no source has the document '{document}'; add it to the mapping's sources")
    source, dataset, printed = names.sources[document], row["dataset"], row["backbone"]
    if method is None:  # a card: of the method, or of the variant where the mapping names several
        method, variant = row["method"], row["variant"]
        method = f"{method}, {variant}" if len(names.names.get(method, ())) > 1 else method
    backbone = source.backbones.get(printed, printed)
    own = Source(source.short) if name.quoted else source
    epochs = {} if name.left_out else own.epochs  # those of a source are of the methods that are mapped
    quoted = "quoted there from another publication" if name.quoted else ""
    notes = [name.note or quoted, own.note, f"backbone: {printed}" if backbone != printed else ""]
    values = {
        "dataset": dataset,
        "imbalance_factor": _number(row, "imbalance_factor", where),
        "backbone": backbone,
        "method": method,
        "variant": variant,
        "group": row["group"],
        "value": _number(row, "top1_accuracy_percent", where),
        "selection": name.selection or _of(own.selection, dataset) or NOT_STATED,
        "source": source.short,
        "location": source.location or row["source_location"],
        "shot_policy": source.shot_policy,
        "epochs": _of(name.epochs, dataset) or _of(epochs, dataset),
        "note": "; ".join(filter(None, notes)),
        "original": _original(source.original, row["source_location"], where),
    }
    return config.build(Claim, values, where)


def _number(row: dict[str, str], key: str, where: str) -> float:
    try:
        return float(row[key])
    except ValueError:
        raise UserError(f"{where}: {key}: expected a number, found '{row[key]}'") from None


def _of(by_dataset: dict[str, str], dataset: str) -> str | None:
    return by_dataset.get(dataset, by_dataset.get("default"))


def _original(pattern: str | None, location: str, where: str) -> str | None:
    found = re.search(pattern, location) if pattern else None
    if pattern and not found:
        raise UserError(f"{where}: the pattern {pattern!r} is not in '{location}'")
    return found.group(0).lower() if found else None
