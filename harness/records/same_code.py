"""Code versions that measure the same: which edits changed no number.

Any edit of the engine gives all methods a new code version, so results that took days would count as measured with
older code. `ltbench same-bits REV` (`harness.running.same_bits`) shows which methods measure the same, and writes
the pairs of versions down. That is evidence from a small suite, not a proof for every run, and is called so.
"""

from __future__ import annotations

from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import read_json
from harness.spec.provenance import code_version
from harness.spec.registry import get_plugin

SAME_CODE = Path("results/same_code.json")


def read_same_code(path: Path = SAME_CODE) -> dict[str, dict[str, str]]:
    """Old code version -> the one that measured the same, and on what; empty where nothing was written down.

    Raises:
        UserError: damaged.
    """
    if not path.is_file():
        return {}
    value = read_json(path, "code versions")
    fits = isinstance(value, dict) and all(
        isinstance(entry, dict)
        and set(entry) == {"method", "now", "on"}
        and all(isinstance(v, str) for v in entry.values())
        for entry in value.values()
    )
    if not fits:
        raise UserError(f"{path}: damaged; delete it, and compare again with `ltbench same-bits REV`")
    return dict(value)


def measured_the_same(version: str, current: str, known: dict[str, dict[str, str]]) -> bool:
    """Whether the version is known to measure the same as the current one, in any number of steps."""
    seen = set()
    while version != current and version in known and version not in seen:
        seen.add(version)
        version = known[version]["now"]
    return version == current


def versions_of(method: str, known: dict[str, dict[str, str]]) -> list[str]:
    """This checkout's code version of a method, then the older ones that measured the same."""
    current = code_version(get_plugin(method).folder)
    older = [version for version, to in known.items() if to["method"] == method]
    return [current, *(version for version in older if measured_the_same(version, current, known))]
