"""Who measured a campaign's records: `submission.yaml` in its folder, if there is one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.base import config
from harness.base.files import read_yaml

SENDER = "submission.yaml"


@dataclass(frozen=True)
class Sender:
    """A person or a lab, as the pages name it; a link to it; and what a reader should know of these runs."""

    who: str
    link: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.who.strip():
            raise ValueError("who must say something")
        if self.link and not re.fullmatch(r"https?://[^\s\"'<>]+", self.link):
            raise ValueError(f"link must start with https:// or http://, found '{self.link}'")


def read_sender(folder: Path) -> Sender | None:
    """What stands in a campaign's folder, sent or imported.

    Raises:
        UserError: the file is damaged, or has an unknown key or a wrong value.
    """
    path = folder / SENDER
    return config.build(Sender, read_yaml(path), str(path)) if path.is_file() else None


def sender_of(record: Path) -> Sender | None:
    """Who measured a record that lies in a campaign's folder, or in the `records` of one.

    Raises:
        UserError: as `read_sender`.
    """
    return next(filter(None, map(read_sender, [*record.parents][:5])), None)
