"""The first screen: its sentences are what the records say, and they change or vanish with them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from harness.records.collect import collect
from harness.records.progress import read_progress
from harness.reporting.boards import Board, boards_of
from harness.reporting.comparison import MeasuredRows
from harness.reporting.overview import Overview, overview
from harness.reporting.paper_tables import fill
from harness.reporting.report import build_report, ranked_sections
from tests.factories import collected, make_record, sources
from tests.reporting.conftest import HOSTILE, NO_TAIL, method_folders, store, two_claims
from tests.reporting.test_paper_tables import CLAIM, ROW, TABLE, runs

CIFAR: dict[str, Any] = {"dataset": "cifar10", "split": "cifar10-lt-if10", "imbalance_factor": 10.0}
RUNNING = ("balanced_softmax@paper", "ce@common")  # the second says nothing of a paper
TITLES = {"balanced_softmax": "Balanced Softmax", "ce": "Cross-entropy", "crt": "cRT"}


def first_screen(root: Path, **accuracies: list[float]) -> Overview:
    """Of one table, three seeds a method."""
    for method, by_class in accuracies.items():
        for seed in range(3):
            store(root / "records", method, seed, by_class)
    ranked = ranked_sections(collect(root / "records"))
    return overview(boards_of(ranked.sections), [], TITLES)


def sentence(found: Overview, start: str) -> str:
    return next((one.text for one in found.findings if one.text.startswith(start)), "")


def test_the_best_of_the_rare_classes_is_named_with_its_lead_and_its_price(tmp_path: Path) -> None:
    found = first_screen(tmp_path, ce=[0.9] * 6 + [0.1] * 4, crt=[0.6] * 6 + [0.4] * 4, balanced_softmax=[0.8] * 10)
    text = sentence(found, "Rare classes")
    assert "on MNIST, 5,000 digits (10 classes) Balanced Softmax is best: 80.0 % in the 4 few-shot classes" in text
    assert "where cross-entropy has 10.0 %. It leads each of the other 2 that ran on this set, by the intervals" in text
    assert "of the paired differences in these classes (row Few of Compare): cRT by +40.0 points (95 %" in text
    assert "The price: \N{MINUS SIGN}10.0 points" in text


def test_other_records_give_another_sentence(tmp_path: Path) -> None:
    found = first_screen(tmp_path, ce=[0.9] * 6 + [0.1] * 4, crt=[0.9] * 6 + [0.9] * 4, balanced_softmax=[0.8] * 10)
    text = sentence(found, "Rare classes")
    assert "cRT is best: 90.0 %" in text
    assert "price" not in text


def test_methods_that_did_not_run_there_are_counted(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path / "a", "ce", seed, [0.5] * 10)
        store(tmp_path / "a", "crt", seed, [0.8] * 10)
        store(tmp_path / "b", "balanced_softmax", seed, [0.6] * 10, class_counts=NO_TAIL, **CIFAR)
    ranked = ranked_sections(collect(tmp_path))
    boards = sorted(boards_of(ranked.sections), key=lambda board: board.title, reverse=True)
    text = sentence(overview(boards, [], TITLES), "Rare classes")
    assert "1 of 3 methods has not run there." in text


def test_a_lead_that_no_interval_bears_out_is_said(tmp_path: Path) -> None:
    found = first_screen(tmp_path, ce=[0.9] * 6 + [0.1] * 4, crt=[0.8] * 10, balanced_softmax=[0.8] * 9 + [0.82])
    text = sentence(found, "Rare classes")
    assert "Balanced Softmax is best" in text
    assert "paired differences in these classes do not part it from cRT (row Few of Compare)." in text


def test_a_row_of_one_seed_hides_no_sentence_and_is_named(tmp_path: Path) -> None:
    store(tmp_path / "records", "lws", 0, [0.7] * 10)
    found = first_screen(tmp_path, ce=[0.9] * 6 + [0.1] * 4, crt=[0.6] * 6 + [0.4] * 4, balanced_softmax=[0.8] * 10)
    text = sentence(found, "Rare classes")
    assert "It leads each of the other 2 that ran on this set" in text
    assert "Too few seeds in common for an interval: lws." in text


def test_a_data_set_that_also_ran_at_full_length_counts_once(tmp_path: Path) -> None:
    for seed in range(3):
        for track, methods in (("paper", 4), ("short", 5)):
            for at, method in enumerate(("ce", "crt", "balanced_softmax", "gcl", "lws")[:methods]):
                store(tmp_path / track, method, seed, [0.5 + 0.1 * at] * 10, class_counts=NO_TAIL, track=track, **CIFAR)
    found = overview(boards_of(ranked_sections(collect(tmp_path)).sections), [], TITLES)
    assert "of the 4 methods with two seeds or more on CIFAR-10, 4 beat" in sentence(found, "All classes")


def test_no_sentence_on_rare_classes_without_a_gain_a_baseline_or_a_tail(tmp_path: Path) -> None:
    worse = first_screen(tmp_path / "worse", ce=[0.9] * 10, crt=[0.8] * 10)
    alone = first_screen(tmp_path / "alone", crt=[0.8] * 10, balanced_softmax=[0.9] * 10)
    assert not sentence(worse, "Rare classes")
    assert not alone.findings
    ranked = ranked_sections(collected(make_record("ce"), make_record("crt", accuracy=0.9)))  # without predictions
    assert not overview(boards_of(ranked.sections), [], TITLES).findings


def test_who_beats_cross_entropy_everywhere(tmp_path: Path) -> None:
    for seed in range(3):
        shaky = 0.62 if seed else 0.7
        for method, here, there in (
            ("ce", 0.6, 0.7),
            ("crt", 0.8, 0.9),
            ("balanced_softmax", 0.9, 0.6),
            ("gcl", shaky, 0.9),
        ):
            store(tmp_path / "a", method, seed, [here] * 10)
            store(tmp_path / "b", method, seed, [there] * 10, class_counts=NO_TAIL, **CIFAR)
    ranked = ranked_sections(collect(tmp_path))
    text = sentence(overview(boards_of(ranked.sections), [], TITLES), "All classes")
    assert "of the 3 methods with two seeds or more on these 2 data sets, 1 beats cross-entropy each time, " in text
    assert "with a 95 % interval above zero: cRT. gcl does on some; on the others it is not certain." in text
    assert " is better on some, and worse on another." in text, "each method has its place"
    assert "on none" not in text


def test_a_table_with_few_methods_hides_no_others(tmp_path: Path) -> None:
    for seed in range(3):
        for folder, methods, facts in (
            ("a", ("crt", "balanced_softmax", "gcl"), {}),
            ("b", ("crt", "balanced_softmax", "gcl"), {"class_counts": NO_TAIL, **CIFAR}),
            (
                "c",
                ("crt", "lws"),
                {"class_counts": NO_TAIL, **CIFAR, "split": "cifar10-lt-if50", "imbalance_factor": 50.0},
            ),
        ):
            store(tmp_path / folder, "ce", seed, [0.6] * 10, **facts)
            for method in methods:
                store(tmp_path / folder, method, seed, [0.9] * 10, **facts)
    found = overview(boards_of(ranked_sections(collect(tmp_path)).sections), [], TITLES)
    text = sentence(found, "All classes")
    assert "of the 3 methods with two seeds or more on at least two of these 3 data sets, 3 beat cross-entropy" in text
    (links,) = [one.links for one in found.findings if one.text == text]
    assert len(links) == 3, "two of one name are told apart"


def test_methods_of_other_starts_are_counted_as_the_page_counts_them(tmp_path: Path) -> None:
    """LIFT has only a row that starts from weights: it is one of the methods, and has not run on the first table."""
    tuned = {"backbone": "lenet", "pretrained": "net-12fca82f.th sha256:0", "params": {}, "train": {"epochs": 10}}
    for seed in range(3):
        store(tmp_path, "ce", seed, [0.5] * 10)
        store(tmp_path, "crt", seed, [0.8] * 10)
    store(tmp_path / "other", "lift", 0, [0.9] * 10, recipe=tuned)
    page = build_report(collect(tmp_path), tmp_path / "out", sources()).read_text(encoding="utf-8")
    assert "3 methods under stated rules" in page
    assert "1 of 3 methods has not run there." in page


def test_coverage_is_counted_and_said(tmp_path: Path) -> None:
    def page(accuracy: float) -> str:
        facts: dict[str, Any] = CIFAR | {"class_counts": NO_TAIL, "backbone": "resnet32", "optimism": 0.0}
        records = collected(*(make_record("balanced_softmax", seed, accuracy, **facts) for seed in range(3)))
        folders = method_folders(tmp_path / str(accuracy))
        made = sources(two_claims(), folders=folders)
        return build_report(records, tmp_path / f"out{accuracy}", made).read_text(encoding="utf-8")

    table = (
        f"Measured as in A paper {escape(HOSTILE)}, Table 2 (CIFAR-10, imbalance factor 10, at the epoch that is best"
    )
    fits = page(0.909)
    assert f"</strong> 1 of the 2 published numbers. {table}" in fits
    assert ": Balanced Softmax 90.9 (printed 90.9: reproduced; n = 3). " in fits
    differs = page(0.7)
    assert f"</strong> none of the 2 published numbers; 1 differs. {table}" in differs
    assert "¹" not in fits, "three seeds each"
    assert ": Balanced Softmax 70.0 (printed 90.9: differs; n = 3). " in differs
    assert ">CIFAR-10 at full length</a>" in differs
    assert "<strong>1</strong> nobody has measured it here yet" in differs
    aside = collected(make_record("balanced_softmax", 0, 0.7, **CIFAR, class_counts=NO_TAIL, track="short"))
    made = sources(two_claims(), folders=method_folders(tmp_path / "aside"))
    page_aside = build_report(aside, tmp_path / "aside", made).read_text(encoding="utf-8")
    assert "measured, but under another protocol (recipe: short track; backbone " in page_aside
    records = collected(make_record("crt"))
    nothing = build_report(records, tmp_path / "none", sources(two_claims(), folders=method_folders(tmp_path / "none")))
    assert "Reproduced so far:</strong> none of the 2 published numbers. <a" in nothing.read_text()


def test_a_row_that_stands_beside_a_number_under_another_name_is_named() -> None:
    """One paper's label for two rows would otherwise have two numbers."""
    row = replace(ROW, label="CE", measured_as={"CIFAR-100-LT 100": "ldam"})
    sections = ranked_sections(collected(*runs(0.45, variant="ldam"))).sections
    filled = fill([replace(TABLE, rows=(row,))], [CLAIM], [], MeasuredRows(sections))
    assert "CE (as ce-ldam) 45.0 (printed 45.0: reproduced; n = 1)" in overview([], filled, {}).findings[-1].text


