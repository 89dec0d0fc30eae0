"""The page in a real browser, at three widths, light and dark: interactions by mouse and keyboard, axe, links."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.records.collect import Collected, collect
from harness.reporting.html import OFF
from harness.reporting.report import build_report
from harness.reporting.summary import METRICS
from tests.factories import collected, make_record, sources
from tests.reporting import test_speed
from tests.reporting.conftest import HOSTILE, NO_TAIL, awkward, method_folders, store, two_claims
from tests.reporting.test_weights import make_weights, written

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
MANY = [f"{group}{end}" for group in ("Medium", "Many") for end in ("", " low", " high")]
BOARD_ID = "mnist5k-lt-if100-paper"
BOARD = f"table.board[data-section='{BOARD_ID}']"
CELLS = """(table, column) => {
  const headers = [...table.tHead.rows[0].cells];
  const index = headers.findIndex(cell => cell.querySelector('button').dataset.column === column);
  return [...table.tBodies[0].rows].map(row => row.cells[index])
    .map(cell => cell.dataset.text ?? cell.innerText);
}"""
CONTRAST = """selector => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => channels(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    const own = getComputedStyle(node).backgroundColor;
    return channels(own)[3] === 0 && node.parentElement ? ground(node.parentElement) : own;
  };
  const node = document.querySelector(selector);
  const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort();
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


SIZES = [(1400, "light"), (1400, "dark"), (1024, "light"), (1024, "dark"), (390, "light"), (390, "dark")]
OPEN_ALL = (
    "document.querySelectorAll('details:not(.columns, .waiting, .waiting *)').forEach(one => { one.open = true; })"
)
VIEWS = ["overview", "boards", "pictures", "findings", "published", "methods", "compare", "about"]
STUDY = """
studies:
  - id: softmax
    title: What the counts add
    question: Does it help?
    split: mnist5k-lt-if100
    track: paper
    contrasts: [{label: Balanced Softmax, row: balanced_softmax, against: ce}]
    findings: [{text: "It adds {balanced_softmax few} in the tail.", holds: {balanced_softmax few: better}}]
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page with what it logged and asked for."""

    def __init__(self, browser: Any, path: Path, link: str = "", **context: Any) -> None:
        self.url = path.as_uri()
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(4000)
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{self.url}{link}")

    def _refuse(self, dialog: Any) -> None:
        self.trouble.append(dialog.message)
        dialog.dismiss()

    def close(self) -> None:
        """Leaves, and makes sure that all was quiet."""
        self.context.close()
        assert self.trouble == []
        assert {url.partition("#")[0] for url in self.requests} == {self.url}

    def column(self, name: str) -> list[str]:
        return list(self.page.locator(BOARD).evaluate(CELLS, name))

    def sort(self, name: str) -> Any:
        """Clicks a header and returns its new direction."""
        header = self.page.locator(f"{BOARD} th:has(button[data-column='{name}'])")
        header.locator("button").click()
        return header.get_attribute("aria-sort")

    def select(self, rule: str) -> None:
        self.page.locator(f"label:has(input[value='{rule}'])").click()

    def search(self, words: str) -> None:
        self.page.locator("input[name=q]").fill(words)

    def hash(self) -> str:
        return str(self.page.evaluate("location.hash"))

    def rows(self) -> list[str]:
        """What the board in view shows, by the names of its rows."""
        return list(
            self.page.locator("table.board tbody tr:visible th").evaluate_all("all => all.map(one => one.dataset.text)")
        )

    @staticmethod
    def box(found: Any) -> dict[str, float]:
        return dict(found.bounding_box())

    def view(self) -> list[str]:
        return list(self.page.locator(".view:visible").evaluate_all("all => all.map(one => one.id)"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made records: every awkward case."""
    return build_report(awkward(), tmp_path_factory.mktemp("made"), sources(two_claims()))


def rich_records(root: Path) -> Collected:
    """Three methods with evidence on a split with a tail, one of them with a variant; two on one without."""
    folder = root / "records"
    cifar: dict[str, Any] = {"dataset": "cifar10", "split": "cifar10-lt-if10", "imbalance_factor": 10.0}
    for seed in range(3):
        store(folder, "balanced_softmax", seed, [0.9] * 10)
        store(folder, "crt", seed, [0.9] * 9 + [0.88])
        store(folder, "ce", seed, [0.96] * 3 + [0.5] * 7)
        store(folder / "flip", "crt", seed, [0.92] * 9 + [0.9], variant="flip")
        for method, accuracy in (("ce", 0.7), ("balanced_softmax", 0.8)):
            store(folder / "cifar", method, seed, [accuracy] * 10, class_counts=NO_TAIL, **cifar)
    return replace(collect(folder), unchecked=[])


def recipe(entry: str, dataset: str) -> dict[str, Any]:
    return {"backbone": "resnet32_cifar", "train": {"epochs": 200, "lr": 0.1}}


@pytest.fixture(scope="module")
def rich_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with evidence, a paper's table, a study, published weights."""
    root = tmp_path_factory.mktemp("rich")
    folders = method_folders(root)
    (folders["balanced_softmax"] / "studies.yaml").write_text(STUDY)
    about = folders["balanced_softmax"] / "recipes.yaml"
    about.write_text(about.read_text().replace("Ren et al.", "Ren et al., Balanced Meta-Softmax, NeurIPS 2020"))
    others: dict[str, Any] = {"weights": [written(root / "weights", make_weights())], "resolve": recipe}
    return build_report(rich_records(root), root / "out", sources(two_claims(), folders=folders, **others))


@pytest.fixture
def visit(browser: Any, path: Path) -> Iterator[Visit]:
    visit = Visit(browser, path, f"#{BOARD_ID}")
    yield visit
    visit.close()


@pytest.fixture
def rich(browser: Any, rich_path: Path) -> Iterator[Visit]:
    visit = Visit(browser, rich_path, f"#{BOARD_ID}")
    yield visit
    visit.close()


def number(text: str) -> float | None:
    found = re.match(r"[+\u2212(]?\d+(\.\d+)?", text.strip())
    return float(found.group().replace("\u2212", "-").removeprefix("(")) if found else None


# The first screen and the parts of the page


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_view_at_every_size(browser: Any, rich_path: Path, width: int, scheme: str) -> None:
    visit = Visit(browser, rich_path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollHeight") < 12_000
    assert page.locator(".heat table").is_visible()
    assert page.locator(".heat .scroll").evaluate("one => one.scrollWidth <= one.clientWidth")  # all of it is seen
    for name in VIEWS:
        page.locator(f"nav a[href='#{name}']").click()
        assert visit.view() == [name]
        assert page.locator("nav a[aria-current]").count() == 1
        page.evaluate(OPEN_ALL)
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 27)") == (scheme == "dark")
    visit.close()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (1024, "light"), (390, "dark")])
