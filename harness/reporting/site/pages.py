"""The pages of a site as text. Everything that comes from records is escaped; no page runs a script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from harness.base.files import sha256_bytes
from harness.metrics.selection import SELECTION_RULES
from harness.records.collect import find_split
from harness.records.evidence import evidence_path
from harness.records.schema import HEADLINE
from harness.reporting import tables
from harness.reporting.comparison import STATUSES
from harness.reporting.drawer import BADGES, TIERS, flat, run_facts
from harness.reporting.html import csp_hash, templates_in
from harness.reporting.methods import MethodView
from harness.reporting.pictures import by_frequency
from harness.reporting.site.content import Content, FilledBoard, RunPage, address
from harness.reporting.site.feed import news
from harness.reporting.site.versions import Changes, Manifest, changes, day

TEMPLATES = Path(__file__).parent / "templates"
ENVIRONMENT = templates_in(TEMPLATES)  # one for all sites of a process, so that each template is compiled once


class Pages:
    """Renders the pages of one version."""

    def __init__(self, content: Content, earlier: Sequence[Manifest] = ()) -> None:
        """Reads the templates.

        Args:
            earlier: the versions in the archive, the latest first.
        """
        self.content, self.earlier = content, list(earlier)
        self._style = Markup((TEMPLATES / "site.css").read_text(encoding="utf-8"))  # noqa: S704 - of this package

    @cached_property
    def _shared(self) -> dict[str, Any]:
        content = self.content
        return {
            "site": content.site,
            "boards": content.boards,
            "manifest": content.manifest,
            "badges": BADGES,
            "tiers": TIERS,
            "style": self._style,
            "hash": csp_hash(self._style),
            "address": address,
            "cell": tables.cell,
            "day": day,
            "pages_of": content.pages_of,
            "percent": tables.percent,
            "published": tables.published,
            "rows_of": content.rows_of,
        }

    def _render(self, template: str, up: str, **values: Any) -> str:
        return ENVIRONMENT.get_template(template).render(**self._shared, up=up, **values)

    def all(self) -> Iterator[tuple[str, str]]:
        """Every page but the boards', by its address below the site."""
        content = self.content
        yield "index.html", self._index()
        yield "reported/index.html", self._render("reported.html.j2", "../", cards=content.cards)
        for one in content.methods:
            yield f"methods/{address(one.name)}/index.html", self._method(one)
        for page in content.runs:
            yield f"runs/{page.address}/index.html", self._run(page)
        yield "archive/index.html", self._render("archive.html.j2", "../", earlier=self.earlier)
        for found in self.compared():
            yield f"archive/{found.file}", self._render("changes.html.j2", "../", found=found, folder=self._folder)

    def compared(self) -> list[Changes]:
        """Each earlier version against this one, and against the one that came after it."""
        present, earlier = self.content.manifest, self.earlier
        to_present = [changes(old, present) for old in earlier]
        return to_present + [changes(old, after) for after, old in pairwise(earlier)]

    def _folder(self, manifest: Manifest) -> str:
        """From the archive to a version."""
        return "../" if manifest.name == self.content.manifest.name else f"{manifest.name}/"

    def _index(self) -> str:
        content = self.content
        return self._render(
            "index.html.j2",
            "",
            counts=content.counts,
            left_out=content.ranked.left_out,
            logo=f"logo{Path(content.site.logo).suffix}" if content.site.logo else "",
            measured=len({page.record.method for page in content.runs}),
            methods=content.methods,
            newest=len(news(content)),
            cells=_cells(news(content)),
            runs=content.runs,
        )

    def _method(self, one: MethodView) -> str:
        rows = self.content.rows_of(one.name)
        by_board = [(board, [found[1:] for found in group]) for board, group in groupby(rows, key=lambda row: row[0])]
        again = [entry for entry in one.entries if entry.row.key in {row.key for *_, row in rows}]
        claims = [(status.capitalize(), [c for c in one.claims if c.status == status]) for status in STATUSES]
        return self._render("method.html.j2", "../../", one=one, tables=by_board, again=again, claims=claims)

    def _run(self, page: RunPage) -> str:
        record = page.record
        file = evidence_path(page.run.file)
        data = file.read_bytes() if file.is_file() else None
        return self._render(
            "run.html.j2",
            "../../",
            page=page,
            scores=[(rule, vars(found)) for rule in SELECTION_RULES if (found := record.results.get(rule))],
            evidence=(len(data), sha256_bytes(data)) if data is not None else None,
            provenance=run_facts(page.run),
            recipe=[*flat(record.recipe)],
            classes=_classes(page),
        )

    def board(self, filled: FilledBoard, page: str) -> str:
        """The leaderboard's page as a page of this site: with its own title, and a way back."""
        title, site = escape(filled.board.title), escape(self.content.site.title)
        page = re.sub("<title>[^<]*</title>", lambda _: f"<title>{title} - {site}</title>", page, count=1)
        page = re.sub("<h1>[^<]*</h1>", lambda _: f"<h1>{title}</h1>", page, count=1)
        back = f'<nav aria-label="Site"><a href="../../index.html">{site}</a></nav>'
        return page.replace("<body>", f"<body>\n{back}", 1)


def _cells(pages: list[RunPage]) -> list[tuple[str, list[RunPage]]]:
    """Runs of one cell and day together, with the day."""

    def cell(page: RunPage) -> tuple[str, str, str]:
        return day(page.history.time) if page.history else "", page.record.split, page.record.entry

    return [(key[0], [*group]) for key, group in groupby(pages, key=cell)]


def _classes(page: RunPage) -> list[tuple[str, int, float | None]]:
    """Name, training images and accuracy of each class, from the most to the least frequent."""
    record, counts = page.record, page.record.class_counts
    scores, split = record.results.get(HEADLINE), find_split(record, page.run.file)
    names = split.class_names if split else [str(number) for number in range(len(counts))]
    return [(names[c], counts[c], scores.per_class[c]) for c in by_frequency(counts)] if scores else []


def archived(page: str, up: str) -> str:
    """A page of an earlier version, saying so; `up` leads from it to the present version."""
    link = f'<a href="{up}index.html">The present one</a>'
    note = f'<aside class="notice" aria-label="Version">This is an earlier version. {link}</aside>'
    return page.replace("<body>", f"<body>\n{note}", 1)
