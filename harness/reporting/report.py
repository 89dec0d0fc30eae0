"""Records and published numbers -> `leaderboard.html`, `tables/`, `figures/`. The same records give the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.base.errors import UserError
from harness.base.files import write_text
from harness.records.collect import Collected
from harness.records.evidence import Evidence, evidence_path, read_evidence
from harness.records.same_code import measured_the_same, read_same_code
from harness.records.schema import HEADLINE, Record
from harness.reporting import figures, html, paper_tables, tables
from harness.reporting.claims import Card, Claim, load_cards, load_claims, load_shipped_cards
from harness.reporting.comparison import MeasuredRows, in_order
from harness.reporting.drawer import RecipeValues, ResolveRecipe
from harness.reporting.inputs import readable
from harness.reporting.methods import method_views
from harness.reporting.significance import critical_difference
from harness.reporting.speed import FOLDER as BENCHES
from harness.reporting.speed import read_speed
from harness.reporting.studies import StudyResult, carry_out, load_studies
from harness.reporting.summary import RunResult, Section, summarize
from harness.reporting.views import ReadEvidence, with_evidence
from harness.spec.entries import parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipe_layers import has_recipe
from harness.spec.recipes import resolve
from harness.spec.registry import find_plugins
from harness.weights.record import FOLDER as WEIGHTS
from harness.weights.record import read_weights_record

REPORTED = Path("results/reported")


@dataclass(frozen=True)
class Sources:
    """What a report is made from besides the records; everything may be left out.

    Attributes:
        claims: the methods' published numbers.
        folders: the methods' folders, for what they are and for paper tables and studies of their own.
        current: code version of each method as it is now; a record measured with another one is marked.
        resolve: the recipe that an entry has now.
        cards: numbers that can only be reported.
        reported: folder with more of them, a file for each.
        benches: files that `ltbench bench --json` wrote.
        weights: records that `ltbench weights score` wrote.
    """

    claims: list[Claim] = field(default_factory=list)
    folders: Mapping[str, Path] = field(default_factory=dict)
    current: Mapping[str, str] | None = None
    resolve: ResolveRecipe | None = None
    cards: Sequence[Card] = ()
    reported: Path = REPORTED
    benches: Sequence[Path] = ()
    weights: Sequence[Path] = ()


def sources() -> Sources:
    """What this checkout has: claims, descriptions and code versions of the methods found, and the benchmark files.

    Raises:
        UserError: published numbers that cannot be read.
    """
    folders = {name: plugin.folder for name, plugin in find_plugins().items()}
    current = {name: code_version(folder) for name, folder in folders.items()}
    benches, weights = sorted(BENCHES.glob("*.json")), sorted(WEIGHTS.glob("*.json"))
    claims, cards = load_claims(folders), load_shipped_cards(folders)
    return Sources(claims, folders, current, recipe_now, cards, benches=benches, weights=weights)


@cache
def recipe_now(entry: str, dataset: str) -> RecipeValues | None:
    """The recipe that an entry has now; None where it has none, or its method does not import."""
    try:
        parsed = parse_entry(entry)
        return resolve(parsed, dataset).recipe.as_dict() if has_recipe(parsed, dataset) else None
    except UserError:
        return None


def build_report(collected: Collected, out: Path, sources: Sources) -> Path:
    """Writes the page, its tables and its figures under `out`, and returns the page's path."""
    label = _labels(collected)
    ranked = ranked_sections(collected, sources.current)
    sections, studies = ranked.sections, study_results(ranked, sources.folders)
    rows = MeasuredRows(sections, sources.resolve)
    cards, damaged = load_cards(sources.reported, sources.cards)
    weights, unread = readable(sources.weights, read_weights_record)
    weights.sort(key=lambda record: (-record.weights.imbalance_factor, record.name))  # long-tailed ones first
    speed, useless = readable(sources.benches, read_speed)
    left_out = sorted([*ranked.left_out, *((label(path), label(why)) for path, why in [*damaged, *unread, *useless])])
    described = paper_tables.load_tables(sources.folders)
    papers = paper_tables.fill(described, sources.claims, cards, rows, weights)
    in_cells = {cell.claim: cell for table in papers for cell in table.cells}
    comparisons = [in_cells.get(claim) or rows.beside(claim) for claim in in_order(sources.claims)]
    methods = method_views(sections, comparisons, sources.folders, sources.resolve)
    page = html.render(html.Page(sections, papers, methods, studies, speed, left_out, _across(sections), weights))
    for name, text in tables.all_files(sections, comparisons, papers).items():
        _write(out / "tables" / name, text)
    figures.write_figures(studies, out / "figures")
    _write(out / "leaderboard.html", page)
    return out / "leaderboard.html"