def test_axe_finds_no_fault(browser: Any, rich_path: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    visit = Visit(browser, rich_path, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    visit.page.evaluate(OPEN_ALL)
    visit.page.evaluate("document.documentElement.classList.remove('scripted')")  # all views at once
    found = axe.Axe().run(visit.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
    visit.close()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (1024, "light"), (390, "dark")])
def test_a_tour_by_mouse(browser: Any, rich_path: Path, width: int, scheme: str) -> None:
    visit = Visit(browser, rich_path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = visit.page
    page.locator(".found a").first.click()
    assert visit.view() == ["boards"]
    assert visit.rows() == ["Balanced Softmax", "crt", "ce"]
    page.locator(".unfold:visible").click()
    assert visit.rows() == ["Balanced Softmax", "crt", "crt, flip", "ce"]
    page.locator("select[name=board]").select_option("cifar10-lt-if10-paper")
    assert visit.rows() == ["Balanced Softmax", "ce"]
    page.locator("nav a[href='#findings']").click()
    assert "No study is of this data set yet" in page.locator(".of-board:visible").inner_text()
    page.locator("nav a[href='#published']").click()
    page.locator("button.pick").first.click()
    assert page.locator("details.paper[open]").count() == 1
    page.locator("nav a[href='#compare']").click()
    assert "these runs differ" in page.locator(".comparison").inner_text()
    page.locator("nav a[href='#overview']").click()
    page.locator(".heat tbody a", has_text="Balanced Softmax").click()
    assert visit.view() == ["methods"]
    assert page.locator("#method-balanced_softmax .equation").is_visible()
    visit.close()


def test_a_tour_by_keyboard(rich: Visit) -> None:
    page = rich.page

    def press(selector: str, key: str = "Enter") -> None:
        page.locator(selector).first.focus()
        page.keyboard.press(key)

    press("nav a[href='#boards']")
    press(".unfold:visible")
    assert "crt, flip" in rich.rows()
    press(f"{BOARD} button[data-column='few']")
    assert page.locator(f"{BOARD} th[aria-sort='descending'] button").get_attribute("data-column") == "few"
    assert page.locator(".announce[aria-live]").inner_text() == "Sorted by Few, descending"
    press(".columns summary")
    press("input[name=column][value=ece]", "Space")
    assert not page.locator(f"{BOARD} th[data-col=ece]").is_visible()
    page.keyboard.press("Escape")
    assert page.locator(".columns[open]").count() == 0
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    press("select[name=board]", "ArrowDown")
    assert rich.rows() == ["Balanced Softmax", "ce"]
    press("input[value=last]", "ArrowRight")
    assert page.evaluate("document.documentElement.dataset.selection") == "best_test"  # best_val has nothing there
    press("nav a[href='#methods']")
    press("#method-balanced_softmax > summary")
    assert page.locator("#method-balanced_softmax .equation").is_visible()


def test_the_page_opens_on_the_overview_and_keeps_old_links(browser: Any, path: Path) -> None:
    visit = Visit(browser, path)
    assert visit.view() == ["overview"]
    old = {"#q=gcl&dataset=mnist5k": "boards", "#selection=best_test": "boards"}
    for link, view in (old | {f"#{BOARD_ID}": "boards", "#reading": "about", "#no-such-part": "overview"}).items():
        visit.page.goto("about:blank")
        visit.page.goto(f"{visit.url}{link}")
        assert visit.view() == [view], link
    visit.context.close()
    assert visit.trouble == []


def test_without_script_everything_stands_below_each_other(browser: Any, path: Path) -> None:
    visit = Visit(browser, path, java_script_enabled=False)
    assert visit.page.locator(f"{BOARD} tbody tr").first.inner_text().split()[:3] == ["1", "balanced_softmax", "86.5"]
    assert visit.view() == VIEWS
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser: Any, path: Path, scheme: str) -> None:
    visit = Visit(browser, path, f"#{BOARD_ID}", color_scheme=scheme)
    for selector in ("h1", ".lede", "dt", "caption", "thead button", ".std", ".mark", "nav a", "input:checked + span"):
        assert visit.page.evaluate(CONTRAST, selector) >= 4.5, selector
    visit.context.close()


def test_five_hundred_runs_are_a_small_page_of_few_elements(browser: Any, tmp_path: Path) -> None:
    """Both decide how long it takes to open, on any machine."""
    counts = [max(2, round(500 * 0.01 ** (c / 99))) for c in range(100)]
    facts: dict[str, Any] = {"class_counts": counts, "dataset": "cifar100", "split": "cifar100-lt-if100"}
    long = {f"params.key{i}": i for i in range(40)} | {"backbone": "resnet32", "train": {"epochs": 20}}
    records = [make_record(f"method{m}", s, 0.3 + m / 500, recipe=long, **facts) for m in range(100) for s in range(5)]
    page = build_report(collected(*records), tmp_path, sources())
    assert page.stat().st_size < 3_000_000
    visit = Visit(browser, page, f"#{records[0].split}-paper")
    assert len(visit.rows()) == 100
    assert visit.page.evaluate("document.querySelectorAll('*').length") < 25_000
    visit.close()


# Boards


@pytest.mark.parametrize(
    "name", ["rank", "method", "backbone", *(metric.key for metric in METRICS if metric.shown == "always"), "n"]
)
def test_every_column_sorts_both_ways(browser: Any, path: Path, name: str) -> None:
    shown = ",".join({"all", "few", "ece", name} - {"rank", "method"})
    visit = Visit(browser, path, f"#open={BOARD_ID}&columns={shown},many,medium,macro_f1,optimism,n")
    textual = name in ("method", "backbone")
    directions = []
    for _ in range(2):
        direction = visit.sort(name)
        directions.append(direction)
        cells = visit.column(name)
        keys: list[Any] = [cell.lower() for cell in cells] if textual else [number(cell) for cell in cells]
        present = [key for key in keys if key is not None]
        assert present == sorted(present, reverse=direction == "descending")
        assert keys == present + [None] * (len(keys) - len(present))  # no value stays last
        assert visit.page.locator(f"{BOARD} [aria-sort]").count() == 1
    assert sorted(filter(None, directions)) == ["ascending", "descending"]
    visit.close()


def test_variants_stay_behind_their_method(rich: Visit) -> None:
    rich.page.locator(".unfold:visible").click()
    rich.sort("all")  # the variant has the largest mean
    assert rich.rows() == ["Balanced Softmax", "crt", "crt, flip", "ce"]
    rich.sort("all")
    assert rich.rows() == ["ce", "crt", "crt, flip", "Balanced Softmax"]
    assert [text.strip() for text in rich.column("rank")] == ["3", "1", "(1)", "1"]


def test_the_selection_rule_changes_numbers_and_hash_and_survives_a_reload(visit: Visit) -> None:
    last = visit.column("all")
    visit.select("best_test")
    oracle = visit.column("all")
    assert oracle != last
    assert oracle[0].startswith("87.0")
    assert visit.hash() == f"#open={BOARD_ID}&selection=best_test"
    visit.sort("few")
    ordered = visit.column("method")
    visit.page.reload()
    assert visit.page.locator("input[value='best_test']").is_checked()
    assert visit.column("method") == ordered
    assert set(visit.column("all")) == set(oracle)
    visit.page.goto(f"{visit.url}#open={BOARD_ID}&selection=no_such_rule&sort=a:b:c&columns=x&compare=a:b:c")
    assert visit.page.locator("input[value='last']").is_checked()


def test_another_epoch_says_what_it_changes(browser: Any, tmp_path: Path) -> None:
    shifts = {"ce": (0.8, 0.0), "crt": (0.79, 0.04), "gcl": (0.5, 0.02), "ncm": (0.46, 0.14)}
    records = [make_record(name, 0, mean, optimism=by) for name, (mean, by) in shifts.items()]
    page = build_report(collected(*records), tmp_path, sources())
    visit = Visit(browser, page, f"#{BOARD_ID}")
    assert visit.page.locator(".moves:visible").count() == 0
    visit.select("best_test")
    assert visit.page.locator(".moves:visible").inner_text() == (
        "Best on test (optimistic) instead of the last epoch: 4 of 4 ranks move, the furthest by 1: ce from 1 to 2, "
        "and 3 others as far. All rises by 5.0 points on average."
    )
    assert visit.column("method") == ["crt", "ce", "ncm", "gcl"]
    assert visit.column("rank") == ["1 (2 at last)", "2 (1 at last)", "3 (4 at last)", "4 (3 at last)"]
    visit.close()


def test_ranks_are_grey_where_another_score_sorts(visit: Visit) -> None:
    colour = "one => getComputedStyle(one).color"
    ranks = visit.page.locator(f"{BOARD} td.rank").first
    assert visit.page.locator(f"{BOARD} th").first.inner_text().split() == ["Rank", "(All)"]
    before = ranks.evaluate(colour)
    visit.sort("all")
    assert ranks.evaluate(colour) == before
    visit.sort("few")
    assert ranks.evaluate(colour) == visit.page.locator(f"{BOARD} .std").first.evaluate(colour) != before


def test_footnotes_are_of_the_columns_shown(visit: Visit) -> None:
    notes = visit.page.locator("section.table:visible .footnotes")
    assert "seconds stand in the details (click a method's name)" in notes.inner_text().lower()
    assert not any(word in notes.inner_text() for word in ("Grey speed", "drawer"))
    visit.page.locator(".columns summary").click()
    visit.page.locator("input[value=wall_seconds]").uncheck()
    assert "Time:" not in notes.inner_text()


def test_a_phone_shows_rank_name_all_and_few_at_once(browser: Any, rich_path: Path) -> None:
    visit = Visit(browser, rich_path, f"#{BOARD_ID}", viewport={"width": 390, "height": 844})
    page = visit.page
    assert page.locator(f"{BOARD} tbody tr").first.bounding_box()["y"] < 600
    few = page.locator(f"{BOARD} th[data-col=few]").bounding_box()
    assert few["x"] + few["width"] < 390
    assert page.locator(".footnotes:visible .narrow").is_visible()  # where the intervals are
    page.locator(".gist:visible summary").click()
    assert "with the highest All" in page.locator(".gist:visible").inner_text()
    assert not page.locator("input[name=q]").is_visible()
    page.locator("button.more").click()
    assert page.locator("input[name=q]").is_visible()
    assert len({one["y"] for one in map(Visit.box, page.locator(".controls fieldset label > span").all())}) == 1
    page.locator("button.more").click()
    page.locator(".wide:visible").evaluate("one => { one.scrollLeft = 999; }")
    assert page.locator(f"{BOARD} td.rank").first.bounding_box()["x"] == 16
    page.mouse.wheel(0, 4000)
    for _ in range(100):  # the wheel turns when the machine has time for it
        page.wait_for_timeout(50)
        if page.locator("h1").bounding_box()["y"] < 0:  # it has made room
            break
    assert page.locator("select[name=board]").bounding_box()["y"] > 0
    assert page.locator("header nav").bounding_box()["y"] > 0
    bar = page.locator(".masthead").bounding_box()
    assert bar["y"] + bar["height"] < 80
    page.locator("header a[href='#about']").click()  # the strip of tabs is wider than the screen
    assert visit.view() == ["about"]
    right = page.locator("header a[href='#about']").bounding_box()
    assert right["x"] + right["width"] <= 390
    visit.close()


def edge(visit: Visit, selector: str) -> set[int]:
    """The shades of grey in a column of pixels at the right edge of a part, below its middle."""
    box = visit.box(visit.page.locator(selector))
    clip = {"x": box["x"] + box["width"] - 2, "y": box["y"] + box["height"] / 2, "width": 1, "height": 60}
    shot = Image.open(io.BytesIO(visit.page.screenshot(clip=clip, full_page=True)))
    return set(shot.convert("L").getdata())


def test_the_shadow_of_more_columns_goes_at_the_last_one(browser: Any, rich_path: Path) -> None:
    visit = Visit(browser, rich_path, f"#{BOARD_ID}", viewport={"width": 390, "height": 844})
    board = "section.table.current > .scroll.wide"
    assert 255 not in edge(visit, board)
    visit.page.locator(board).evaluate("one => { one.scrollLeft = 999; }")
    assert 255 in edge(visit, board)
    visit.close()


def test_rows_keep_their_lines_under_the_cells_that_stay(browser: Any, path: Path) -> None:
    """At whatever fraction of a pixel a row begins, its background covers no line."""
    visit = Visit(browser, path, f"#{BOARD_ID}", viewport={"width": 390, "height": 844})
    page = visit.page
    page.locator(".wide:visible").evaluate("one => { one.scrollLeft = 60; }")
    heights = "(all, eighths) => all.forEach(one => { one.style.height = `${80 + eighths / 8}px`; })"
    for eighths in range(8):
        page.locator(f"{BOARD} td.rank").evaluate_all(heights, eighths)
        shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
        tops = page.locator(f"{BOARD} tbody tr + tr").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().y)"
        )
        for top in (round(top) for top in tops if top < 840):
            for x in (20, 55, 150, 200):
                assert len({shot.getpixel((x, top + dy)) for dy in (-2, -1, 0, 1)}) > 1, (eighths, x, top)
    lines = page.locator(f"{BOARD} thead th:visible").evaluate_all(
        "all => all.map(one => getComputedStyle(one).borderBottomWidth + getComputedStyle(one).boxShadow)"
    )
    assert set(lines) == {"1pxnone"}
    visit.close()


