"""What the pages of a site show, computed from the records: boards, methods, runs, cards, and the version."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.base import config
from harness.base.files import sha256_json
from harness.metrics.shots import GROUPS
from harness.records.collect import Collected
from harness.records.schema import HEADLINE, Record
from harness.records.sender import Sender, sender_of
from harness.reporting.claims import Card, Claim
from harness.reporting.comparison import Status, dataset_identity
from harness.reporting.inputs import readable
from harness.reporting.methods import MethodView, method_views
from harness.reporting.paper_tables import FilledTable, count_by_status
from harness.reporting.report import Ranked, Sources, fill_tables, ranked_sections
from harness.reporting.site.config import Board, Site
from harness.reporting.site.versions import (
    SCHEMA,
    History,
    Manifest,
    RunFacts,
    histories,
    row_facts,
    version_of,
)
from harness.reporting.summary import Row, RunResult, Section, Stat
from harness.weights.record import read_weights_record

NO_FOLDER = Path("/dev/null/cards")  # where a board finds no further cards


@dataclass(frozen=True)
class FilledBoard:
    """A board with its records and its tables."""

    board: Board
    collected: Collected
    sources: Sources
    ranked: Ranked

    def leaders(self, section: Section) -> list[tuple[str, Row, Stat]]:
        """The row with the largest mean over all images, and the one over the rarest group that has classes."""
        found = []
        groups = [group for group in reversed(GROUPS) if section.protocol.groups.get(group)][:1]
        for key in ("all", *groups):
            values = [(stat, row) for row in section.rows if (stat := row.stats[HEADLINE][key])]
            if values:
                best, row = max(values, key=lambda pair: pair[0].mean)
                found.append((key, row, best))
        return found


@dataclass(frozen=True)
class RunPage:
    """A run with its address and what git knows of its record."""

    run: RunResult
    address: str
    sha256: str
    history: History | None
    sender: Sender | None

    @property
    def record(self) -> Record:
        """Its record."""
        return self.run.record

    @property
    def facts(self) -> RunFacts:
        """What the manifest says of it."""
        one, time = self.record, self.history.time if self.history else None
        return RunFacts(self.sha256, self.address, one.split, one.entry, one.seed, one.status, self.run.tier, time)


@dataclass(frozen=True)
class Content:
    """Everything that the pages show."""

    site: Site
    collected: Collected
    sources: Sources
    ranked: Ranked
    boards: list[FilledBoard]
    runs: list[RunPage]  # by file
    methods: list[MethodView]
    papers: list[FilledTable]
    cards: list[tuple[Card, list[Claim]]]  # with the claims of it that no paper's table shows

    @cached_property
    def _by_file(self) -> dict[Path, RunPage]:
        return {page.run.file: page for page in self.runs}

    def pages_of(self, row: Row) -> list[RunPage]:
        """The pages of a row's runs, by seed."""
        return [self._by_file[run.file] for run in row.runs]

    @cached_property
    def counts(self) -> Counter[Status]:
        """Published numbers by status."""
        return Counter(count_by_status(self.papers))

    @cached_property
    def manifest(self) -> Manifest:
        """This version, but for the files that are written."""
        facts = {page.run.path: page.facts for page in self.runs}
        version, name, time = version_of(facts)
        rows = [row for filled in self.boards for row in row_facts(filled.board.id, filled.ranked.sections)]
        return Manifest(SCHEMA, version, name, self.site.title, time, facts, rows)

    @property
    def unplaced(self) -> Counter[str]:
        """Number of runs that stand on no board, by data set."""
        placed = {path for board in self.boards for path, _ in board.collected.records}
        return Counter(record.dataset for path, record in self.collected.records if path not in placed)

    def rows_of(self, method: str) -> list[tuple[FilledBoard, Section, Row]]:
        """The rows of a method, board by board."""
        tables = [(board, one) for board in self.boards for one in board.ranked.sections]
        return [(board, one, row) for board, one in tables for row in one.rows if row.first.method == method]


def build_content(collected: Collected, sources: Sources, site: Site) -> Content:
    """Ranks the records of each board, and fills the papers' tables.

    Raises:
        UserError: no such suite, or published numbers that cannot be read.
    """
    sources = replace(sources, site=site)
    ranked = ranked_sections(collected, sources)
    published = fill_tables(ranked.sections, sources)
    comparisons = published.comparisons(sources.claims)
    shown = {cell.claim for filled in published.tables for cell in filled.cells}
    return Content(
        site,
        collected,
        sources,
        ranked,
        [_fill_board(board, collected, sources, published.cards) for board in site.boards_for(collected)],
        _runs(collected, ranked),
        method_views(ranked.sections, comparisons, sources.abouts, sources.resolve),
        published.tables,
        [(card, left) for card in published.cards if (left := [claim for claim in card.claims if claim not in shown])],
    )


def _fill_board(board: Board, collected: Collected, sources: Sources, cards: Sequence[Card]) -> FilledBoard:
    chosen = board.chosen(collected)
    splits = {record.split for _, record in chosen.records}
    datasets = {dataset_identity(record.dataset) for _, record in chosen.records}
    weights, _ = readable(sources.weights, lambda path: (path, read_weights_record(path)))
    own = replace(
        sources,
        claims=[claim for claim in sources.claims if dataset_identity(claim.dataset) in datasets],
        cards=[kept for card in cards if (kept := _card_of(card, datasets)).claims],
        reported=NO_FOLDER,
        weights=[path for path, record in weights if dataset_identity(record.weights.dataset) in datasets],
        splits=splits,
    )
    return FilledBoard(board, chosen, own, ranked_sections(chosen, sources))


def _card_of(card: Card, datasets: set[str]) -> Card:
    return replace(card, claims=tuple(one for one in card.claims if dataset_identity(one.dataset) in datasets))


def _runs(collected: Collected, ranked: Ranked) -> list[RunPage]:
    results = {run.file: run for section in ranked.sections for row in section.rows for run in row.runs}
    known = histories(path for path, _ in collected.records)
    pages, taken = [], set[str]()
    for path, record in collected.records:
        sha256 = sha256_json(config.as_dict(record))
        own = address(record.run_key)
        own = own if own not in taken else f"{own}-{sha256[:8]}"  # the same run, measured twice
        taken.add(own)
        pages.append(RunPage(results[path], own, sha256, known.get(path), sender_of(path)))
    return pages


def address(name: str) -> str:
    """A name as part of an address; one that could lead elsewhere becomes a hash."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", name):
        return name
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