class Ranked(NamedTuple):
    """The tables, ranked by paired tests, and what the evidence beside the records adds."""

    sections: list[Section]
    left_out: list[tuple[str, str]]  # file, reason; grows where evidence turns out damaged
    read: ReadEvidence


def study_results(tables: Ranked, folders: Mapping[str, Path]) -> list[StudyResult]:
    """The studies that are described, with what the records say."""
    return [carry_out(study, tables.sections, tables.read) for study in load_studies(folders)]


def ranked_sections(collected: Collected, current: Mapping[str, str] | None = None) -> Ranked:
    """Tables from records.

    Args:
        current: code version of each method as it is now; a record measured with another one is marked.
    """
    label = _labels(collected)
    left_out = [(label(path), label(reason)) for path, reason in collected.left_out]
    paths = {label(path): path for path, _ in collected.records}

    def read(run: RunResult) -> Evidence | None:
        path = evidence_path(paths[run.path])
        try:
            return read_evidence(path, run.record)
        except UserError as error:
            if (why := (label(path), label(str(error)))) not in left_out:  # tables and studies both read it
                left_out.append(why)
            return None

    same = read_same_code() if current else {}
    lacking = {path: f"not fully checked: {reason}" for path, reason in collected.unchecked}
    runs = []
    for path, record in collected.records:
        note = "; ".join(filter(None, (lacking.get(path), _note(record, current, same))))
        runs.append(RunResult(label(path), record, collected.costs(path), note, collected.tier(path)))
    return Ranked([with_evidence(section, read) for section in summarize(runs)], left_out, read)


def _across(sections: list[Section]) -> html.Across | str:
    """The methods over data sets, on the track with the most of them, or why there is nothing to say.

    A block is a data set, by the table of it with most rows: tables of one data set are not independent.
    """
    by_track: dict[str, dict[str, dict[str, float]]] = {}
    for section in sections:
        accuracies = {row.name: mean for row in section.rows if (mean := row.mean(HEADLINE)) is not None}
        blocks = by_track.setdefault(section.protocol.track, {})
        blocks[section.protocol.dataset] = max(blocks.get(section.protocol.dataset, {}), accuracies, key=len)
    if not by_track:
        return "there is no record"
    track, blocks = max(by_track.items(), key=lambda item: (len(item[1]), item[0]))
    names = sorted(set.intersection(*map(set, blocks.values())))
    found = critical_difference(np.array([[block[name] for name in names] for block in blocks.values()]))
    if isinstance(found, str):
        return found
    ranks = zip(names, found.average_ranks.tolist(), strict=True)
    return html.Across(track, found, sorted(ranks, key=lambda pair: pair[1]))


def _note(record: Record, current: Mapping[str, str] | None, same: dict[str, dict[str, str]]) -> str:
    if current is None or not record.code_version:
        return ""
    if record.method not in current:
        return "its method is no longer here"
    if record.code_version == current[record.method]:
        return ""
    if measured_the_same(record.code_version, current[record.method], same):
        return "earlier code, same bits on a small suite"
    return f"measured with code {record.code_version}, which is now {current[record.method]}"


def _write(path: Path, text: str) -> None:
    """Records may hold half a character (a lone surrogate in JSON), which no file can: it becomes a question mark."""
    write_text(path, text.encode(errors="replace").decode())


def _labels(collected: Collected) -> Callable[[Path | str], str]:
    """Writes paths, and texts with paths in them, without the folder that all record files share.

    So a report says nothing of the machine it was made on.
    """
    paths = [path for path, _ in [*collected.records, *collected.left_out] if path.is_absolute()]
    root = f"{os.path.commonpath([path.parent for path in paths])}{os.sep}" if paths else ""
    return lambda path: str(path).replace(root, "")