def test_the_heat_map_keeps_its_shades_and_its_names(browser: Any, rich_path: Path) -> None:
    visit = Visit(browser, rich_path, viewport={"width": 390, "height": 844})
    row = visit.page.locator(".heat tbody tr:has([class*=up])").first
    shades = "row => [...row.cells].map(cell => getComputedStyle(cell).backgroundColor)"
    before = row.evaluate(shades)
    row.hover()
    after = row.evaluate(shades)
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    visit.page.locator(".heat td.number").evaluate_all("all => all.forEach(one => { one.style.minWidth = '9rem'; })")
    visit.page.locator(".heat .scroll").evaluate("one => { one.scrollLeft = 99; }")
    assert visit.page.locator(".heat tbody th").first.bounding_box()["x"] == 16
    visit.close()


@pytest.mark.parametrize("width", [1400, 1280, 1024])
def test_tabs_and_filters_stay_in_two_lines(browser: Any, rich_path: Path, width: int) -> None:
    visit = Visit(browser, rich_path, f"#{BOARD_ID}", viewport={"width": width, "height": 500})
    page = visit.page
    columns, reset = page.locator(".columns summary"), page.locator(".controls button[type=reset]")
    before = visit.box(columns)
    middle = before["y"] + before["height"] / 2
    assert abs(visit.box(reset)["y"] + visit.box(reset)["height"] / 2 - middle) < 3  # on one line
    visit.select("best_test")
    assert visit.box(columns) == before
    columns.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    menu = visit.box(page.locator(".columns div"))
    assert 0 <= menu["x"] < menu["x"] + menu["width"] <= width
    page.keyboard.press("Escape")
    page.mouse.move(width / 2, 400)
    page.mouse.wheel(0, 2000)
    page.wait_for_timeout(100)
    assert page.evaluate("scrollY") > 100
    bar = visit.box(page.locator(".masthead"))
    assert bar["y"] + bar["height"] <= 90
    page.locator("header a[href='#methods']").click()
    assert visit.view() == ["methods"]
    visit.close()