def test_papers_says_why_nothing_is_reproduced_and_what_is_under_way(tmp_path: Path) -> None:
    """The first screen leads there."""
    running = [{"run": f"cifar100-lt-if100 {entry} seed 0 train", "epoch": 153, "epochs": 200} for entry in RUNNING]
    running.append({"run": "cifar100-lt-if100 balanced_softmax@paper seed 1 train"})
    facts = {"suite": "full-length", "left": 21, "hours_left": 89.3, "updated": "2026-11-29T21:33:21", "new": 1}
    (tmp_path / "progress.json").write_text(json.dumps(facts | {"running": running[:-1]}))
    (tmp_path / "part").mkdir()  # of the same suite, by itself: the whole still counts its runs
    part = facts | {"left": 3, "updated": "2026-11-28T09:00:00", "running": running[-1:]}
    (tmp_path / "part/progress.json").write_text(json.dumps(part))
    (tmp_path / "later").mkdir()  # at another commit, whose suite has what the whole's has not
    later = {"left": 2, "commit": "1df68c99af0d", "running": [{"run": "cifar100-lt-if100 ce-ldam@paper seed 1 train"}]}
    (tmp_path / "later/progress.json").write_text(json.dumps(part | later))
    short = {"backbone": "resnet20_cifar", "train": {"epochs": 20}, "params": {}}
    runs = [make_record("ce", seed, track="short", recipe=short, **CIFAR, class_counts=NO_TAIL) for seed in range(3)]
    made = sources(two_claims(), folders=method_folders(tmp_path))
    made = replace(made, campaigns=[read_progress("", tmp_path / place) for place in ("", "part", "later")])
    page = build_report(collected(*runs), tmp_path / "out", made).read_text(encoding="utf-8")
    why = "Why so few: the 3 runs here have a recipe of this project, with a first stage of up to 20 epochs. They"
    under_way = (
        "own recipes: Balanced Softmax seed 0 (epoch 153 of 200), Balanced Softmax seed 1 (has just begun), "
        "cross-entropy (ldam) seed 1 (has just begun) on CIFAR-100, imbalance factor 100; 23 runs left on 2026-11-29."
    )
    for text, times in (("none of the 2 published numbers", 2), (why, 1), (under_way, 1)):
        assert page.count(text) == times, text
    assert '<a href="#published">Why, and paper by paper</a>' in page
    done = make_record("balanced_softmax", 1, track="paper", dataset="cifar100", split="cifar100-lt-if100")
    page = build_report(collected(*runs, done), tmp_path / "done", made).read_text(encoding="utf-8")
    assert under_way.replace(", Balanced Softmax seed 1 (has just begun)", "") in page, "what has a record is done"
    first = build_report(collected(make_record("ce"), *runs), tmp_path / "some", made).read_text(encoding="utf-8")
    assert "Why so few: 3 of the 4 runs here have" in first


