"""`ltbench publish`: the static site, its versions, its feed, and what a stopped call or hostile text does to it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.base.files import write_json
from harness.records.collect import Collected, collect
from harness.records.schema import costs_path
from harness.reporting import terminal
from harness.reporting.claims import Card, Claim
from harness.reporting.report import Sources, build_report
from harness.reporting.site import publish
from harness.reporting.site.config import Board, Site, read_site
from harness.reporting.site.publish import publish_site
from harness.reporting.site.versions import MANIFEST, RowFacts, moved
from harness.reporting.terminal import show
from tests.factories import sources
from tests.reporting.conftest import HOSTILE, store
from tests.reporting.test_browser import CHROMIUM, browser  # noqa: F401 - a fixture
from tests.reporting.test_speed import FIGURES, written

SITE = Site("Boards of a lab", "One sentence.", [Board("digits", "Digits", dataset="mnist5k")], licence="CC-BY-4.0")
ATOM = "{http://www.w3.org/2005/Atom}"
NEVER = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def commit(when: str, *paths: str) -> None:
    """Commits what lies in the working folder, at a time of its own."""
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    for line in (["init", "-q"], ["add", *(paths or ["."])], ["commit", "-q", "-m", "records"]):
        subprocess.run(["git", *line], check=True, env={**os.environ, **NEVER, **dates})


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with three methods' records, committed on two days."""
    monkeypatch.chdir(tmp_path)
    records = Path("results/records")
    for seed in range(2):
        store(records, "crt", seed, [0.9] * 10)
        store(records, "balanced_softmax", seed, [0.8] * 10)
    commit("2026-01-02T10:00:00Z")
    store(records, "ce", 0, [0.7] * 10)
    commit("2026-01-05T10:00:00+09:00")
    return tmp_path


def found() -> Collected:
    return replace(collect(Path("results/records")), unchecked=[])  # as if their split were here


def published(out: str = "site", site: Site = SITE, origin: Sources | None = None) -> publish.Published:
    return publish_site(found(), origin or sources(), site, Path(out))


def tree(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Links(HTMLParser):
    """What a page links to and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def dead_links(root: Path) -> list[str]:
    """Links of the pages that lead to no file; those within a page and to other sites are passed over."""
    dead = []
    for page in root.rglob("*.html"):
        for link in Links(page.read_text()).found:
            target = unquote(link.partition("#")[0])
            if not re.match(r"https?:|data:", link) and target and not (page.parent / target).is_file():
                dead.append(f"{page.relative_to(root)}: {link}")
    return dead


def test_a_site_has_a_page_for_everything_and_no_dead_link(checkout: Path) -> None:
    done = published()
    files = tree("site")
    assert (done.manifest.name[:11], done.archived) == ("2026-01-05-", "")
    keys = [record.run_key for _, record in found().records]
    wanted = {"index.html", "boards/digits/index.html", "boards/digits/tables/leaderboard.csv", "feed.xml", "badge.svg"}
    wanted |= {
        "downloads/results.csv",
        "downloads/results.json",
        "downloads/leaderboard.html",
        "methods/crt/index.html",
    }
    wanted |= {f"runs/{key}/{name}" for key in keys for name in ("index.html", "record.json", "evidence.npz")}
    assert wanted <= set(files)
    assert dead_links(Path("site")) == []
    for path, record in found().records:
        assert files[f"runs/{record.run_key}/record.json"] == path.read_bytes()
        assert files[f"runs/{record.run_key}/evidence.npz"] == path.with_suffix(".npz").read_bytes()
    assert b"<title>Digits - Boards of a lab</title>" in files["boards/digits/index.html"]
    assert b"<h1>Digits</h1>" in files["boards/digits/index.html"]
    assert len(json.loads(files["downloads/results.json"])["results"]) == 10
    assert not any(b"<script" in text for name, text in files.items() if name.endswith("html") and "runs/" in name)


def test_a_training_time_is_the_same_on_every_page_and_in_the_terminal(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From timed steps, where there are some; the seconds of these runs say 6."""
    for path, _ in found().records:
        spent = 60.0 if "crt" in path.parts else 10.0
        stages = {"train": {"images_per_second": 100.0, "train_seconds": 10.0}}
        write_json(costs_path(path), {"device": "CPU", "train_seconds": spent, "stages": stages})
    steps = [
        {"method": name, "stage": "train", "shared_by": [], "ratio": {"median": ratio}}
        for name, ratio in (("ce", 1.0), ("crt", 1.5))
    ]
    origin = sources(benches=[written(checkout, parts=FIGURES["parts"] | {"steps": steps})])
    published(origin=origin)
    build_report(found(), Path("report"), origin)
    monkeypatch.setattr(terminal, "sources", lambda: origin)
    show(found(), "", "last", "csv")
    csvs = [Path(folder, "tables/leaderboard.csv").read_text() for folder in ("report", "site/boards/digits")]
    for text in [*csvs, capsys.readouterr().out]:
        lines = [line for line in csv.DictReader(text.splitlines()) if line["selection"] == "last"]
        assert {line["method"]: line["time_over_ce"] for line in lines if line["method"] in ("ce", "crt")} == {
            "ce": "1.00",
            "crt": "1.50",
        }
    assert '<section id="speed"' in Path("report/leaderboard.html").read_text()
    assert '<section id="speed"' not in Path("site/boards/digits/index.html").read_text()


def test_the_same_records_give_the_same_bytes_and_no_second_version(checkout: Path) -> None:
    published("one")
    published("other")
    published("one")
    assert tree("one") == tree("other")
    assert not any(re.match(r"archive/\d", name) for name in tree("one"))


def test_an_earlier_version_is_kept_and_the_changes_are_listed(checkout: Path) -> None:
    first = published().manifest
    before = tree("site")
    shutil.rmtree("results/records/crt")
    store(Path("results/records"), "ce", 0, [0.96] * 10)
    store(Path("results/records"), "ce", 1, [0.96] * 10)
    commit("2026-02-01T10:00:00Z")
    second = published()
    assert second.archived == first.name
    now = tree("site")
    assert dead_links(Path("site")) == []
    kept = {name: now[f"archive/{first.name}/{name}"] for name in before if not name.startswith("archive/")}
    unlike = [name for name, data in kept.items() if data != before[name]]
    assert all(name.endswith(".html") for name in unlike)
    assert b"This is an earlier version" in kept["runs/" + next(iter(first.records.values())).address + "/index.html"]
    assert not any(name.startswith("methods/crt/") for name in now)
    page = Path(f"site/archive/{first.name}..{second.manifest.name}.html").read_text()
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "records added: 1, changed: 1, removed: 2." in text
    assert "ce digits mnist5k-lt-if100-paper 3 70.0 % (n = 1) 1 96.0 % (n = 2)" in text
    assert "crt digits mnist5k-lt-if100-paper 1 90.0 % (n = 2) not there" in text
    third = published(site=replace(SITE, title="Another title"))
    assert third.archived == "", "the records are the same"


accuracies = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 5), max_size=9)


