"""Records and published numbers -> `leaderboard.html`, `tables/`, `figures/`. The same records give the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import UserError
from harness.base.files import sha256_json, write_text
from harness.records.collect import Collected, find_split
from harness.records.progress import KEPT, PROGRESS, Progress, read_progress
from harness.records.same_code import measured_the_same, read_same_code
from harness.records.schema import HEADLINE, Record, read_costs
from harness.reporting import figures, html, paper_tables, tables
from harness.reporting.boards import TUNED, boards_of
from harness.reporting.claims import TRACK, Card, Claim, load_cards, load_claims, load_shipped_cards
from harness.reporting.comparison import Comparison, MeasuredRows, in_order
from harness.reporting.costs import StepTimes, step_times
from harness.reporting.drawer import RecipeValues, ResolveRecipe
from harness.reporting.inputs import readable
from harness.reporting.methods import about, method_views
from harness.reporting.overview import overview
from harness.reporting.paper_tables import FilledTable
from harness.reporting.significance import CriticalDifference, critical_difference
from harness.reporting.site.config import SITE_FILE, Site, read_site
from harness.reporting.speed import FOLDER as BENCHES
from harness.reporting.speed import SpeedReport, read_speed
from harness.reporting.studies import StudyResult, carry_out, load_studies
from harness.reporting.summary import EARLIER_CODE, OTHER_CODE, RunResult, Section, summarize
from harness.reporting.todo import Planner
from harness.reporting.views import with_evidence
from harness.spec.entries import parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipe_layers import MethodFile, has_recipe
from harness.spec.recipes import resolve
from harness.spec.registry import find_plugins
from harness.weights.record import FOLDER as WEIGHTS
from harness.weights.record import WeightsRecord, read_weights_record

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
        campaigns: what is under way.
        splits: those of one board, whose studies are shown; the speed of this software stands on no board. None: all.
        site: what `site.yaml` says of who publishes the page.
    """

    claims: list[Claim] = field(default_factory=list)
    folders: Mapping[str, Path] = field(default_factory=dict)
    current: Mapping[str, str] | None = None
    resolve: ResolveRecipe | None = None
    cards: Sequence[Card] = ()
    reported: Path = REPORTED
    benches: Sequence[Path] = ()
    weights: Sequence[Path] = ()
    campaigns: Sequence[Progress] = ()
    splits: Collection[str] | None = None
    site: Site | None = None

    @cached_property
    def abouts(self) -> dict[str, MethodFile]:
        """What the methods' `recipes.yaml` say of them."""
        return {name: about(name, folder) for name, folder in self.folders.items()}

    @cached_property
    def step_times(self) -> StepTimes:
        """What a training image costs each method, over cross-entropy's."""
        return step_times(readable(self.benches, read_speed)[0])


def sources() -> Sources:
    """What this checkout has: claims, descriptions and code versions of the methods found, and the benchmark files.

    Raises:
        UserError: published numbers, or a site.yaml, that cannot be read.
    """
    folders = {name: plugin.folder for name, plugin in find_plugins().items()}
    current = {name: code_version(folder) for name, folder in folders.items()}
    benches, weights = sorted(BENCHES.glob("*.json")), sorted(WEIGHTS.glob("*.json"))
    claims, cards = load_claims(folders), load_shipped_cards(folders)
    site = read_site() if SITE_FILE.is_file() else None
    running, _ = readable(sorted(KEPT.glob(f"*/{PROGRESS}")), lambda path: read_progress("", path.parent))
    return Sources(claims, folders, current, recipe_now, cards, REPORTED, benches, weights, running, site=site)


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
    ranked = ranked_sections(collected, sources)
    sections, studies = ranked.sections, study_results(ranked, sources)
    published = fill_tables(sections, sources)
    papers, comparisons = published.tables, published.comparisons(sources.claims)
    left_out = sorted([*ranked.left_out, *((label(path), label(why)) for path, why in published.left_out)])
    boards = boards_of(sections)
    methods = method_views([one.section for one in boards], comparisons, sources.abouts, sources.resolve)
    titles = {name: one.title for name, one in sources.abouts.items()}
    first = overview(boards, papers, titles, sources.campaigns)
    others = {"overview": first, "weights": published.weights, "left_out": left_out, "step_times": sources.step_times}
    others |= {"speed": published.speed if sources.splits is None else []}
    others |= {"across": _across(sections), "class_names": _class_names(sections)}
    others |= {"site": sources.site, "records": _version(collected)}
    page = html.render(boards, papers, studies, methods, **others)
    for name, text in tables.all_files(sections, comparisons, papers, sources.step_times).items():
        write_any_text(out / "tables" / name, text)
    figures.write_figures(studies, out / "figures")
    write_any_text(out / "leaderboard.html", page)
    return out / "leaderboard.html"


class Published(NamedTuple):
    """The papers' tables with what was measured in them, and what else was read for them."""

    rows: MeasuredRows
    cards: list[Card]
    tables: list[FilledTable]
    weights: list[WeightsRecord]
    speed: list[SpeedReport]
    left_out: list[tuple[Path, str]]  # file, reason

    def comparisons(self, claims: Iterable[Claim]) -> list[Comparison]:
        """Each claim as its cell has it, or beside what was measured where it stands in no table."""
        in_cells = {cell.claim: cell for table in self.tables for cell in table.cells}
        return [in_cells.get(claim) or self.rows.beside(claim) for claim in in_order(claims)]