def heat(*records: Any) -> dict[str, list[tuple[float, int, bool] | None]]:
    shown = overview(boards_of(ranked_sections(collected(*records)).sections), [], {}).heat
    return {
        method: [(round(100 * c.value, 1), c.level, c.best) if c else None for c in cells]
        for method, cells in shown.rows
    }


def test_the_heat_map_holds_every_method_against_cross_entropy() -> None:
    cifar: dict[str, Any] = CIFAR | {"class_counts": NO_TAIL}
    found = heat(
        make_record("ce", accuracy=0.5),
        make_record("crt", accuracy=0.7),
        make_record("gcl", accuracy=0.45),
        make_record("crt", accuracy=0.95, variant="flip"),  # a variant does not stand for its method
        make_record("ce", accuracy=0.6, **cifar),
    )
    assert found["ce"] == [(50.0, 0, False), (50.0, 0, False), (60.0, 0, True)]  # a data set without few has one column
    assert found["crt"] == [(70.0, 4, True), (70.0, 4, True), None]
    assert found["gcl"] == [(45.0, -1, False), (45.0, -1, False), None]
    assert list(found) == ["ce", "crt", "gcl"]  # those of most data sets first


def test_a_recipe_that_saw_the_test_set_is_marked(tmp_path: Path) -> None:
    folders = method_folders(tmp_path)
    about = folders["balanced_softmax"] / "recipes.yaml"
    about.write_text(about.read_text() + "tuned_on_test: {mnist5k: alpha was chosen after 51 % had been seen}\n")
    records = [make_record("balanced_softmax", track=track) for track in ("common", "paper")]
    page = build_report(collected(*records), tmp_path / "out", sources(folders=folders)).read_text()
    mark = "tuned on the test part: alpha was chosen after 51 % had been seen"
    assert page.count(f"tuned on test</summary>{mark}") == 1  # a paper's own recipe has not seen it
    assert "80.0</a>°¹" in page
    assert "(¹: one seed)" in page
    assert mark in (tmp_path / "out" / "tables" / "mnist5k-lt-if100-common.last.md").read_text()


