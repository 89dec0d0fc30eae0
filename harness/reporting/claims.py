"""Claims: numbers that somebody published; and cards: those of methods that cannot be run here, with the reason.

The published numbers that come with the project are read when a report is made. `paper_results.csv` holds the numbers
as they were printed; `claims_mapping.yaml` says which of our methods a name in it means, or why none, and what each
source did (selection rule, shot policy, epochs). People edit both. Every number is a claim of a method, or a claim on
the card of something that cannot be run here. A person may add a card as a file in `results/reported`.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal, NamedTuple

from harness.base import config
from harness.base.errors import UserError, unknown
from harness.base.files import read_json, read_yaml
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS, POLICIES
from harness.records.schema import HEADLINE
from harness.reporting.inputs import read_list, readable
from harness.spec.recipe_layers import read_method_file
from harness.spec.registry import find_plugins

CLAIMS_FILE = "claims.yaml"
NOT_STATED = "not stated"
SELECTIONS: Final = (*SELECTION_RULES, NOT_STATED)
TRACK: Final = "paper"
CARD_SCHEMA: Final = 1
NUMBERS = Path(__file__).with_name("paper_results.csv")
MAPPING = Path(__file__).with_name("claims_mapping.yaml")
COLUMNS: Final = (
    "dataset", "imbalance_factor", "backbone", "method", "variant", "group", "top1_accuracy_percent",
    "source_document", "source_location",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One number that somebody published, with what is known of how it was measured."""

    dataset: str
    imbalance_factor: float
    backbone: str
    method: str
    variant: str  # "" is the method's default
    group: str  # all, many, medium or few
    value: float  # top-1 accuracy in percent
    selection: str  # one of `SELECTIONS`
    source: str
    location: str
    shot_policy: str | None = None
    epochs: str | None = None
    note: str = ""
    again: bool = False  # its source prints the same number in another table, too, and there it counts
    original: str | None = None  # what is printed, where that is not this value ("error 57.30")
    track: Literal["paper"] = TRACK

    def __post_init__(self) -> None:
        """Refuses values out of their domain."""
        if not 0 <= self.value <= 100:
            raise ValueError(f"value must be a percentage, found {self.value}")
        one_of("group", self.group, ("all", *GROUPS))
        one_of("selection", self.selection, SELECTIONS)
        one_of("shot_policy", self.shot_policy, POLICIES)

    @property
    def rule(self) -> str:
        """The selection rule a measurement is read at: the claim's own, or the headline rule if none is stated."""
        return HEADLINE if self.selection == NOT_STATED else self.selection


def one_of(key: str, value: str | None, known: Collection[str]) -> None:
    """Raises a ValueError that names the key, if its value is given and not known."""
    if value is not None and value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}, found '{value}'")


def at_factor(values: Mapping[str, str], dataset: str, imbalance_factor: float) -> str | None:
    """The value of a data set at an imbalance factor ("CIFAR-100-LT 50"), else of the data set ("CIFAR-100-LT")."""
    return values.get(f"{dataset} {imbalance_factor:g}", values.get(dataset))


def own_claims(method: str, folder: Path) -> list[Claim]:
    """The claims in `claims.yaml` of a method's folder, which may have none.

    Raises:
        UserError: unknown key, wrong type, or a claim of another method.
    """
    path = folder / CLAIMS_FILE
    claims = read_list(Claim, path, "claims") if path.exists() else []
    for index, claim in enumerate(claims):
        if claim.method != method:
            raise UserError(
                f"{path}: claims[{index}].method: expected '{method}', the folder's method, found '{claim.method}'"
            )
    return claims


@dataclass(frozen=True)
class Card:
    """A method that is only reported. The `method` of its claims is its name, the variant is as published."""

    name: str
    reason: str  # why it cannot be run here
    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        for key in ("name", "reason"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} must say something")


def load_cards(folder: Path, shipped: Iterable[Card] = ()) -> tuple[list[Card], list[tuple[Path, str]]]:
    """The shipped cards, then those of a folder, by file name; and the files left out, each with the reason.

    A folder that does not exist has none. A damaged card, or one whose name another card has, is left out.
    """
    cards = {card.name: card for card in shipped}

    def read(path: Path) -> None:
        card = _read_card(path)
        if cards.setdefault(card.name, card) is not card:
            raise UserError(f"{path}: another card has the name '{card.name}'")

    _, left_out = readable(sorted(folder.glob("*.json")), read)
    return list(cards.values()), left_out


