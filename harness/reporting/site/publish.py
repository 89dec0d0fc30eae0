"""Writes a site into a folder that any web server can serve, and keeps the versions that it held before."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import json_text, read_json, stamped, write_json, write_text
from harness.records import table
from harness.records.collect import Collected
from harness.records.evidence import evidence_path
from harness.reporting.report import Sources, build_report
from harness.reporting.site.config import SITE_FILE, Site
from harness.reporting.site.content import Content, build_content
from harness.reporting.site.feed import badge, feed
from harness.reporting.site.pages import Pages, archived
from harness.reporting.site.versions import MANIFEST, Manifest, read_manifest

ARCHIVE = "archive"
NEW = ".new"  # where a version lies until it is complete
OURS = "ours.json"  # there: the files that calls which were stopped wrote or were about to; without it, it is not ours
SIGNPOST = (  # where an earlier version has its list of versions, which is one for all
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Versions</title></head>\n'
    '<body><main><h1>Versions</h1><p><a href="../../index.html">All versions</a></p></main></body></html>\n'
)


class Published(NamedTuple):
    """What a site shows now."""

    manifest: Manifest
    archived: str  # the version that it showed before, if that was another one
    unplaced: Mapping[str, int]  # runs that stand on none of its boards, by data set


def publish_site(
    collected: Collected, sources: Sources, site: Site, out: Path, logos: Path = SITE_FILE.parent
) -> Published:
    """Makes `out` the site of these records.

    Of what lies there, it touches only what an earlier call wrote: that moves to `archive/`, if its records were
    others. A call that was stopped is finished by the next one. Folders in it that are symbolic links are refused.

    Args:
        logos: the folder with the site's logo.

    Raises:
        UserError: the folder holds something else, there is no record, or no such suite.
    """
    old, written = _present(out), _written(out / NEW)
    if not collected.records:
        raise UserError("no record to publish; `make repro` makes some")
    content = build_content(collected, sources, site)
    before = old if old and old.name != content.manifest.name else None
    earlier = sorted(_earlier(out, before, content.manifest), key=lambda one: (one.time or 0, one.name), reverse=True)
    new = out / NEW / "version"
    shutil.rmtree(new, ignore_errors=True)
    write_json(out / NEW / OURS, written)
    _write(content, Pages(content, earlier), new, logos)
    files = sorted([*(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()), MANIFEST])
    write_json(new / MANIFEST, config.as_dict(replace(content.manifest, files=files)))
    _check_place(out, new, files, [*written, *(old.files if old else ())])
    write_json(out / NEW / OURS, sorted({*written, *files}))
    if old:
        _retire(out, old, f"{ARCHIVE}/{old.name}" if before else "")
    for name in [one for one in files if one != MANIFEST] + [MANIFEST]:  # last: then the version is complete
        _move(new / name, out / name)
    shutil.rmtree(out / NEW)
    return Published(content.manifest, before.name if before else "", content.unplaced)


def _present(out: Path) -> Manifest | None:
    """The version that lies in a folder.

    Raises:
        UserError: it holds something, and that is no site.
    """
    if (out / MANIFEST).is_file():
        return read_manifest(out / MANIFEST)
    others = [path.name for path in out.iterdir() if path.name[0] != "."] if out.exists() else []
    if others and not (out / NEW / OURS).is_file():
        raise UserError(f"{out}: holds {sorted(others)[0]}, and no {MANIFEST}; name an empty folder, or a site")
    return None


def _written(new: Path) -> list[str]:
    """What calls that were stopped wrote into a site, or were about to.

    Raises:
        UserError: the folder is another one's.
    """
    if new.is_symlink() or new.is_file() or (not (new / OURS).is_file() and any(p.is_file() for p in new.rglob("*"))):
        raise UserError(f"{new}: ltbench publish did not make it, and needs the name; move it away")
    found = read_json(new / OURS, "list of files") if (new / OURS).is_file() else []
    return [str(name) for name in found] if isinstance(found, list) else []


def _check_place(out: Path, new: Path, files: list[str], ours: list[str]) -> None:
    """Refuses to write over what no earlier call wrote."""
    for name in (*ours, *files, f"{ARCHIVE}/any/file"):
        _inside(out, name)
    for name in sorted({*files} - {*ours}):
        file = out / name
        if os.path.lexists(file) and (file.is_symlink() or not filecmp.cmp(file, new / name, shallow=False)):
            raise UserError(f"{file}: ltbench publish did not write it, and needs the name; move it away")


def _earlier(out: Path, before: Manifest | None, now: Manifest) -> Iterator[Manifest]:
    """The versions that will lie in the archive beside the present one."""
    if before:
        yield before
    for path in sorted((out / ARCHIVE).glob(f"*/{MANIFEST}")):
        found = read_manifest(path)
        if found.name != now.name and (before is None or found.name != before.name):
            yield found


def _write(content: Content, pages: Pages, to: Path, logos: Path) -> None:
    """Every file of a version, but its manifest."""
    for filled in content.boards:
        folder = to / "boards" / filled.board.id
        written = build_report(filled.collected, folder, filled.sources)
        _put(folder / "index.html", pages.board(filled, written.read_text(encoding="utf-8")))
        written.unlink()
    for name, text in pages.all():
        _put(to / name, text)
    for page in content.runs:
        folder = to / "runs" / page.address
        _put(folder / "record.json", json_text(stamped(config.as_dict(page.record))))
        if page.run.costs:
            _put(folder / "costs.json", json_text(page.run.costs))
        if (evidence := evidence_path(page.run.file)).is_file():
            shutil.copyfile(evidence, folder / "evidence.npz")
    _downloads(content, to / "downloads")
    _put(to / "feed.xml", feed(content))
    _put(to / "badge.svg", badge(content))
    _put(to / ".nojekyll", "")  # GitHub then serves the files as they are
    if content.site.logo:
        shutil.copyfile(logos / content.site.logo, to / f"logo{Path(content.site.logo).suffix}")


def _put(file: Path, text: str) -> None:
    """Writes one of many files that nobody looks for before all are there; half a character becomes a question mark."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(errors="replace"))