# Back


def test_back_undoes_a_step_and_typing_makes_none(rich: Visit) -> None:
    page = rich.page
    start = page.evaluate("history.length")
    page.locator("select[name=board]").select_option("cifar10-lt-if10-paper")
    rich.search("balanced")
    page.locator(".columns summary").click()
    page.locator("input[name=column][value=ece]").uncheck()
    page.keyboard.press("Escape")
    page.locator("header a[href='#methods']").click()
    page.locator("#method-balanced_softmax > summary").click()
    assert page.evaluate("history.length") == start + 3
    opened = page.locator("#method-balanced_softmax[open]")
    assert rich.hash().startswith("#open=method-balanced_softmax&")
    page.go_back()
    assert rich.view() == ["methods"]
    assert opened.count() == 0
    page.go_back()
    assert rich.view() == ["boards"]
    assert rich.rows() == ["Balanced Softmax"]
    assert page.locator("input[name=q]").input_value() == "balanced"
    page.go_back()
    assert page.locator("select[name=board]").input_value() == BOARD_ID
    assert len(rich.rows()) == 3
    assert page.locator("input[name=q]").input_value() == ""
    for _ in range(3):
        page.go_forward()
    assert rich.view() == ["methods"]
    assert opened.count() == 1


def test_back_from_a_row_comes_to_where_one_was(browser: Any, rich_path: Path) -> None:
    visit = Visit(browser, rich_path, f"#{BOARD_ID}", viewport={"width": 900, "height": 300})
    page = visit.page
    page.evaluate("scrollTo(0, 150)")
    page.locator(f"{BOARD} tbody a").first.evaluate("link => link.click()")  # the mouse would scroll it into view
    assert page.locator("details.drawer[open]").count() == 1
    assert page.evaluate("scrollY") > 300
    page.go_back()
    assert page.locator("details.drawer[open]").count() == 0
    assert page.evaluate("scrollY") == 150
    visit.close()


def test_a_backbone_is_only_offered_where_there_is_a_choice(visit: Visit) -> None:
    assert not visit.page.locator("select[name=backbone]").is_visible()  # one backbone here, another one elsewhere
    visit.page.goto(f"{visit.url}#q=&backbone=resnet32&board={BOARD_ID}")
    assert visit.page.locator("select[name=board]").input_value() == "cifar10-lt-if10-paper"
    visit.page.locator("select[name=board]").select_option(BOARD_ID)
    assert visit.rows()
    assert "backbone" not in visit.hash()


def test_a_reset_closes_variants_and_forgets_the_order(rich: Visit) -> None:
    before = rich.rows()
    rich.page.locator(".unfold:visible").click()
    rich.sort("all")
    rich.sort("all")
    rich.page.locator(".controls button[type=reset]").click()
    rich.page.wait_for_timeout(100)
    assert rich.rows() == before


def test_a_reset_goes_back_to_the_data_set_that_a_search_left(rich: Visit) -> None:
    before = rich.rows()
    rich.search("CIFAR-10")
    assert rich.page.locator("select[name=board]").input_value() == "cifar10-lt-if10-paper"
    rich.page.locator(".controls button[type=reset]").click()
    rich.page.wait_for_timeout(100)
    assert rich.rows() == before