def _read_card(path: Path) -> Card:
    value = read_json(path, "card")
    card = dict(value) if isinstance(value, dict) else {}
    if (found := card.pop("schema", None)) != CARD_SCHEMA:
        raise UserError(f"{path}: schema must be {CARD_SCHEMA}, found {found!r:.20}")
    claims = card.get("claims")
    for index, entry in enumerate(claims if isinstance(claims, list) else []):
        if isinstance(entry, dict):
            if implied := [key for key in ("method", "track") if key in entry]:
                raise UserError(f"{path}: claims[{index}]: leave out '{implied[0]}'; it is that of the card")
            entry["method"] = card.get("name")
    return config.build(Card, card, str(path))


@dataclass(frozen=True)
class Name:
    """What a method and variant of the CSV are here: one of our entries, or left out for a reason."""

    method: str | None = None
    variant: str = ""
    left_out: str | None = None
    note: str = ""
    again: bool = False  # as a claim's
    quoted: bool = False  # the source prints it from elsewhere, so its own protocol does not apply
    selection: str | None = None  # instead of the source's
    epochs: dict[str, str] = field(default_factory=dict)  # instead of the source's, by data set as there
    variants: dict[str, str] = field(default_factory=dict)  # instead of `variant`, by setting as in `at_factor`

    def __post_init__(self) -> None:
        """A name is either mapped or left out."""
        if (self.method is None) == (self.left_out is None):
            raise ValueError("give either 'method' or 'left_out' (a reason)")
        if self.left_out is not None and self.variants:
            raise ValueError("what is left out is not run; leave out 'variants'")


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
        UserError: a damaged file; a number that the mapping does not know, or whose source it does not; or a variant,
            or the setting of one, that does not exist.
    """
    names = config.build(NameMapping, read_yaml(mapping), str(mapping))
    claims: list[Claim] = []
    cards: dict[str, Card] = {}
    settings: dict[tuple[str, str], set[str]] = defaultdict(set)  # method and variant -> what `variants` may name
    for where, row in _rows(numbers):
        name = names.name(row["method"], row["variant"])
        if name is None:
            raise UserError(
                f"{where}: '{row['method']}', variant '{row['variant']}', is neither mapped nor left out; "
                f"add it to {mapping.name}"
            )
        claim = _claim(row, name, names, where)
        factor = f"{claim.dataset} {claim.imbalance_factor:g}"
        settings[row["method"], row["variant"]] |= {claim.dataset, factor}
        if name.left_out is None:
            claims.append(claim)
        else:
            card = cards.get(claim.method) or Card(claim.method, name.left_out, ())
            cards[card.name] = replace(card, claims=(*card.claims, claim))
    _check_variants(names, settings, mapping)
    return Published(claims, list(cards.values()))


def _check_variants(names: NameMapping, settings: Mapping[tuple[str, str], set[str]], mapping: Path) -> None:
    """Refuses a setting that no number of its name has, and a variant that its method, if it is here, does not have."""
    plugins = find_plugins()
    mapped = ((m, v, name) for m, of in names.names.items() for v, name in of.items() if name.variants)
    for method, variant, name in mapped:
        where, here = f"{mapping}.names.{method}.{variant}.variants", plugins.get(name.method or "")
        known = read_method_file(here).variants if here else None
        for setting, chosen in name.variants.items():
            if setting not in settings[method, variant]:
                raise unknown("data set and imbalance factor", setting, settings[method, variant], where=where)
            if chosen and known is not None and chosen not in known:
                raise unknown(f"variant of '{name.method}'", chosen, known, where=f"{where}.{setting}")


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
    imbalance_factor = _number(row, "imbalance_factor", where)
    if (other := at_factor(name.variants, dataset, imbalance_factor)) is not None:
        variant = other
    quoted = "quoted there from another publication" if name.quoted else ""
    notes = [name.note or quoted, own.note, f"backbone: {printed}" if backbone != printed else ""]
    values = {
        "dataset": dataset,
        "imbalance_factor": imbalance_factor,
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
        "again": name.again,
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