def _downloads(content: Content, to: Path) -> None:
    build_report(content.collected, to, content.sources)
    rows, manifest = table.rows(content.collected), content.manifest
    table.write_table(rows, to / "results.csv")
    facts = {"version": manifest.version, "time": manifest.time, "licence": content.site.licence}
    _put(to / "results.json", json_text({**facts, "results": rows}))


def _retire(out: Path, old: Manifest, to: str) -> None:
    """Moves what a version wrote to a folder in the archive, or removes it; its manifest last."""
    for name in [one for one in old.files if one != MANIFEST] + [MANIFEST]:
        file = _inside(out, name)
        if not to or name.startswith(f"{ARCHIVE}/"):
            file.unlink(missing_ok=True)
        elif file.is_file():
            target = _inside(out, f"{to}/{name}")
            if file.suffix == ".html":
                up = "../" * (2 + name.count("/"))
                write_text(target, archived(file.read_text(encoding="utf-8"), up))
                file.unlink()  # a call that is stopped before it begins the page anew
            else:
                _move(file, target)
    if to:
        write_text(out / to / ARCHIVE / "index.html", SIGNPOST)
    for name in sorted({str(parent) for one in old.files for parent in PurePosixPath(one).parents}, reverse=True):
        if name not in (".", ARCHIVE) and (out / name).is_dir() and not any((out / name).iterdir()):
            (out / name).rmdir()


def _inside(out: Path, name: str) -> Path:
    """A file that a manifest names. A manifest may come from anywhere; it leads nowhere else."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise UserError(f"{out / MANIFEST}: names the file '{name}', which is not in the site")
    for folder in [*PurePosixPath(name).parents][:-1]:
        if (out / folder).is_symlink() or (out / folder).is_file():
            raise UserError(f"{out / folder}: a file or a symbolic link where the site has a folder; move it away")
    return out / name


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.replace(file, to)