def test_a_rule_that_does_not_apply_says_so_instead_of_dashes(visit: Visit) -> None:
    assert not visit.page.locator(".lacking").is_visible()
    visit.page.locator("select[name=board]").select_option("cifar10-lt-if10-paper")
    assert visit.page.locator("input[value='best_val']").is_disabled()
    why = "No row has a value at “Best on validation”: this split has no validation part."
    assert visit.page.locator(".lacking").inner_text() == why
    visit.page.goto(f"{visit.url}#open=cifar10-lt-if10-paper&selection=best_val")
    section = visit.page.locator("section.table:visible")
    assert "No row has a value at “Best on validation”: this split has no validation part" in section.inner_text()
    assert not section.locator("table.board").is_visible()
    assert not visit.page.locator(".lacking").is_visible()  # said once
    assert visit.page.locator("input[value='best_val']").is_checked()


def test_columns_are_chosen_and_stay_in_the_link(visit: Visit, browser: Any) -> None:
    assert not any(visit.page.locator(f"{BOARD} th[data-col={key}]").is_visible() for key in OFF if key != "top5")
    visit.page.locator(".columns summary").click()
    visit.page.locator("input[value=backbone]").check()
    visit.page.locator("input[value=few]").uncheck()
    assert visit.page.locator(f"{BOARD} th[data-col=backbone]").is_visible()
    again = Visit(browser, Path(visit.url.removeprefix("file://")), visit.hash())
    assert again.page.locator(f"{BOARD} th[data-col=backbone]").is_visible()
    assert not again.page.locator(f"{BOARD} th[data-col=few]").is_visible()
    again.close()


def test_an_empty_column_is_hidden_with_its_reason(visit: Visit) -> None:
    visit.page.locator("select[name=board]").select_option("cifar10-lt-if10-paper")
    section = visit.page.locator("section.table:visible")
    assert section.locator("th[data-col=few]").count() == 0
    assert "Not shown: Few: no class is few-shot in this split" in section.locator(".footnotes").inner_text()


def test_the_best_of_a_column_is_bold(visit: Visit) -> None:
    weights = visit.page.locator(f"{BOARD} tbody tr td:nth-child(3) .r[data-rule='last'] .mean").evaluate_all(
        "nodes => nodes.map(node => getComputedStyle(node).fontWeight)"
    )
    assert weights == ["700", *["400"] * 5]


def test_intervals_are_drawn_beside_the_numbers(rich: Visit) -> None:
    drawn = rich.page.locator(f"{BOARD} td.forest svg:visible")
    assert drawn.count() == 3
    (low, high), dot = drawn.first.get_attribute("aria-label").split(" to "), drawn.first.locator("circle")
    assert float(low) < 90.0 < float(high)
    places = [float(one) for one in rich.page.locator(f"{BOARD} td.forest circle").evaluate_all(
        "all => all.map(one => one.getAttribute('cx'))")]  # fmt: skip
    assert places[0] == float(dot.get_attribute("cx")) > min(places)


def test_hostile_text_is_shown_and_not_run(visit: Visit) -> None:
    assert f"{HOSTILE}-{HOSTILE}" in visit.column("method")
    visit.page.locator("nav a[href='#pictures']").click()
    assert f"{HOSTILE}-{HOSTILE}" in visit.page.locator("#pictures [name=line]").inner_text()


def test_a_method_name_opens_its_drawer_and_keeps_the_state(visit: Visit, browser: Any) -> None:
    visit.select("best_test")
    visit.page.locator(f"{BOARD} tbody a").first.click()
    assert visit.page.locator("details.drawer[open] > summary").inner_text().startswith("balanced_softmax")
    assert re.fullmatch(r"#open=row-[0-9a-f]{8}&selection=best_test", visit.hash())
    again = Visit(browser, Path(visit.url.removeprefix("file://")), visit.hash())
    assert again.page.locator("details.drawer[open] > summary").inner_text().startswith("balanced_softmax")
    assert "mnist5k-lt-if100 balanced_softmax@paper" in again.page.locator("details.drawer[open] .command").inner_text()
    assert not again.page.locator("details.drawer[open] .recipe").is_visible()
    again.page.locator("details.drawer[open] a", has_text="Back to the board").click()
    assert again.hash() == f"#open={BOARD_ID}&selection=best_test"
    assert again.page.evaluate("scrollY") == 0
    again.page.goto("about:blank")
    again.page.goto(f"{visit.url}#method-balanced_softmax")
    assert again.page.locator("#method-balanced_softmax").get_attribute("open") is not None
    again.context.close()


# Search and filters


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("Balanced Softmax", ["Balanced Softmax"]),
        ("balanced_softmax", ["Balanced Softmax"]),
        ("NeurIPS 2020", ["Balanced Softmax"]),
        ("flip", ["crt", "crt, flip"]),
        ("CIFAR-10", ["Balanced Softmax", "ce"]),
        ("Places-LT", []),
    ],
)
def test_search_finds_titles_papers_venues_and_data_sets(rich: Visit, words: str, rows: list[str]) -> None:
    rich.search(words)
    assert rich.rows() == rows
    assert rich.page.locator(".nothing").is_visible() == (not rows)


def test_search_reaches_pictures_findings_methods_and_the_overview(rich: Visit) -> None:
    rich.page.locator("nav a[href='#pictures']").click()
    reading = rich.page.locator("#pictures .pic-reading").first
    assert "of 3 methods" in reading.inner_text()
    assert "1 variant is not shown" in reading.inner_text()
    rich.search("cRT")
    assert "of 1 method " in reading.inner_text()
    for view, selector in (("findings", ".contrasts tbody tr"), ("methods", "details.method")):
        rich.page.locator(f"nav a[href='#{view}']").click()
        assert rich.page.locator(f"{selector}:visible").count() == (0 if view == "findings" else 1)
    rich.page.locator("nav a[href='#overview']").click()
    assert rich.page.locator(".heat tbody th:visible").all_inner_texts() == [
        "ce",
        "crt",
    ]  # colours are against the first
    rich.page.locator("button[type=reset]:visible").click()
    rich.page.wait_for_timeout(100)
    assert rich.page.locator(".heat tbody th:visible").count() == 3


def test_filters_stay_in_the_link(visit: Visit, browser: Any) -> None:
    before = visit.rows()
    visit.search("BALANCED")
    assert visit.rows() == ["balanced_softmax"]
    assert visit.hash() == f"#open={BOARD_ID}&q=BALANCED"
    again = Visit(browser, Path(visit.url.removeprefix("file://")), "#q=BALANCED&dataset=cifar10")
    assert again.page.locator("select[name=board]").input_value() == "cifar10-lt-if10-paper"
    assert again.rows() == ["balanced_softmax"]
    assert again.page.locator("input[name=q]").input_value() == "BALANCED"
    again.close()
    visit.page.locator("button[type=reset]").first.click()
    visit.page.wait_for_timeout(100)
    assert visit.rows() == before


