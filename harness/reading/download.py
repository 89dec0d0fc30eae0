"""Downloads from a data set's own site. What arrives is checked against its pin before anything is put in place."""

from __future__ import annotations

import shutil
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

from harness.base.errors import UserError

TIMEOUT = 60  # seconds without a byte


def download(url: str, target: Path, advice: str) -> None:
    """Writes what the address gives to `target`.

    Args:
        url: http or https.
        target: overwritten.
        advice: what the user can do when it fails; ends the message.

    Raises:
        UserError: the address cannot be read to its end.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url}: not an http address")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(target, "wb") as file:  # noqa: S310
            print(f"downloading {url}", file=sys.stderr)  # it may take minutes
            shutil.copyfileobj(response, file, 2**20)
    except (OSError, HTTPException) as error:  # no network, no such page, a broken connection
        cause = getattr(error, "reason", None) or error
        reason = " ".join(str(getattr(cause, "strerror", None) or cause).split())
        raise UserError(f"{url}: cannot be downloaded ({reason}); {advice}") from None
