"""The Atom feed of new and changed records (RFC 4287), and the badge."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from xml.etree import ElementTree

from harness.records.schema import HEADLINE
from harness.reporting.drawer import BADGES
from harness.reporting.site.content import Content, RunPage
from harness.reporting.tables import percent

NEWEST = 100
ATOM = "http://www.w3.org/2005/Atom"


def news(content: Content) -> list[RunPage]:
    """The committed records, the newest first; not more than a reader takes in."""
    dated = [page for page in content.runs if page.history]
    return sorted(dated, key=lambda page: (-_time(page), page.run.path))[:NEWEST]


def feed(content: Content) -> str:
    """The feed as text. Its links work anywhere if the site has a `url`, else relative to the feed."""
    site, manifest = content.site, content.manifest
    base = site.url if site.url.endswith("/") or not site.url else f"{site.url}/"
    root = ElementTree.Element("feed", xmlns=ATOM)
    _add(root, "title", site.title)
    _add(root, "subtitle", "New and changed records")
    _add(root, "id", _urn(f"{site.title} {site.url}"))
    _add(root, "updated", _stamp(manifest.time or 0))
    ElementTree.SubElement(root, "link", rel="self", href=f"{base}feed.xml")
    ElementTree.SubElement(root, "link", rel="alternate", href=f"{base}index.html")
    _add(ElementTree.SubElement(root, "author"), "name", site.title)
    for page in news(content):
        entry = ElementTree.SubElement(root, "entry")
        record, scores = page.record, page.record.results.get(HEADLINE)
        state = "Changed" if page.history and page.history.commits > 1 else "New"
        found = f"{percent(scores.all, 1)} %" if scores else record.status
        _add(entry, "title", f"{record.entry} on {record.split}, seed {record.seed}: {found}")
        _add(entry, "id", _urn(page.sha256))
        _add(entry, "updated", _stamp(_time(page)))
        ElementTree.SubElement(entry, "link", rel="alternate", href=f"{base}runs/{page.address}/index.html")
        _add(entry, "summary", f"{state} record {page.run.path}, {BADGES[page.run.tier]}")
    ElementTree.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _time(page: RunPage) -> int:
    return page.history.time if page.history else 0


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    """XML has no way to write control characters: they become question marks."""
    plain = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
    ElementTree.SubElement(parent, name).text = plain.encode(errors="replace").decode()


def _urn(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, name).urn


def _stamp(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def badge(content: Content) -> str:
    """How many published cells are reproduced, as an SVG that a README can show."""
    label, value = "published cells reproduced", f"{content.counts['reproduced']} of {content.counts.total()}"
    left, right = 10 + 6.3 * len(label), 10 + 6.6 * len(value)
    width, colour = left + right, "#00663f" if content.counts["reproduced"] else "#59636e"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="20" role="img" '
        f'aria-label="{label}: {value}">\n'
        f'<rect width="{width:.0f}" height="20" rx="3" fill="#333a42"/>\n'
        f'<path d="M{left:.0f} 0h{right - 3:.0f}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{left:.0f}z" fill="{colour}"/>\n'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">\n'
        f'<text x="{left / 2:.1f}" y="14">{label}</text>\n<text x="{left + right / 2:.1f}" y="14">{value}</text>\n'
        "</g>\n</svg>\n"
    )