def test_a_search_that_fits_nothing_says_so_and_where_something_does(rich: Visit) -> None:
    rich.search("no such method")
    for view in ("boards", "overview", "pictures", "findings", "methods"):
        rich.page.locator(f"header a[href='#{view}']").click()
        assert rich.page.locator(".nothing").inner_text() == "Nothing here matches “no such method”."
        assert rich.page.locator("tr[data-find]:visible, thead:visible").count() == 0, view
    rich.search("CIFAR-100")  # no row is of it, but a paper prints a number on it
    rich.page.locator(".nothing a", has_text="Papers").click()
    assert rich.view() == ["published"]
    kept = rich.page.locator(".paper-cell:not(.dim)").evaluate_all("all => all.map(one => one.dataset.set)")
    assert set(kept) == {"CIFAR-100-LT"}


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("rt", []),
        ("ce", ["ce"]),
        ("softmax balanced", ["Balanced Softmax"]),
        ("crt-f", ["crt", "crt, flip"]),
        ("%", []),
        ("日本", []),
    ],
)
def test_a_search_finds_beginnings_of_words(rich: Visit, words: str, rows: list[str]) -> None:
    rich.search(words)
    assert rich.rows() == rows


def test_a_search_that_changes_the_data_set_says_so_and_goes_back(rich: Visit) -> None:
    rich.page.locator("select[name=board]").select_option("cifar10-lt-if10-paper")
    rich.search("crt")
    assert rich.rows() == ["crt"]
    assert "No row of CIFAR-10" in rich.page.locator(".moved").inner_text()
    assert rich.page.locator(".announce[aria-live]").inner_text() == "Matches: 2"
    rich.search("ce")
    assert rich.page.locator("select[name=board]").input_value() == "cifar10-lt-if10-paper"
    assert not rich.page.locator(".moved").is_visible()


def test_names_of_any_kind_are_found_and_break_nothing(browser: Any, tmp_path: Path) -> None:
    """A data set that begins with a digit and a method in another script, without a validation part."""
    facts: dict[str, Any] = {"dataset": "102flowers", "split": "102flowers-lt-if100", "val_images": 0}
    records = [make_record(name, seed, **facts) for name in ("ce", "日本語") for seed in range(2)]
    records = [replace(record, results=record.results | {"best_val": None}) for record in records]
    visit = Visit(browser, build_report(collected(*records), tmp_path, sources()), "#boards")
    for view in ("pictures", "compare", "boards"):
        visit.page.locator(f"header a[href='#{view}']").click()
    visit.search("日本")
    assert len(visit.rows()) == 1
    visit.close()


# A way in


def test_every_part_leads_to_how_to_add_results(rich: Visit) -> None:
    for view in VIEWS:
        rich.page.locator(f"header a[href='#{view}']").click()
        rich.page.locator("footer a", has_text="Add your method or results").click()
        assert rich.page.locator("#contribute").is_visible()
    commands = rich.page.locator("#contribute code").all_inner_texts()
    assert any("ltbench new-method" in one for one in commands)
    assert any("ltbench collect --import" in one for one in commands)
    for link in rich.page.locator(".contents a, .tracks a[href^='#word-'], footer a").evaluate_all(
        "all => all.map(one => one.hash)"
    ):
        assert rich.page.locator(link).count() == 1, link


@pytest.mark.parametrize("view", ["pictures", "compare"])
def test_an_epoch_that_a_board_lacks_falls_back(browser: Any, path: Path, view: str) -> None:
    visit = Visit(browser, path, f"#open={view}&board=cifar10-lt-if10-paper&selection=best_val")
    assert visit.page.locator("input[value='best_val']").is_disabled()
    assert visit.page.locator("input[value='last']").is_checked()
    assert visit.page.locator(".lacking").inner_text().endswith("no validation part. The last epoch is shown.")
    visit.page.locator("select[name=board]").select_option(BOARD_ID)
    assert visit.page.locator("input[value='best_val']").is_checked()
    assert not visit.page.locator(".lacking").is_visible()
    visit.close()


def test_a_status_leads_to_its_command_and_back(rich: Visit) -> None:
    rich.page.locator("header a[href='#published']").click()
    rich.page.locator("details.paper summary").first.click()
    badge = rich.page.locator("#paper-a-paper-table-2 a.badge").last
    assert badge.get_attribute("title") == "The command that measures it"
    badge.click()
    rich.page.locator(".todos li.here a", has_text="back to the table").click()
    assert rich.page.evaluate("document.querySelector(location.hash.replace('#open=', '#')).textContent") == "not run"


# Charts, copying, comparison, methods, papers


@pytest.mark.parametrize(
    ("kind", "start"),
    [("md", "| Rank (All) | Method | All | 95 % interval of All, at last | Few"), ("tex", "\\begin{tabular}{llr")],
)
def test_a_table_is_copied_as_it_is_shown(rich: Visit, kind: str, start: str) -> None:
    rich.page.evaluate(COPIED)
    rich.search("mnist")
    button = rich.page.locator(f"section.table button[data-copy={kind}]:visible")
    button.click()
    rich.page.wait_for_timeout(100)
    copied = rich.page.evaluate("window.copied")
    assert copied.startswith(start)
    assert "Balanced Softmax" in copied
    assert " to " in copied  # the interval
    assert "variant" not in copied
    assert len(copied.strip().splitlines()) == {"md": 5, "tex": 9}[kind]
    assert button.inner_text() == "Copied"


def test_a_board_is_saved_as_the_lines_of_the_table_file(browser: Any, rich_path: Path) -> None:
    visit = Visit(browser, rich_path, f"#{BOARD_ID}")
    button = visit.page.locator("section.table button:visible", has_text="Save as CSV")
    assert visit.box(button)["y"] < visit.box(visit.page.locator(BOARD))["y"]
    with visit.page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == f"{BOARD_ID}.csv"
    files = Path(download.value.path()), rich_path.parent / "tables" / "leaderboard.csv"
    saved, stored = (list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))) for file in files)
    assert saved == [line for line in stored if line["split"] == "mnist5k-lt-if100"]
    last = {f"{line['method']} {line['variant']}": line for line in saved if line["selection"] == "last"}
    assert set(last) == {"balanced_softmax ", "crt ", "crt flip", "ce "}
    one = last["balanced_softmax "]
    assert [one[key] for key in ("dataset", "track", "rank_of_methods", "all", "all_std", "all_n", "few", "seeds")] == [
        "mnist5k", "paper", "1", "90.00", "0.00", "3", "90.00", "3"]  # fmt: skip
    assert float(one["all_low"]) < 90 < float(one["all_high"])
    visit.context.close()
    assert visit.trouble == []


