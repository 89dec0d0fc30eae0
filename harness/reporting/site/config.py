"""`reports/site.yaml`: what a published site is called, and which boards it has."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml
from harness.records.collect import Collected
from harness.reporting.inputs import Named
from harness.spec.suites import members

SITE_FILE = Path("reports/site.yaml")
LOGOS = (".svg", ".png")


@dataclass(frozen=True)
class Board(Named):
    """One page of tables: the records of a suite, or of a data set."""

    suite: str = ""
    dataset: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.suite) == bool(self.dataset):
            raise ValueError(f"board '{self.id}': give either 'suite' or 'dataset'")

    def chosen(self, collected: Collected) -> Collected:
        """The records that stand on this board; none of the files that were left out.

        Raises:
            UserError: there is no such suite.
        """
        inside = members(self.suite) if self.suite else lambda _, dataset, __: dataset == self.dataset
        found = [(path, r) for path, r in collected.records if inside(r.split, r.dataset, r.entry)]
        return replace(collected, records=found, left_out=[])


@dataclass(frozen=True)
class Site:
    """What the pages say of themselves. Empty texts are left out.

    Attributes:
        about: one sentence for the first page.
        boards: none: one for each data set that has records.
        logo: an SVG or PNG file beside site.yaml.
        url: where the site will be served; the feed needs it for links that work anywhere.
        repository: where the code and the records are.
        licence: of the results.
        citation: how to cite them, as it is to be copied.
    """

    title: str
    about: str = ""
    boards: list[Board] = field(default_factory=list)
    logo: str = ""
    url: str = ""
    repository: str = ""
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("title must say something")
        for key in ("url", "repository"):
            value = getattr(self, key)
            if value and not re.fullmatch(r"https?://[^\s\"'<>]+", value):
                raise ValueError(f"{key} must start with https:// or http://, found '{value}'")
        if self.logo and Path(self.logo).suffix not in LOGOS:
            raise ValueError(f"logo must be one of {', '.join(LOGOS)}, found '{self.logo}'")
        ids = [board.id for board in self.boards]
        if len(set(ids)) < len(ids):
            raise ValueError(f"boards: an id stands twice in {', '.join(ids)}")

    def document(self, name: str) -> str:
        """The address of a file of the repository, as GitHub and GitLab have it; empty without a repository."""
        within = "/-" if "gitlab" in self.repository else ""
        return f"{self.repository.removesuffix('.git').rstrip('/')}{within}/blob/HEAD/{name}" if self.repository else ""

    def boards_for(self, collected: Collected) -> list[Board]:
        """The boards that are described, else one for each data set."""
        names = sorted({record.dataset for _, record in collected.records})
        return self.boards or [Board(re.sub("[^a-z0-9]+", "-", name.lower()), name, dataset=name) for name in names]


def read_site(path: Path = SITE_FILE) -> Site:
    """The description of a site.

    Raises:
        UserError: no such file, an unknown key, a wrong type or value, or a logo that is not there.
    """
    site = config.build(Site, read_yaml(path), str(path))
    if site.logo and not (path.parent / site.logo).is_file():
        raise UserError(f"{path}: logo: there is no file {path.parent / site.logo}")
    return site
