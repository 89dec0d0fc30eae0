"""`ltbench export`: results and splits in the formats of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from harness.base.errors import lookup
from harness.records.collect import Collected
from harness.reporting.exports import croissant, every_eval
from harness.reporting.report import sources, write_any_text
from harness.reporting.site.config import Site
from harness.reporting.site.content import build_content
from harness.spec.suites import SPLITS

Files = Iterator[tuple[str, str]]


def export(form: str, out: Path, records: Callable[[], Collected], site: Site) -> list[Path]:
    """Writes the files of a format.

    Args:
        records: read only where a format needs them.

    Raises:
        UserError: no such format, or nothing to export.
    """
    make = lookup("format", form, FORMATS, where="--format")
    paths = []
    for name, text in make(records, site):
        write_any_text(out / name, text)
        paths.append(out / name)
    return paths


def _hub(records: Callable[[], Collected], site: Site) -> Files:
    from harness.reporting.exports import hub  # imports huggingface_hub

    return hub.files(build_content(records(), sources(), site))


FORMATS: dict[str, Callable[[Callable[[], Collected], Site], Files]] = {
    "every-eval-ever": lambda records, site: every_eval.files(build_content(records(), sources(), site)),
    "hub": _hub,
    "croissant": lambda _, site: croissant.files(SPLITS, site),
}