def fill_tables(sections: Sequence[Section], sources: Sources) -> Published:
    """The papers' tables, with the numbers that can only be reported and the scores of published weights."""
    rows = MeasuredRows(sections, sources.resolve)
    cards, damaged = load_cards(sources.reported, sources.cards)
    weights, unread = readable(sources.weights, read_weights_record)
    weights.sort(key=lambda record: (-record.weights.imbalance_factor, record.name))  # long-tailed ones first
    speed, useless = readable(sources.benches, read_speed)
    plan = Planner(sources.resolve, sections, speed) if sources.resolve else None
    described = paper_tables.load_tables(sources.folders)
    tables = paper_tables.fill(described, sources.claims, cards, rows, weights, plan)
    return Published(rows, cards, tables, weights, speed, [*damaged, *unread, *useless])


class Ranked(NamedTuple):
    """The tables, ranked by paired tests, and what the evidence beside the records adds."""

    sections: list[Section]
    left_out: list[tuple[str, str]]  # file, reason


def study_results(tables: Ranked, sources: Sources) -> list[StudyResult]:
    """The studies that are described, of the sources' splits, with what the records say."""
    titles = {name: one.title for name, one in sources.abouts.items()}
    shown = [one for one in load_studies(sources.folders) if sources.splits is None or one.split in sources.splits]
    return [carry_out(one, tables.sections, sources.step_times, titles) for one in shown]


def ranked_sections(collected: Collected, sources: Sources | None = None) -> Ranked:
    """Tables from records, with marks where the code was another one or the recipe has seen the test part."""
    sources = sources or Sources()
    label = _labels(collected)
    left_out = [(label(path), label(reason)) for path, reason in collected.left_out]
    same = read_same_code() if sources.current else {}
    lacking = {path: f"not fully checked: {reason}" for path, reason in collected.unchecked}
    runs = []
    for path, record in collected.records:
        note = "; ".join(filter(None, (lacking.get(path), _note(record, sources.current, same))))
        seen = f"{TUNED}: {why}" if (why := _tuned(record, sources.abouts)) else ""
        runs.append(RunResult(label(path), record, read_costs(path), note, collected.tier(path), seen, path))
    return Ranked([with_evidence(section) for section in summarize(runs)], left_out)


def _class_names(sections: Sequence[Section]) -> dict[str, Sequence[str]]:
    """The names of the classes by the slug of each table; none where its split is not here."""
    splits = {one.slug: find_split(one.protocol, one.rows[0].runs[0].file) for one in sections}
    return {slug: split.class_names if split else () for slug, split in splits.items()}


def _across(sections: list[Section]) -> tuple[str, CriticalDifference] | None:
    """The methods over data sets, on the track with the most of them; None where there are too few.

    A block is a data set, by the table of it with most rows: tables of one data set are not independent.
    """
    by_track: dict[str, dict[str, dict[str, float]]] = {}
    for section in sections:
        accuracies = {row.name: mean for row in section.rows if (mean := row.mean(HEADLINE)) is not None}
        blocks = by_track.setdefault(section.protocol.track, {})
        blocks[section.protocol.dataset] = max(blocks.get(section.protocol.dataset, {}), accuracies, key=len)
    if not by_track:
        return None
    track, blocks = max(by_track.items(), key=lambda item: (len(item[1]), item[0]))
    found = critical_difference(list(blocks.values()))
    return (track, found) if found else None


def _tuned(record: Record, abouts: Mapping[str, MethodFile]) -> str:
    """Why a record's recipe has seen its test part; a paper's own recipe has not."""
    if record.track == TRACK or record.method not in abouts:
        return ""
    return abouts[record.method].tuned_on_test.get(record.dataset, "")


def _note(record: Record, current: Mapping[str, str] | None, same: dict[str, dict[str, str]]) -> str:
    if current is None or not record.code_version:
        return ""
    if record.method not in current:
        return "its method is no longer here"
    if record.code_version == current[record.method]:
        return ""
    if measured_the_same(record.code_version, current[record.method], same):
        return EARLIER_CODE
    return f"{OTHER_CODE} {record.code_version}, which is now {current[record.method]}"


def _version(collected: Collected) -> str:
    """A short hash over all records: the same ones have the same, wherever they lie."""
    return sha256_json(sorted(sha256_json(asdict(record)) for _, record in collected.records))[:8]


def write_any_text(path: Path, text: str) -> None:
    """Records may hold half a character (a lone surrogate in JSON), which no file can: it becomes a question mark."""
    write_text(path, text.encode(errors="replace").decode())


def _labels(collected: Collected) -> Callable[[Path | str], str]:
    """Writes paths, and texts with paths in them, without the folder that all record files share.

    So a report says nothing of the machine it was made on.
    """
    paths = [path for path, _ in [*collected.records, *collected.left_out] if path.is_absolute()]
    root = f"{os.path.commonpath([path.parent for path in paths])}{os.sep}" if paths else ""
    return lambda path: str(path).replace(root, "")