COPIED = "window.copied = null; navigator.clipboard.writeText = async text => { window.copied = text; }"


def copied_csv(visit: Visit, button: str) -> list[dict[str, str]]:
    visit.page.evaluate(COPIED)
    visit.page.locator(f"{button} [data-copy=csv]:visible").click()
    visit.page.wait_for_function("window.copied !== null")
    return list(csv.DictReader(io.StringIO(visit.page.evaluate("window.copied"))))


def test_findings_are_copied_with_a_number_a_cell(rich: Visit) -> None:
    rich.page.locator("nav a[href='#findings']").click()
    lines = copied_csv(rich, ".of-board.current > .copying")
    assert list(lines[0]) == [
        "Contrast",
        "Rows",
        "All",
        "All low",
        "All high",
        "Few",
        "Few low",
        "Few high",
        *MANY,
        "n",
    ]
    for line in lines:
        assert float(line["All low"]) <= float(line["All"]) <= float(line["All high"])
        assert line["n"] == "3"
    tables = rich.page.locator(".of-board.current > .scroll > table")
    assert len(lines) == tables.locator("tbody tr").count()


@pytest.mark.parametrize("name", ["path", "rich_path"])
def test_papers_are_copied_with_a_number_a_cell(
    browser: Any, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    page: Path = request.getfixturevalue(name)
    if name == "path":  # one that follows the paper
        page = build_report(awkward(), tmp_path / "out", sources(two_claims(), folders=method_folders(tmp_path)))
    visit = Visit(browser, page, "#paper-a-paper-table-2")
    (line,) = copied_csv(visit, "#paper-a-paper-table-2")
    cell = {key.removeprefix("CIFAR-10-LT, 10 "): text for key, text in line.items() if key.startswith("CIFAR-10-LT")}
    same = {"published": "90.9", "measured": "88.7", "std": "0.2", "n": "3", "difference": "-2.2", "status": "differs"}
    apart = {"published": "90.9", "measured": "80.0", "std": "0.0", "n": "3", "status": "not comparable"}
    assert {key: text for key, text in cell.items() if key != "note"} == {"path": same, "rich_path": apart}[name]
    assert [line["CIFAR-100-LT, 10 published"], line["CIFAR-100-LT, 10 status"]] == ["63.1", "not run"]
    visit.close()


def test_published_weights_are_copied_too(rich: Visit) -> None:
    rich.page.evaluate(COPIED)
    rich.page.locator("header a[href='#published']").click()
    rich.page.locator("#weights button[data-copy=md]").click()
    rich.page.wait_for_timeout(100)
    assert "Published" in rich.page.evaluate("window.copied").splitlines()[0]


def test_copying_works_where_the_clipboard_is_refused(rich: Visit) -> None:
    rich.page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('no'); }; }")
    button = rich.page.locator("section.table button[data-copy=md]:visible")
    button.click()
    rich.page.wait_for_timeout(100)
    assert button.inner_text() == "Copied"
    assert rich.page.locator("textarea").count() == 0


@pytest.mark.parametrize("width", [1024, 390])
def test_compare_shows_its_last_column_at_once(browser: Any, rich_path: Path, width: int) -> None:
    visit = Visit(browser, rich_path, f"#open=compare&board={BOARD_ID}", viewport={"width": width, "height": 800})
    assert visit.page.locator(".comparison .interval").count() > 1
    assert visit.page.locator(".comparison .scroll").evaluate("one => one.scrollWidth <= one.clientWidth")
    visit.close()


def test_compare_opens_on_the_best_against_cross_entropy(rich: Visit) -> None:
    rich.page.locator("nav a[href='#compare']").click()
    form, result = rich.page.locator("form.compare"), rich.page.locator(".comparison")
    assert form.locator("option:checked").all_inner_texts() == ["ce", "Balanced Softmax"]
    assert "these runs differ" in result.inner_text()
    cells = result.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells[:2] == ["63.8 ± 0.0", "90.0 ± 0.0"]
    assert re.fullmatch(r"\+26\.2 \(\+\d+\.\d to \+\d+\.\d\)", cells[2])
    assert {"All", "Few"} <= set(result.locator("tbody tr:has(strong) th").all_inner_texts())
    rich.page.locator("[name=selection][value=best_test]").check(force=True)
    assert result.locator("strong").count() == 0
    assert "are of the last epoch only" in result.inner_text()
    rich.page.locator("[name=selection][value=last]").check(force=True)
    form.locator("select[name=first]").select_option(label="crt")
    assert "cannot be told apart" in result.inner_text()
    assert result.locator("figure.picture").count() == 4
    assert f"compare={BOARD_ID}:" in rich.hash()
    rich.page.reload()
    assert rich.view() == ["compare"]
    assert form.locator("option:checked").first.inner_text() == "crt"
    rich.page.locator("select[name=board]").select_option("cifar10-lt-if10-paper")
    assert form.locator("option:checked").all_inner_texts() == ["ce", "Balanced Softmax"]


def test_compare_and_findings_print_the_same_difference(rich: Visit) -> None:
    rich.page.locator("nav a[href='#findings']").click()
    groups = rich.page.locator(".of-board:visible table.contrasts").first.locator("thead th").all_inner_texts()[2:-1]
    cells = rich.page.locator(".of-board:visible table.contrasts").first.locator("tbody tr td.number").all_inner_texts()
    found = dict(zip(groups, cells, strict=False))
    rich.page.locator("nav a[href='#compare']").click()
    lines = rich.page.locator(".comparison tbody tr").all()
    shown = {line.locator("th").inner_text(): line.locator("td").last.inner_text() for line in lines}
    assert {group: shown[group] for group in groups} == found
    rich.page.locator("select[name=first]").select_option(label="Balanced Softmax")
    rich.page.locator("select[name=second]").select_option(label="ce")
    turned = rich.page.locator(".comparison tbody tr").first.locator("td").last.inner_text()
    swap = {"+": "\u2212", "\u2212": "+"}
    mean, low, high = re.findall(r"[+\u2212][\d.]+", shown["All"])
    assert re.findall(r"[+\u2212][\d.]+", turned) == [swap[one[0]] + one[1:] for one in (mean, high, low)]


