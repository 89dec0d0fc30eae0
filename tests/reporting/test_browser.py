"""The page in a real browser: sorting, the selection rule, the hash, dark mode, a phone, and no stray request."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.records.collect import Collected
from harness.reporting.claims import Claim
from harness.reporting.report import build_report
from harness.reporting.summary import METRICS
from tests.factories import sources
from tests.reporting.conftest import HOSTILE
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
BOARD = "table.board[data-section='mnist5k-lt-if100-paper']"
CELLS = """(table, column) => {
  const headers = [...table.tHead.rows[0].cells];
  const index = headers.findIndex(cell => cell.querySelector('button').dataset.column === column);
  return [...table.tBodies[0].rows].map(row => row.cells[index])
    .map(cell => cell.querySelector('a')?.innerText ?? cell.innerText);
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page with what it logged and asked for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.url = path.as_uri()
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(self.url)

    def _refuse(self, dialog: Any) -> None:
        self.trouble.append(dialog.message)
        dialog.dismiss()

    def column(self, name: str) -> list[str]:
        return list(self.page.locator(BOARD).evaluate(CELLS, name))

    def sort(self, name: str) -> Any:
        """Clicks a header and returns its new direction."""
        header = self.page.locator(f"{BOARD} th:has(button[data-column='{name}'])")
        header.locator("button").click()
        return header.get_attribute("aria-sort")

    def select(self, rule: str) -> None:
        self.page.locator(f"label:has(input[value='{rule}'])").click()


@pytest.fixture
def path(made: Collected, claims: list[Claim], tmp_path: Path) -> Path:
    return build_report(made, tmp_path, sources(claims))


@pytest.fixture
def visit(browser: Any, path: Path) -> Iterator[Visit]:
    visit = Visit(browser, path)
    yield visit
    visit.context.close()
    assert visit.trouble == []
    assert visit.requests
    assert {url.partition("#")[0] for url in visit.requests} == {visit.url}


def number(text: str) -> float | None:
    found = re.match(r"[+\u2212]?\d+(\.\d+)?", text.strip())
    return float(found.group().replace("\u2212", "-")) if found else None


@pytest.mark.parametrize(
    "name", ["rank", "method", "backbone", *(metric.key for metric in METRICS if metric.shown == "always"), "n"]
)
def test_every_column_sorts_both_ways(visit: Visit, name: str) -> None:
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


def test_sorting_by_keyboard(visit: Visit) -> None:
    visit.page.locator(f"{BOARD} button[data-column='few']").focus()
    visit.page.keyboard.press("Enter")
    assert visit.page.locator(f"{BOARD} th[aria-sort='descending'] button").get_attribute("data-column") == "few"
    assert visit.page.locator(".announce").inner_text() == "Sorted by Few, descending"


def test_the_selection_rule_changes_numbers_and_hash_and_survives_a_reload(visit: Visit) -> None:
    last = visit.column("all")
    visit.select("best_test")
    oracle = visit.column("all")
    assert oracle != last
    assert oracle[0].startswith("87.0")
    assert visit.page.evaluate("location.hash") == "#selection=best_test"
    visit.sort("few")
    ordered = visit.column("method")
    visit.page.reload()
    assert visit.page.locator("input[value='best_test']").is_checked()
    assert visit.column("method") == ordered
    assert set(visit.column("all")) == set(oracle)
    visit.page.goto(f"{visit.url}#selection=no_such_rule&sort=a:b:c")
    assert visit.column("all") == last


def test_a_rule_that_does_not_apply_prints_a_dash(visit: Visit) -> None:
    visit.select("best_val")
    cells = visit.page.locator("table.board[data-section='cifar10-lt-if10-paper']").evaluate(CELLS, "all")
    assert cells == ["-", "-"]


def test_the_best_of_a_column_is_bold(visit: Visit) -> None:
    weights = visit.page.locator(f"{BOARD} tbody tr td:nth-child(3) .r[data-rule='last'] .mean").evaluate_all(
        "nodes => nodes.map(node => getComputedStyle(node).fontWeight)"
    )
    assert weights == ["700", *["400"] * 5]


def test_hostile_text_is_shown_and_not_run(visit: Visit) -> None:
    assert f"{HOSTILE}-{HOSTILE}" in visit.column("method")
    assert f"{HOSTILE}-{HOSTILE}" in visit.page.locator("figure.chart .legend").last.inner_text()


def test_chart_and_its_table_show_the_same_numbers(visit: Visit) -> None:
    figure = visit.page.locator("figure.chart[data-section='mnist5k-lt-if100-paper']")
    assert figure.locator(".plot .line").count() == 4  # every row with a result
    assert figure.locator(".plot .bar").count() == 10
    figure.locator("summary").click()
    first = figure.locator("tbody tr").first
    assert first.locator("td").all_inner_texts() == ["380", "many", "91.5", "89.5", "98.0", "70.0"]
    tips = figure.locator(".plot .marker title").evaluate_all("nodes => nodes.map(node => node.textContent)")
    assert tips[0] == "balanced_softmax, class 0 (380 training images): 91.5 %"
    visit.select("best_test")
    assert first.locator("td").nth(2).inner_text() == "92.0"


def test_a_legend_entry_hides_its_line(visit: Visit) -> None:
    figure = visit.page.locator("figure.chart[data-section='mnist5k-lt-if100-paper']")
    button = figure.locator(".legend button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert figure.locator(".plot .line").count() == 3


def test_a_method_name_opens_its_drawer_and_keeps_the_state(visit: Visit) -> None:
    visit.select("best_test")
    visit.page.locator(f"{BOARD} tbody a").first.click()
    assert visit.page.locator("details.drawer[open] summary").inner_text().startswith("balanced_softmax")
    link = visit.page.evaluate("location.hash")
    assert re.fullmatch(r"#selection=best_test&open=row-[0-9a-f]{8}", link)
    again = Visit(visit.page.context.browser, Path(visit.url.removeprefix("file://")))
    again.page.goto(f"{visit.url}{link}")
    assert again.page.locator("details.drawer[open] summary").inner_text().startswith("balanced_softmax")
    again.page.goto("about:blank")
    again.page.goto(f"{visit.url}#method-balanced_softmax")
    assert again.page.locator("#method-balanced_softmax").get_attribute("open") is not None
    again.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser: Any, path: Path, scheme: str) -> None:
    visit = Visit(browser, path, color_scheme=scheme)
    for selector in ("h1", ".lede", "dt", "caption", "thead button", ".std", ".mark", "a", "input:checked + span"):
        assert visit.page.evaluate(CONTRAST, selector) >= 4.5, selector
    dark = visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    visit.context.close()


def test_a_phone_never_scrolls_sideways(browser: Any, path: Path) -> None:
    visit = Visit(browser, path, viewport={"width": 390, "height": 844})
    visit.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    assert visit.page.locator(".scroll").first.evaluate("node => node.scrollWidth > node.clientWidth")
    visit.context.close()


def test_without_script_the_headline_numbers_stand(browser: Any, path: Path) -> None:
    visit = Visit(browser, path, java_script_enabled=False)
    assert visit.page.locator(f"{BOARD} tbody tr").first.inner_text().split()[:3] == [
        "1",
        "balanced_softmax",
        "86.5",
    ]
    visit.context.close()


@pytest.fixture
def rich(browser: Any, measured: Collected, claims: list[Claim], folders: dict[str, Path], tmp_path: Path) -> Any:
    """A page whose records have evidence, with a paper table."""
    visit = Visit(browser, build_report(measured, tmp_path / "rich", sources(claims, folders=folders)))
    yield visit
    visit.context.close()
    assert visit.trouble == []
    assert {url.partition("#")[0] for url in visit.requests} == {visit.url}


def shown_rows(visit: Visit) -> list[str]:
    return list(visit.page.locator("table.board tbody tr:visible th").all_inner_texts())


def test_filters_hide_rows_and_stay_in_the_link(visit: Visit, browser: Any) -> None:
    before = len(shown_rows(visit))
    visit.page.locator("input[name=q]").fill("BALANCED")
    assert all("balanced" in name for name in shown_rows(visit))
    assert len(shown_rows(visit)) == 2 < before
    visit.page.locator("select[name=dataset]").select_option("cifar10")
    assert len(shown_rows(visit)) == 1
    link = visit.page.evaluate("location.href")
    assert link.endswith("#q=BALANCED&dataset=cifar10")
    again = Visit(browser, Path(visit.url.removeprefix("file://")))
    again.page.goto(link)
    assert len(shown_rows(again)) == 1
    assert again.page.locator("input[name=q]").input_value() == "BALANCED"
    again.context.close()
    visit.page.locator("button[type=reset]").click()
    visit.page.wait_for_timeout(200)
    assert len(shown_rows(visit)) == before


def test_filters_that_fit_nothing_say_so(visit: Visit) -> None:
    visit.page.locator("input[name=q]").fill("no such method")
    assert visit.page.locator(".nothing").is_visible()
    assert shown_rows(visit) == []


@pytest.mark.parametrize(
    ("kind", "start"),
    [("md", "| Rank ↑ | Method | All"), ("tex", "\\begin{tabular}{llr"), ("csv", "Rank ↑,Method,All")],
)
def test_a_table_is_copied_as_it_is_shown(rich: Visit, kind: str, start: str) -> None:
    rich.page.evaluate("window.copied = null; navigator.clipboard.writeText = async text => { window.copied = text; }")
    rich.page.locator("input[name=q]").fill("c")
    button = rich.page.locator(f"section.table button[data-copy={kind}]")
    button.click()
    rich.page.wait_for_timeout(200)
    copied = rich.page.evaluate("window.copied")
    assert copied.startswith(start.replace(" ↑", ""))
    assert "balanced" in copied
    assert len(copied.strip().splitlines()) == {"md": 5, "csv": 4, "tex": 9}[kind]
    assert button.inner_text() == "Copied"


def test_copying_works_where_the_clipboard_is_refused(rich: Visit) -> None:
    rich.page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('no'); }; }")
    button = rich.page.locator("section.table button[data-copy=md]")
    button.click()
    rich.page.wait_for_timeout(200)
    assert button.inner_text() == "Copied"
    assert rich.page.locator("textarea").count() == 0


