"""The page as text: deterministic, self-contained, and nothing in a record can become markup."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.base.files import stamped, write_json
from harness.records.collect import Collected, collect
from harness.records.schema import costs_path, write_record
from harness.reporting.claims import Claim
from harness.reporting.report import build_report
from harness.reporting.site.config import Site
from tests.factories import collected, make_record, sources
from tests.reporting.conftest import HOSTILE

BREAKOUT = "</script><script>alert(1)</script>"


class Outline(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.raw = tag if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if not self.raw:
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.raw = ""

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def build(made: Collected, claims: list[Claim], out: Path) -> str:
    return build_report(made, out, sources(claims)).read_text(encoding="utf-8")


def test_two_builds_are_the_same_bytes(made: Collected, claims: list[Claim], tmp_path: Path) -> None:
    first = build_report(made, tmp_path / "a", sources(claims)).read_bytes()
    backwards = Collected(made.records[::-1], made.left_out[::-1])
    assert build_report(backwards, tmp_path / "b", sources(claims[::-1])).read_bytes() == first


def test_the_page_does_not_know_where_it_was_built(tmp_path: Path) -> None:
    pages = []
    for place in ("here", "over/there"):
        root = tmp_path / place / "records"
        write_record(root / "a" / "1.json", make_record())
        write_record(root / "b" / "2.json", make_record("tvmf"))
        (root / "bad.json").write_text("{")
        pages.append(build(collect(root), [], tmp_path / place / "out"))
    assert pages[0] == pages[1]
    assert str(tmp_path) not in pages[0]
    assert "a/1.json" in pages[0]


def test_the_page_needs_nothing_but_itself(made: Collected, claims: list[Claim], tmp_path: Path) -> None:
    outline = Outline(build(made, claims, tmp_path))
    links = [value for _, attrs in outline.tags for key, value in attrs.items() if key in ("src", "href")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    ids = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    assert {link[1:] for link in links if link and link.startswith("#")} <= ids


def test_hostile_text_stays_text(made: Collected, claims: list[Claim], tmp_path: Path) -> None:
    page = build(made, claims, tmp_path)
    assert "<script>alert" not in page
    outline = Outline(page)
    assert outline.text.count("alert(1)") >= 4  # row, drawer, left-out file and claim
    scripts = [attrs for tag, attrs in outline.tags if tag == "script"]
    assert [attrs.get("type") for attrs in scripts] == ["application/json", "application/json", None]


def test_hostile_text_cannot_leave_an_attribute(tmp_path: Path) -> None:
    attack = '" onmouseover="alert(1)'
    record = make_record(attack, backbone=attack, split=attack, split_sha256=attack, class_counts=[9] * 13)
    outline = Outline(build(collected(record), [], tmp_path))
    assert not [attrs for _, attrs in outline.tags if "onmouseover" in attrs]
    assert [attrs for _, attrs in outline.tags if attrs.get("data-text") == attack]


def test_embedded_data_cannot_end_its_element(tmp_path: Path) -> None:
    name = f"{BREAKOUT}<!-- & \u2028"
    page = build(collected(make_record(name)), [], tmp_path)
    (text,) = re.findall(r'<script type="application/json" data-board="[^"]*">(.*?)</script>', page)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["series"][0]["name"] == name


def test_the_policy_admits_exactly_the_own_script(made: Collected, tmp_path: Path) -> None:
    page = build(made, [], tmp_path)
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", page)) == 2


def test_failures_claims_and_damaged_files_are_on_the_page(
    made: Collected, claims: list[Claim], tmp_path: Path
) -> None:
    text = Outline(build(made, claims, tmp_path)).text
    assert "2 of 3 seeds; seed 1 failed: loss is NaN" in text
    assert "1 file was left out" in text
    assert "results/records/cut.json" in text
    assert f"not a record {HOSTILE}" in text
    assert "2 published numbers" in text
    assert "not run" in text


def test_group_sizes_stand_in_the_headers(made: Collected, tmp_path: Path) -> None:
    text = Outline(build(made, [], tmp_path)).text
    assert "Many (3 classes)" in text
    assert "Few (0 classes)" not in text
    assert "Not shown: Few: no class is few-shot in this split (strict_100_20)." in text


def test_known_costs_are_shown_and_unknown_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "records" / "1.json"
    write_record(path, make_record())
    stages = {"train": {"wall_seconds": 12.5}, "broken": 3}
    costs = {
        "device": f"gpu {HOSTILE}",
        "wall_seconds": 1234.5,
        "threads": [1],
        "secret": "do not print",
        "stages": stages,
    }
    write_json(costs_path(path), costs | {"versions": {"torch": "2.6"}})
    text = Outline(build(collect(tmp_path / "records"), [], tmp_path / "out")).text
    for shown in (f"gpu {HOSTILE}", "1,234.5", "torch 2.6", "train: Wall time (s)12.5"):
        assert shown in text
    assert "do not print" not in text
    assert "Threads" not in text


def test_a_time_that_was_not_taken_alone_is_grey_and_says_why(tmp_path: Path) -> None:
    for name, seconds in (("ce", 100.0), ("crt", 150.0)):
        path = tmp_path / f"records/{name}.json"
        write_record(path, make_record(name))
        write_json(costs_path(path), stamped({"device": "CPU", "train_seconds": seconds}))
    page = build(collect(tmp_path / "records"), [], tmp_path / "out")
    start = '<td class="number cost none" data-col="wall_seconds" data-value="1.5" '
    cell = page.partition(start)[2].partition("</td>")[0]
    title = "from the seconds of its runs, machine load included"
    assert cell == f'title="{title}">1.50\N{MULTIPLICATION SIGN}'
    lines = csv.DictReader((tmp_path / "out" / "tables" / "leaderboard.csv").read_text(encoding="utf-8").splitlines())
    assert {(line["method"], line["time_over_ce"]) for line in lines} == {("ce", "1.00"), ("crt", "1.50")}


@pytest.mark.parametrize("content", ["{", "[1]", '{"versions": 3, "stages": [], "device": null}'])
def test_damaged_costs_stop_nothing(content: str, tmp_path: Path) -> None:
    path = tmp_path / "records" / "1.json"
    write_record(path, make_record())
    costs_path(path).write_text(content)
    assert "Peak memory" not in build(collect(tmp_path / "records"), [], tmp_path / "out")


def test_the_drawer_says_once_what_all_runs_share(tmp_path: Path) -> None:
    for seed in range(2):
        path = tmp_path / "records" / f"{seed}.json"
        write_record(path, make_record("ce", seed))
        write_json(costs_path(path), {"device": "one device", "wall_seconds": 10.0 + seed})
    text = Outline(build(collect(tmp_path / "records"), [], tmp_path / "out")).text
    assert text.count("one device") == 1
    assert "10.0" in text
    assert "11.0" in text


def test_the_drawer_begins_with_what_runs_a_row_again(tmp_path: Path) -> None:
    for seed in range(2):
        path = tmp_path / "records" / f"{seed}.json"
        write_record(path, make_record("ce", seed, track="common"))
        costs = {"device": "CPU, 1 thread", "processor": "A processor", "commit": f"abc{seed}+"}
        write_json(costs_path(path), costs)
    page = build(collect(tmp_path / "records"), [], tmp_path / "out")
    drawer = page.partition('<details class="drawer"')[2].partition('<details class="fold">')[0]
    text = Outline(drawer).text
    assert 'href="#mnist5k-lt-if100-common">Back to the board' in drawer
    command = "ltbench run mnist5k-lt-if100 ce@common --seeds 0,1"
    places = [text.index(one) for one in (command, "Seeds0, 1", "DeviceCPU, 1 thread", "Commitabc0+; abc1+")]
    assert places == sorted(places)
    assert "Recipe, as resolved" not in text
    assert "a + behind it: with uncommitted changes" in Outline(page).text


def test_what_runs_a_row_again_has_its_recipe(tmp_path: Path) -> None:
    """Here that of a checkout whose recipe has another rate and batch size, then one with a further key."""
    record = make_record("ce", recipe={"backbone": "lenet", "params": {}, "train": {"lr": 0.1, "batch_size": 8}})
    now: dict[str, Any] = {"backbone": "lenet", "params": {}, "train": {"lr": 0.2, "batch_size": 4}}
    origin = sources(resolve=lambda entry, dataset: now if entry == record.entry else None)
    page = build_report(collected(record), tmp_path, origin).read_text(encoding="utf-8")
    text = Outline(page).text
    assert text.count("--seeds 0 --set batch_size=8 --set lr=0.1") == 2  # in its drawer and at its method
    assert "recipe of this row is another one now: the command asks for that of its runs" in text
    now["train"]["label_smoothing"] = 0.1  # which no `--set` takes away
    text = Outline(build_report(collected(record), tmp_path, origin).read_text(encoding="utf-8")).text
    assert text.count("--seeds 0 --set") == 0
    assert "recipe of this row is another one now: the command measures something else" in text
    now["train"] = dict(record.recipe["train"])
    page = build_report(collected(record), tmp_path, origin).read_text(encoding="utf-8")
    assert "--set" not in Outline(page.partition('class="drawer"')[2].partition('<details class="fold">')[0]).text
    assert "another one now" not in page
    odd = make_record("ce", recipe={"backbone": "lenet", "params": [1], "train": "fast"})
    now |= {"train": {}}
    assert "another one now" in build_report(collected(odd), tmp_path, origin).read_text(encoding="utf-8")


@pytest.mark.parametrize("repository", ["", "https://example.org/lab/x", "https://gitlab.example.org/lab/x"])
def test_a_page_without_a_repository_says_so_and_one_with_it_links_there(repository: str, tmp_path: Path) -> None:
    site = Site("Ours", repository=repository, citation="@misc{ours}")
    page = build_report(collected(make_record()), tmp_path, sources(site=site)).read_text(encoding="utf-8")
    names = ("contribute", "report-error", "cite")
    parts = {name: Outline(page.partition(f'id="{name}"')[2].partition("</section>")[0]) for name in names}
    links = {name: [attrs.get("href") for tag, attrs in one.tags if tag == "a"] for name, one in parts.items()}
    if not repository:
        said = "This page was published without a repository address: "
        assert f"{said}ask whoever published it for a clone" in parts["contribute"].text
        assert f"{said}write to whoever published it." in parts["report-error"].text
        assert not any(links.values())
        assert 'rel="noreferrer">Repository' not in page
        return
    folder = f"{repository}/-/blob/HEAD" if "gitlab" in repository else f"{repository}/blob/HEAD"
    assert links["contribute"] == [repository, f"{folder}/SUBMITTING.md", f"{folder}/CONTRIBUTING.md"]
    assert links["report-error"][0] == links["cite"][0] == repository
    assert f"git clone {repository} ltbench" in parts["contribute"].text
    assert "without a repository address" not in page


def test_half_a_character_stops_nothing(tmp_path: Path) -> None:
    assert "broken ?" in build(collected(make_record(failure="broken \ud800")), [], tmp_path)


def test_no_record_at_all_is_still_a_page(tmp_path: Path) -> None:
    assert "There is no record to report yet." in Outline(build(Collected([], []), [], tmp_path)).text


def test_reporting_needs_no_torch() -> None:
    code = "import sys, harness.reporting.report, harness.reporting.claims; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_record_of_other_code_or_of_a_lost_method_is_marked(tmp_path: Path) -> None:
    now = make_record("ce")
    page = build_report(collected(now, make_record("lost")), tmp_path, sources(current={"ce": "0123456789abcdef"}))
    text = Outline(page.read_text()).text
    assert f"measured with code {now.code_version}, which is now 0123456789abcdef" in text
    assert "its method is no longer here" in text
    page = build_report(collected(now), tmp_path, sources(current={"ce": now.code_version}))
    assert "measured with code" not in page.read_text()


def test_what_the_choice_of_epoch_does_on_every_board_stands_in_one_place(tmp_path: Path) -> None:
    shifts = {("tiny-lt-if10", "ce"): 0.02, ("tiny-lt-if50", "ce"): 0.04}
    made = [make_record(name, split=split, optimism=by) for (split, name), by in shifts.items()]
    found = re.search(r'<section id="choice-of-epoch".*?</section>', build(collected(*made), [], tmp_path), re.DOTALL)
    assert found
    assert re.findall(r"All rises by (.*?) points", found[0]) == ["2.0", "4.0"]
    assert "choice-of-epoch" not in build(collected(make_record(failure="loss is NaN")), [], tmp_path)