def test_a_number_leads_to_its_runs_and_the_first_screen_to_all_costs(rich: Visit) -> None:
    page = rich.page
    page.locator(f"{BOARD} tbody tr:visible td[data-col=few]").nth(1).click()
    drawer = page.locator(".drawer[open]")
    assert "To run it again: ltbench run mnist5k-lt-if100" in drawer.inner_text()
    facts = {
        line.locator("dt").inner_text(): line.locator("dd").inner_text()
        for line in drawer.locator(".pairs div:visible").all()
    }
    assert facts["Records"] == "crt/seed0.json, seed1.json, seed2.json"
    assert {"Seeds", "Code version"} <= set(facts)
    page.go_back()
    page.locator("nav a[href='#overview']").click()
    page.locator(".heat td a").first.click()
    assert page.locator(".drawer[open]").count() == 1
    page.locator("nav a[href='#overview']").click()
    page.locator(".lede a[href='#costs']").click()
    assert page.locator("table.costs tbody tr").count() == 3
    page.locator("table.costs td a").first.click()
    assert rich.view() == ["boards"]


def test_a_method_view_draws_its_runs_and_says_how_to_cite_it(rich: Visit) -> None:
    rich.page.locator("nav a[href='#methods']").click()
    view = rich.page.locator("#method-balanced_softmax")
    view.locator("summary").first.click()
    view.locator("figure.picture").first.wait_for()
    titles = view.locator("figure.picture figcaption").all_inner_texts()
    assert titles[:4] == [
        "Accuracy of each class (%), last epoch",
        "Test accuracy (%), mean and deviation over seeds",
        "Training loss",
        "Weight norm of each class",
    ]
    assert view.locator(".equation").inner_text() == "L = 1"
    assert view.locator("a[href='https://arxiv.org/abs/2007.10740']").count() == 1
    assert "ltbench run mnist5k-lt-if100 " in view.locator(".command:visible").first.inner_text()
    view.locator(".cite summary").click()
    assert "@inproceedings{ren2020balanced" in view.locator(".cite code").inner_text()
    assert "NaN" not in view.inner_html()
    top = [view.locator(one).first.bounding_box()["y"] for one in (".command:visible", "figure.picture", ".claims")]
    assert top == sorted(top)
    boards = ["CIFAR-10 (paper)", "MNIST, 5,000 digits (paper)"]
    assert sorted(view.locator(".pictures h3").all_inner_texts()) == boards
    assert sorted(view.locator("h3:not(.pictures *) a:first-child").all_inner_texts()) == boards


def test_paper_tables_state_what_was_found(browser: Any, path: Path, tmp_path: Path) -> None:
    page = build_report(awkward(), tmp_path / "out", sources(two_claims(), folders=method_folders(tmp_path)))
    visit = Visit(browser, page, "#paper-a-paper-table-2")
    cells = visit.page.locator("#paper-a-paper-table-2 tbody td")
    assert cells.first.inner_text().split("\n")[:4] == ["90.9", "88.7 ± 0.2 (3)", "\u22122.2", "differs"]
    assert cells.last.inner_text().split("\n") == ["63.1", "not run"]
    visit.close()


def test_papers_are_filtered_and_say_what_to_do(rich: Visit) -> None:
    page = rich.page
    page.locator("nav a[href='#published']").click()
    page.locator("select[name=status]").select_option("not comparable")
    cells = page.locator("#paper-a-paper-table-2 tbody td")
    assert cells.first.inner_text().split("\n")[:3] == ["90.9", "80.0 ± 0.0 (3)", "best on test (optimistic)"]
    assert "recipe changed" in page.locator("#paper-a-paper-table-2 caption").inner_text()  # once, for all cells
    assert "recipe changed" not in cells.first.inner_text()
    assert "difference in points" not in page.locator("#paper-a-paper-table-2 caption").inner_text()  # no cell has one
    assert "dim" in cells.last.get_attribute("class")
    assert "status=not+comparable" in rich.hash()
    page.locator("select[name=status]").select_option("reported only") if page.locator(
        "select[name=status] option", has_text="reported only"
    ).count() else page.locator("select[name=status]").select_option("not run")
    cells.last.locator("a.badge").click()
    todo = page.locator(".todos li.here")
    assert "--dataset cifar100 --imbalance-factor 10 --method balanced_softmax --track paper" in todo.inner_text()
    assert "time not known: resnet32_cifar has not been timed" in todo.inner_text()
    page.locator(".controls button[type=reset]").click()
    page.wait_for_timeout(100)
    assert "status" not in rich.hash()


@pytest.mark.parametrize("width", [1400, 390])
def test_a_cell_of_the_matrix_is_undone_where_one_is(browser: Any, rich_path: Path, width: int) -> None:
    visit = Visit(browser, rich_path, "#published", viewport={"width": width, "height": 700})
    page = visit.page
    pick = page.locator("button.pick").first
    pick.click()
    page.wait_for_timeout(800)  # it scrolls there
    assert page.locator(".paper-cell.dim").count() > 0
    for part in (".dim .published-value", ".dim .badge", ".paper-cell:not(.dim) .badge"):
        assert page.evaluate(CONTRAST, part) >= 4.5, part
    reset = page.locator(".controls button[type=reset]")
    assert 0 <= visit.box(reset)["y"] < 100
    reset.click()
    page.wait_for_timeout(100)
    assert page.locator(".paper-cell.dim").count() == 0
    for pressed in ("true", "false"):
        pick.click()
        assert pick.get_attribute("aria-pressed") == pressed
    assert page.locator(".paper-cell.dim").count() == 0
    assert page.locator(".controls.filtered").count() == 0
    visit.close()


def test_speed_is_folded_until_asked_for(browser: Any, tmp_path: Path) -> None:
    page = build_report(awkward(), tmp_path / "out", sources(benches=[test_speed.written(tmp_path)]))
    visit = Visit(browser, page, "#speed")
    tables = visit.page.locator("#speed table:visible")
    assert tables.count() == 0
    visit.page.locator("#speed summary").first.click()
    assert "1,234" in tables.inner_text()
    visit.close()


def test_findings_are_of_one_data_set(rich: Visit) -> None:
    rich.page.locator("nav a[href='#findings']").click()
    shown = rich.page.locator(".of-board:visible")
    assert shown.count() == 1
    assert "Against cross-entropy" in shown.inner_text()
    chip = shown.locator("a.track")
    assert chip.get_attribute("href") == "#word-paper"
    assert "mnist5k-lt" not in shown.inner_text()  # the name of a file
    shown.locator("details.study summary").click()
    assert "It adds +40.0" in shown.inner_text()