@given(accuracies, accuracies)
def test_only_rows_that_pass_each_other_have_moved(before: dict[str, int], change: dict[str, int]) -> None:
    """Rows that come or go push others up and down; that is no news of these others."""

    def rows(means: dict[str, int]) -> list[RowFacts]:
        ranks = {name: 1 + sum(other > mean for other in means.values()) for name, mean in means.items()}
        return [RowFacts("board", "table", name, ranks[name], mean / 10, 3) for name, mean in means.items()]

    gone = set(list(change)[::2])
    after = {name: mean for name, mean in (change | before).items() if name not in gone}
    moves, made_room = moved(rows(before), rows(after))
    assert {one.row.row for one in moves} == before.keys() ^ after.keys()
    old = {row.row: row.rank for row in rows(before)}
    assert made_room == sum(old.get(row.row, row.rank) != row.rank for row in rows(after))


def test_rows_that_pass_each_other_are_named() -> None:
    ranks = ({"a": 1, "b": 2, "c": 3}, {"b": 1, "a": 2, "new": 2, "c": 4})
    older, newer = ([RowFacts("", "t", name, rank, 0.5, 3) for name, rank in one.items()] for one in ranks)
    moves, made_room = moved(older, newer)
    assert [one.row.row for one in moves] == ["a", "b", "new"]
    assert made_room == 1