def test_a_table_is_named_in_plain_words() -> None:
    short: dict[str, Any] = {"track": "short", "recipe": {"train": {"epochs": 20}}}
    (board,) = boards_of(ranked_sections(collected(make_record("ce", **short))).sections)
    assert (board.title, board.conditions) == ("MNIST, 5,000 digits", "short: 20 epochs")
    assert board.classes == "10 classes, 4 of them few-shot, imbalance factor 100"
    two = boards_of(ranked_sections(collected(make_record(), make_record(imbalance_factor=10.0))).sections)
    assert {one.title for one in two} == {f"MNIST, 5,000 digits, imbalance {factor}" for factor in (10, 100)}
    own = Board(ranked_sections(collected(make_record(dataset="mine"))).sections[0])
    assert own.title == "mine"


def test_a_track_says_what_its_rows_may_be_compared_with(tmp_path: Path) -> None:
    records = collected(*(make_record(name, track="short") for name in ("ce", "crt")))
    page = build_report(records, tmp_path, sources()).read_text(encoding="utf-8")
    entry = page.partition('<div id="word-short">')[2].partition("</div>")[0]
    assert entry.endswith("without a GPU. Compare rows within this board only, never with a paper&#39;s number.</dd>")
    assert page.count('<a class="track" href="#word-short">short: 10 epochs</a>') == 2  # of the board and its findings
    assert all(f'id="word-{word}"' in page for word in ("track", "common", "paper"))
    assert "The runs here have" not in page


def test_a_sentence_links_to_what_it_rests_on(tmp_path: Path) -> None:
    found = first_screen(tmp_path, ce=[0.9] * 6 + [0.1] * 4, crt=[0.8] * 10)
    links = {one.text.split(":")[0]: one.links for one in found.findings}
    slug = "mnist5k-lt-if100-paper"
    pair = links["Rare classes"].pop("Compare with cross-entropy")
    assert re.fullmatch(rf"compare={slug}:\w+:\w+", pair)
    assert links["Rare classes"] == {"See the table": f"open={slug}&sort={slug}:few:descending"}
    assert links["All classes"] == {"MNIST, 5,000 digits": f"findings-{slug}"}


def test_rows_of_another_start_are_named_below_the_first_screens_table(tmp_path: Path) -> None:
    tuned = {"backbone": "lenet", "pretrained": "net-12fca82f.th sha256:0", "params": {}, "train": {"epochs": 10}}
    records = collected(make_record("ce"), make_record("crt"), make_record("ce", recipe=tuned))
    ranked = ranked_sections(records)
    boards = boards_of(ranked.sections)
    assert len(boards) == 2
    assert not [board.track for board in boards if ":" in board.track], "the title tells them apart"
    (shown, _), *others = overview(boards, [], TITLES).heat.boards
    assert not others
    assert "from" not in shown.title
    page = build_report(records, tmp_path, sources()).read_text(encoding="utf-8")
    below = page.partition("Not here, as few methods share them")[2].partition("</p>")[0]
    assert "MNIST, 5,000 digits, from net (paper)</a>" in below