def test_any_two_rows_are_compared(rich: Visit) -> None:
    form, result = rich.page.locator("form.compare"), rich.page.locator(".comparison")
    assert "balanced_softmax" in result.inner_text()
    assert "cannot be told apart" in result.inner_text()
    form.locator("select[name=second]").select_option(label="ce")
    assert "the two differ" in result.inner_text()
    cells = result.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells == ["90.0 ± 0.0", "63.8 ± 0.0", "\u221226.2"]
    assert result.locator("figure.picture").count() == 4
    assert "compare=mnist5k-lt-if100-paper:" in rich.page.evaluate("location.hash")
    rich.page.reload()
    assert form.locator("select[name=second] option:checked").inner_text() == "ce"


def test_a_method_view_draws_its_runs(rich: Visit) -> None:
    view = rich.page.locator("#method-balanced_softmax")
    view.locator("summary").first.click()
    view.locator("figure.picture").first.wait_for()
    titles = view.locator("figure.picture figcaption").all_inner_texts()
    assert titles == [
        "Accuracy of each class (%) at last",
        "Test accuracy (%), mean and deviation over seeds",
        "Training loss",
        "Weight norm of each class",
    ]
    assert view.locator(".equation").inner_text() == "L = 1"
    assert view.locator("a[href='https://arxiv.org/abs/2007.10740']").count() == 1
    assert "ltbench run --dataset mnist5k --imbalance-factor 100" in view.locator(".command").first.inner_text()
    assert "NaN" not in view.inner_html()


def test_paper_tables_state_what_was_found(
    browser: Any, made: Collected, claims: list[Claim], folders: dict[str, Path], tmp_path: Path
) -> None:
    visit = Visit(browser, build_report(made, tmp_path / "papers", sources(claims, folders=folders)))
    table = visit.page.locator("#paper-a-paper-table-2")
    assert table.get_attribute("open") is not None
    cells = table.locator("tbody td")
    assert cells.first.inner_text().split("\n")[:4] == ["90.9", "88.7 ± 0.2 (3)", "\u22122.2", "differs"]
    assert cells.last.inner_text().split("\n") == ["63.1", "not run"]
    assert visit.trouble == []
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(
    browser: Any, measured: Collected, claims: list[Claim], folders: dict[str, Path], tmp_path: Path, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    weights = [written(tmp_path / "weights", make_weights())]
    page = build_report(measured, tmp_path / "axe", sources(claims, folders=folders, weights=weights))
    visit = Visit(browser, page, color_scheme=scheme, bypass_csp=True)
    visit.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    visit.page.wait_for_timeout(300)
    found = axe.Axe().run(visit.page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
    visit.context.close()