@pytest.mark.parametrize("moves", [0, 9, 60])
def test_a_stopped_call_is_finished_by_the_next(checkout: Path, monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    published()
    shutil.copytree("site", "whole")
    store(Path("results/records"), "ce", 1, [0.96] * 10)
    commit("2026-02-01T10:00:00Z")
    published("whole")
    left, move = iter(range(moves)), publish._move

    def stopping(file: Path, to: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(file, to)

    monkeypatch.setattr(publish, "_move", stopping)
    with pytest.raises(KeyboardInterrupt):
        published()
    monkeypatch.setattr(publish, "_move", move)
    published()
    assert tree("site") == tree("whole")


def test_a_stop_as_a_page_leaves_gives_it_one_notice(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = published().manifest
    store(Path("results/records"), "ce", 1, [0.96] * 10)
    commit("2026-02-01T10:00:00Z")

    def stopping(real: Callable[..., None]) -> Callable[..., None]:
        def at_the_page(file: Path, *words: Any, **more: Any) -> None:
            if file == Path("site/index.html"):
                raise KeyboardInterrupt
            real(file, *words, **more)

        return at_the_page

    with monkeypatch.context() as patched:
        patched.setattr(publish, "_move", stopping(publish._move))
        patched.setattr(Path, "unlink", stopping(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            published()
    published()
    assert Path("site/archive", first.name, "index.html").read_text().count("This is an earlier version") == 1


def test_uncommitted_records_have_no_date(checkout: Path) -> None:
    store(Path("results/records"), "ce", 2, [0.5] * 10)
    done = published()
    assert done.manifest.name == done.manifest.version
    assert "not committed" in Path("site/index.html").read_text()
    assert len(ElementTree.parse("site/feed.xml").findall(f"{ATOM}entry")) == 5


def test_the_feed_has_the_newest_record_first_with_the_time_of_its_commit(checkout: Path) -> None:
    store(Path("results/records"), "crt", 1, [0.85] * 10)
    commit("2026-03-01T00:00:00Z")
    published(site=replace(SITE, url="https://example.org/lt"))
    root = ElementTree.parse("site/feed.xml").getroot()
    entries = root.findall(f"{ATOM}entry")
    texts = [(one.findtext(f"{ATOM}updated"), (one.findtext(f"{ATOM}summary") or "").split()[0]) for one in entries]
    assert texts[:2] == [("2026-03-01T00:00:00Z", "Changed"), ("2026-01-05T01:00:00Z", "New")]
    assert root.findtext(f"{ATOM}updated") == "2026-03-01T00:00:00Z"
    link = entries[0].find(f"{ATOM}link")
    assert link is not None
    assert link.attrib["href"].startswith("https://example.org/lt/runs/")
    assert len({one.findtext(f"{ATOM}id") for one in entries}) == 5


def test_hostile_names_stay_text_and_lead_nowhere(made: Collected, tmp_path: Path, claims: list[Claim]) -> None:
    (path, record), *others = made.records
    far = replace(record, run_key="../../../etc", method="../../x\x1b", variant="")
    hostile = replace(made, records=[(path, far), *others])
    card = Card(f"card {HOSTILE}", "no code", tuple(replace(one, method="card", value=1.5) for one in claims))
    site = replace(SITE, title=HOSTILE, citation=HOSTILE, boards=[])
    publish_site(hostile, sources(claims, cards=[card]), site, tmp_path / "deep/er/site")
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep/er").iterdir()} == {"site"}
    for page in (tmp_path / "deep/er/site").rglob("*.html"):
        assert HOSTILE not in page.read_text()
    reported = (tmp_path / "deep/er/site/reported/index.html").read_text()
    assert "card &lt;script&gt;" in reported
    assert "1.5" in reported
    ElementTree.parse(tmp_path / "deep/er/site/feed.xml")
    assert dead_links(tmp_path / "deep/er/site") == []


def test_one_run_measured_twice_has_two_pages(checkout: Path) -> None:
    shutil.copytree("results/records/ce", "results/records/again")
    record = json.loads(Path("results/records/again/seed0.json").read_text())
    store(Path("results/records/again"), "ce", 0, [0.6] * 10, run_key=record["run_key"])
    shutil.rmtree("results/records/ce")
    done = published()
    addresses = [one.address for one in done.manifest.records.values()]
    assert len(set(addresses)) == len(addresses) == 6
    assert sum(one.startswith(record["run_key"]) for one in addresses) == 2


def test_a_folder_that_is_no_site_is_left_alone(checkout: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years")
    with pytest.raises(UserError, match=r"mine: holds thesis\.tex, and no site\.json"):
        published("mine")
    assert tree("mine") == {"thesis.tex": b"years"}
    published()
    Path("site/CNAME").write_text("example.org")
    manifest = json.loads(Path("site", MANIFEST).read_text())
    Path("site", MANIFEST).write_text(json.dumps(manifest | {"files": ["../mine/thesis.tex"]}))
    with pytest.raises(UserError, match=r"names the file '\.\./mine/thesis\.tex'"):
        published()
    Path("site", MANIFEST).write_text(json.dumps(manifest))
    published()
    assert Path("site/CNAME").read_text() == "example.org"


def test_a_folder_with_a_new_of_its_own_is_left_alone(checkout: Path) -> None:
    for name in ("mine/thesis.tex", "mine/.new/draft.tex", "empty/.new/draft.tex"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("years")
    for folder in ("mine", "empty"):
        before = tree(folder)
        with pytest.raises(UserError, match=f"^{folder}"):
            published(folder)
        assert tree(folder) == before
    published()
    Path("site/.new").mkdir()
    Path("site/.new/draft.tex").write_text("years")
    before = tree("site")
    with pytest.raises(UserError, match=r"^site/\.new: ltbench publish did not make it"):
        published()
    assert tree("site") == before


@pytest.mark.parametrize("theirs", ["methods/crt/index.html", "runs", "feed.xml"])
def test_a_users_file_is_not_written_over(checkout: Path, theirs: str) -> None:
    """Neither by the first version nor by one that has a new page of that name."""
    published()
    known = set(tree("site"))
    manifest = json.loads(Path("site", MANIFEST).read_text())
    if theirs == "runs":
        shutil.rmtree("site/runs")
    manifest["files"] = [name for name in manifest["files"] if not name.startswith(theirs)]
    Path("site", MANIFEST).write_text(json.dumps(manifest))
    Path("site", theirs).write_text("mine")
    before = {name: data for name, data in tree("site").items() if not name.startswith(".new")}
    with pytest.raises(UserError, match=f"^site/{theirs}: .*move it away$"):
        published()
    assert {name: data for name, data in tree("site").items() if not name.startswith(".new")} == before
    Path("site", theirs).unlink()
    published()
    assert set(tree("site")) == known


def test_nothing_is_removed_through_a_symbolic_link(checkout: Path) -> None:
    published()
    Path("site/runs").rename("elsewhere")
    Path("site/runs").symlink_to(checkout / "elsewhere")
    before = tree("elsewhere")
    store(Path("results/records"), "ce", 1, [0.96] * 10)
    with pytest.raises(UserError, match=r"^site/runs: a file or a symbolic link where the site has a folder"):
        published()
    assert tree("elsewhere") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: x", "unknown key 'titel' \\(closest is 'title'"),
        ("title: ''", "title must say something"),
        ("title: x\nurl: example.org", "url must start with https://"),
        ("title: x\nlogo: no.svg", "there is no file"),
        ("title: x\nlogo: ../../logo.exe", "logo must be one of .svg, .png"),
        ("title: x\nboards: [{id: a, title: A}]", "board 'a': give either 'suite' or 'dataset'"),
        ("title: x\nboards: [{id: A b, title: A, dataset: x}]", "id must be of small letters"),
        ("title: x\nboards: [{id: a, title: A, dataset: x}, {id: a, title: B, dataset: y}]", "an id stands twice"),
    ],
)
def test_a_mistake_in_the_description_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_site(path)


def test_a_board_of_an_unknown_suite_is_named(checkout: Path) -> None:
    with pytest.raises(UserError, match="no suite is named 'mnist'"):
        published(site=replace(SITE, boards=[Board("a", "A", suite="mnist")]))


def test_the_logo_is_shown(checkout: Path) -> None:
    Path("logo.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    publish_site(found(), sources(), replace(SITE, logo="logo.svg"), Path("site"), Path())
    assert '<img class="logo" src="logo.svg"' in Path("site/index.html").read_text()
    assert dead_links(Path("site")) == []


def test_the_committed_description_is_sound() -> None:
    assert read_site(Path(__file__).parents[2] / "reports/site.yaml").boards


@pytest.fixture
def site(checkout: Path, claims: list[Claim], folders: dict[str, Path]) -> Path:
    card = Card("A card", "its code is not published", (replace(claims[0], method="A card"),))
    origin = sources(claims, folders=folders, cards=[card])
    published(origin=origin)
    store(Path("results/records"), "ce", 1, [0.96] * 10)
    commit("2026-02-01T10:00:00Z")
    published(origin=origin)
    return checkout / "site"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_every_kind_of_page_is_sound_in_a_browser(browser: Any, site: Path, scheme: str, width: int) -> None:  # noqa: F811
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    pages = ["index.html", "reported/index.html", "archive/index.html", "methods/balanced_softmax/index.html"]
    kinds = ("runs/*/*.html", "archive/*..*.html", "archive/*/index.html", "archive/*/archive/index.html")
    pages += [str(next(site.glob(pattern)).relative_to(site)) for pattern in kinds]
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    trouble: list[str] = []
    for name in pages:
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("request", lambda request: trouble.extend([request.url] * (not request.url.startswith("file:"))))
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert axe.Axe().run(page).response["violations"] == [], name
        page.close()
    assert trouble == []
    context.close()
