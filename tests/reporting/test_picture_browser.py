"""The pictures in a real browser: cursor, zoom, rows drawn as lines, tables, files, filters, every width and scheme."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.files import write_json
from harness.records.arrays import write_arrays
from harness.records.collect import Collected, collect
from harness.records.evaluate import score_epoch
from harness.records.evidence import evidence_path
from harness.records.schema import costs_path, read_record, write_record
from harness.reporting import html
from harness.reporting.report import build_report
from tests.factories import collected, make_record, sources
from tests.reporting import test_browser
from tests.reporting.conftest import store
from tests.reporting.test_speed import FIGURES, written

browser = test_browser.browser
pytestmark = test_browser.pytestmark
TEMPLATES = Path(html.__file__).parent / "templates"
NAMES = ("many-few", "cost", "frequency", "learning", "confusion")
TWO_STAGES = {"backbone": "lenet", "params": {}, "train": {"epochs": 3}, "finetune": {"epochs": 3}}


def page_of(folder: Path, out: Path) -> Path:
    return build_report(replace(collect(folder), unchecked=[]), out, sources())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods with evidence and costs, one of two stages that started from cross-entropy's runs."""
    root = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        store(root / "records", "balanced_softmax", seed, [0.9] * 10)
        store(root / "records", "crt", seed, [0.9] * 9 + [0.88])
        ce = store(root / "records", "ce", seed, [0.96] * 3 + [0.5] * 7)
        facts: dict[str, Any] = {"stages": ["train", "finetune"], "recipe": TWO_STAGES, "stage1_selection": "last"}
        store(root / "records", "lws", seed, [0.94] * 3 + [0.8] * 7, stage1_key=read_record(ce).run_key, **facts)
        for method, seconds in (("ce", 10.0), ("crt", 30.0), ("balanced_softmax", 10.0), ("lws", 15.0)):
            costs = costs_path(root / "records" / method / f"seed{seed}.json")
            write_json(costs, {"device": "CPU", "train_seconds": seconds})
    return page_of(root / "records", root / "page")


class Pictures(test_browser.Visit):
    """The page, at its pictures."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        super().__init__(browser, path, "#pictures", **context)

    def of(self, name: str, inside: str = "") -> Any:
        return self.page.locator(f"figure[data-picture='{name}'] {inside}".strip())

    def reading(self, name: str) -> str:
        text = str(self.of(name, ".pic-reading").inner_text())
        assert text in self.of(name, "svg[role=img]").get_attribute("aria-label")
        return text

    def table(self, name: str) -> list[list[str]]:
        self.of(name, "details").evaluate("one => { one.open = true; }")
        self.of(name, "table").wait_for()
        rows = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        return list(self.of(name, "table tr").evaluate_all(rows))

    def press(self, name: str, *names: str) -> str:
        """What is read out after these keys."""
        self.of(name, ".pic-plot").focus()
        for key in names:
            self.page.keyboard.press(key)
        return str(self.page.locator(".announce[aria-live]").inner_text())

    def save(self, name: str, kind: str) -> tuple[str, str]:
        with self.page.expect_download() as download:
            self.of(name, f"[data-file={kind}]").click()
        return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8")


@pytest.fixture
def visit(browser: Any, path: Path) -> Iterator[Pictures]:
    visit = Pictures(browser, path)
    yield visit
    visit.context.close()
    assert visit.trouble == []
    assert {url.partition("#")[0] for url in visit.requests if not url.startswith("blob:null/")} == {visit.url}


def test_every_picture_says_what_it_shows(visit: Pictures) -> None:
    assert visit.reading("many-few").startswith("3 of 4 methods are on the front")
    assert "balanced_softmax (90.0, 90.0), lws (94.0, 80.0), ce (96.0, 50.0)" in visit.reading("many-few")
    assert "balanced_softmax (\u00d71, 90.0)" in visit.reading("cost")
    assert "ce 96 to 50 %" in visit.reading("frequency")
    visit.page.locator("#pictures [name=line]").select_option(label="lws")
    assert "lws 63.8 % after stage 1, 84.2 % after stage 2" in visit.reading("learning")
    assert visit.reading("confusion").startswith("balanced_softmax: on average 90 % of the test images")


def test_the_page_rounds_as_python_does(visit: Pictures) -> None:
    """Accuracies over 10,000 images are ties often enough: 13.25 is 13.2 on the boards, and so in pictures."""
    script = (TEMPLATES / "charts.js").read_text()
    (code,) = re.findall(r"^const round = .*?^};$", script, flags=re.MULTILINE | re.DOTALL)
    values = [n / 4 for n in range(-80, 400)]
    found = visit.page.evaluate(f"values => {{ {code}\nreturn values.map(round); }}", values)
    assert found == [round(value, 1) for value in values]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_its_table_and_its_files_hold_the_same(visit: Pictures, name: str) -> None:
    table = visit.table(name)
    file, text = visit.save(name, "csv")
    assert file == f"mnist5k-lt-if100-paper-{name}.csv"
    lines = list(csv.reader(io.StringIO(text)))
    assert lines == [[cell if cell != "-" else "" for cell in row] for row in table]
    file, drawing = visit.save(name, "svg")
    assert file == f"mnist5k-lt-if100-paper-{name}.svg"
    assert "var(" not in drawing
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")
    words = " ".join(ET.fromstring(drawing).itertext())
    assert visit.reading(name) in words
    assert "mnist5k-lt-if100, paper track" in words
    marks = visit.of(name, "svg[role=img] :is(.pic-mark, .pic-dot, .pic-ring, .pic-cell)").count()
    assert marks >= {"confusion": 100, "frequency": 22, "learning": 4}.get(name, 4)


def test_the_cursor_follows_the_mouse_and_the_keys(visit: Pictures) -> None:
    assert visit.press("many-few", "Home", "ArrowRight", "ArrowRight").startswith("lws: many 94.0 ± 0.0 %, few 80.0")
    assert visit.of("many-few", ".pic-tip").inner_text().startswith("lws")
    assert visit.press("many-few", "Escape") != ""
    assert not visit.of("many-few", ".pic-tip").is_visible()
    cell = visit.of("confusion", ".pic-cell").nth(90)  # class 9 taken for class 0, with 10 % of balanced softmax's
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert (
        visit.of("confusion", ".pic-tip").inner_text().startswith("class 9 (3 training images): 10 % taken for class 0")
    )
    assert visit.press("confusion", "Home", "ArrowDown", "ArrowRight").startswith(
        "class 1 (227 training images): 90 % right"
    )
    assert visit.press("learning", "End", "ArrowLeft") == "ce, epoch 2: 50.0 %"


def test_a_point_is_drawn_as_a_line_and_no_longer(visit: Pictures) -> None:
    lines = visit.of("frequency", ".pic-line.dash0")
    chosen = visit.page.locator(".pic-chosen button")
    assert chosen.all_inner_texts() == ["balanced_softmax \u00d7", "ce \u00d7"]
    before = lines.count()
    said = visit.press("many-few", "Home", "ArrowRight", "ArrowRight", "Enter")
    assert said == "lws is drawn as a line"
    assert chosen.all_inner_texts()[-1] == "lws \u00d7"
    assert lines.count() == before + 2  # the line and its key
    chosen.last.click()
    assert lines.count() == before
    visit.page.locator("#pictures [name=line]").select_option(label="crt")
    assert "crt 90 to 88 %" in visit.reading("frequency")
    for _ in range(3):
        chosen.first.click()
    assert visit.of("frequency", ".pic-empty").is_visible()


def test_a_finger_looks_first_and_picks_second(browser: Any, path: Path) -> None:
    visit = Pictures(browser, path, viewport={"width": 390, "height": 844}, has_touch=True)
    dot = visit.of("many-few", ".pic-dot").first
    for shown in (["balanced_softmax", "ce"], ["balanced_softmax", "ce", "lws"]):
        visit.of("many-few", ".pic-plot").scroll_into_view_if_needed()
        box = dot.bounding_box()
        visit.page.touchscreen.tap(box["x"] + 4, box["y"] + 4)
        assert visit.of("many-few", ".pic-tip").inner_text().startswith("lws")
        chosen = visit.page.locator(".pic-chosen button").all_inner_texts()
        assert [text.split()[0] for text in chosen] == shown
    visit.context.close()


def test_zooming_by_buttons_keys_and_dragging(visit: Pictures) -> None:
    assert len(visit.table("frequency")) == 11
    visit.of("frequency", "[data-zoom=in]").click()
    assert visit.page.locator(".announce[aria-live]").inner_text() == "Classes 4 to 8 of 10"
    assert [row[0] for row in visit.table("frequency")[1:]] == [f"class {c}" for c in range(3, 8)]
    assert visit.press("frequency", ">").startswith("Classes 6 to 10")
    assert visit.of("frequency", "[data-zoom=all]").is_enabled()
    assert visit.press("frequency", "0").startswith("All 10 classes")
    assert visit.of("frequency", "[data-zoom=all]").is_disabled()
    visit.of("frequency", "svg[role=img]").scroll_into_view_if_needed()
    box = visit.of("frequency", "svg[role=img]").bounding_box()
    visit.page.mouse.move(box["x"] + 60, box["y"] + 200)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 200)
    visit.page.mouse.up()
    names = [row[0] for row in visit.table("frequency")[1:]]
    assert names[0] == "class 0"
    assert 1 < len(names) < 10


def test_the_selection_rule_and_the_filters_reach_the_pictures(visit: Pictures) -> None:
    visit.search("c")
    assert visit.reading("many-few").startswith("2 of 2 methods are on the front")  # crt and ce
    keys = visit.page.locator("table.board tbody tr").evaluate_all("rows => rows.map(row => row.dataset.key)")
    event = "rows => document.dispatchEvent(new CustomEvent('ltbench:filter', {detail: {rows}}))"
    visit.page.evaluate(event, keys[:1])
    assert visit.reading("many-few").startswith("1 of 1 method is on the front")
    visit.page.evaluate(event, [])
    assert visit.of("many-few", ".pic-empty").is_visible()
    visit.page.evaluate(event, None)
    assert visit.reading("many-few").startswith("3 of 4 methods")
    assert visit.page.locator("input[value='best_val']").is_disabled()  # no row has it
    assert "No row has a value at “Best on validation”" in visit.page.locator(".lacking").inner_text()


def test_another_board_makes_other_pictures(browser: Any, made: Collected, tmp_path: Path) -> None:
    visit = Pictures(browser, build_report(made, tmp_path, sources()))
    boards = visit.page.locator("form.controls [name=board]")
    boards.select_option("cifar10-lt-if10-paper")
    assert "No class of this board is few-shot" in visit.reading("many-few")
    assert visit.of("many-few", "figcaption").inner_text() == "Accuracy on many against medium"
    assert visit.of("confusion", ".pic-empty").inner_text() == "No row that is shown has stored predictions."
    assert visit.of("learning", "details").is_hidden()
    boards.select_option("mnist5k-lt-if100-paper")
    assert visit.of("many-few", "figcaption").inner_text() == "Accuracy on many against few"
    assert "gcl" not in str(visit.table("many-few"))  # it has no result
    assert visit.trouble == []
    visit.context.close()


def test_another_record_makes_another_picture(browser: Any, measured: Collected, tmp_path: Path) -> None:
    before, after = (0.5, "2 of 3 methods are", "ce 96 to 50 %"), (0.98, "1 of 3 methods is", "ce 98 to 98 %")
    for accuracy, first, line in (before, after):
        if accuracy > 0.5:
            for seed in range(3):
                store(tmp_path / "records", "ce", seed, [accuracy] * 10)
        visit = Pictures(browser, page_of(tmp_path / "records", tmp_path / first))
        assert visit.reading("many-few").startswith(first)
        assert line in visit.reading("frequency")
        visit.context.close()


@pytest.mark.parametrize("width", [1400, 390])
def test_the_key_is_whole_and_no_near_name_lies_on_the_front(browser: Any, path: Path, width: int) -> None:
    visit = Pictures(browser, path, viewport={"width": width, "height": 900})
    assert "coloured: rows drawn as lines below" in visit.of("many-few", "svg[role=img]").text_content()
    crossed = visit.of("many-few", "svg[role=img]").evaluate("""drawing => {
      const front = drawing.querySelector(".pic-front");
      const points = [...Array(400).keys()].map((at) => front.getPointAtLength((at / 399) * front.getTotalLength()));
      const inside = ({ x, y, width, height }) => points.some((at) =>
        at.x > x && at.x < x + width && at.y > y + 2 && at.y < y + height - 3);
      const names = [...drawing.querySelectorAll(".pic-halo")];
      return names.filter((name) => inside(name.getBBox())).map((name) => name.textContent);
    }""")
    assert crossed == []
    visit.context.close()


@pytest.mark.parametrize("width", [1400, 1024, 390])
def test_names_and_drawings_keep_their_places(browser: Any, path: Path, width: int) -> None:
    """No name lies on another, and none leaves its picture."""
    visit = Pictures(browser, path, viewport={"width": width, "height": 900}, color_scheme="dark")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    for name in NAMES:
        boxes = visit.of(name, "svg[role=img]").evaluate("""drawing => {
          const frame = drawing.getBoundingClientRect();
          return [...drawing.querySelectorAll("text:not([transform])")].map(text => text.getBoundingClientRect())
            .map(box => [box.left - frame.x, box.top - frame.y, box.right - frame.x, box.bottom - frame.y])
            .map(box => [...box, frame.width, frame.height]);
        }""")
        assert len(boxes) > 8
        for at, (left, top, right, bottom, wide, high) in enumerate(boxes):
            assert min(left, top, wide - right, high - bottom) >= -1, (name, at)
            for other in boxes[:at]:
                over = min(right, other[2]) - max(left, other[0]), min(bottom, other[3]) - max(top, other[1])
                assert min(over) < 3, (name, at, other)
    visit.context.close()


def test_variants_are_shown_when_asked_for(browser: Any, measured: Collected, tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path / "records" / "flip", "crt", seed, [0.98] * 10, variant="flip")
    for record in (tmp_path / "records").rglob("seed?.json"):
        write_json(costs_path(record), {"device": "CPU", "train_seconds": 10.0})
    visit = Pictures(browser, page_of(tmp_path / "records", tmp_path / "page"))
    assert visit.reading("many-few").endswith(" 1 variant is not shown.")
    assert [row[0] for row in visit.table("many-few")[1:]] == ["crt", "balanced_softmax", "ce"]
    visit.page.locator("#pictures [name=variants]").check()
    assert visit.reading("many-few").startswith("1 of 4 rows is on the front: no other is better on both.")
    assert visit.reading("cost").startswith("1 of 4 rows is on the front")
    assert visit.table("many-few")[1][0] == "crt, flip"
    visit.context.close()


def test_a_methods_view_has_both_stages_and_no_comb(browser: Any, path: Path, tmp_path: Path) -> None:
    visit = test_browser.Visit(browser, path, "#method-lws")
    curves = visit.page.locator("#method-lws figure.picture:has(figcaption:text('Test accuracy')) .line")
    assert curves.count() == 2
    visit.close()
    rows = [
        make_record(name, 0, 0.4, slope=0.5, class_counts=[500 - 2 * c for c in range(200)]) for name in ("ce", "crt")
    ]
    visit = test_browser.Visit(browser, build_report(collected(*rows), tmp_path, sources()), "#compare")
    drawn = visit.page.locator(".comparison figure.picture")
    assert drawn.locator("g.s0 .marker").count() == drawn.locator("g.s5 .marker").count() == 20
    visit.close()


def test_marks_differ_without_colour(visit: Pictures) -> None:
    visit.page.locator("#pictures [name=line]").select_option(label="lws")
    for name in ("frequency", "learning"):
        shapes = visit.of(name, "g.s0 .pic-mark, g.s1 .pic-mark, g.s2 .pic-mark").evaluate_all(
            "marks => marks.map(mark => [mark.parentNode.getAttribute('class'), mark.getAttribute('d')])"
        )
        assert len({tuple(shape) for shape in shapes}) == len({shape for _, shape in shapes}) == 3
    numbers = visit.of("confusion", "svg[role=img] :is(.pic-pale, .pic-mid, .pic-deep)").all_text_contents()
    assert {"90", "10"} <= set(numbers)


def test_a_board_with_many_classes_is_binned_until_one_zooms_in(browser: Any, tmp_path: Path) -> None:
    counts = [500 - 2 * c for c in range(200)]
    rows = [make_record("ce", 0, 0.4, slope=0.5, class_counts=counts), make_record("crt", 0, 0.5, class_counts=counts)]
    visit = Pictures(browser, build_report(collected(*rows), tmp_path, sources()))
    assert "200 classes in 20 bins of about 10" in visit.reading("frequency")
    assert visit.table("frequency")[1][:2] == ["classes 1 to 10", "500 to 482"]
    for _ in range(4):
        visit.of("frequency", "[data-zoom=in]").click()
    assert len(visit.table("frequency")) == 14
    assert re.fullmatch(r"class \d+", visit.table("frequency")[1][0])
    assert visit.trouble == []
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_the_heat_map_are_readable(browser: Any, tmp_path: Path, scheme: str) -> None:
    """Whatever the share, its number stands out from its cell."""
    folder = tmp_path / "records"
    for seed in range(2):
        store(folder, "ce", seed, [1, 0.94, 0.86, 0.82, 0.8, 0.76, 0.7, 0.6, 0.58, 0.5], optimism=0.0)
    visit = Pictures(browser, page_of(folder, tmp_path / "page"), color_scheme=scheme)
    shades = visit.of("confusion", "svg[role=img]").evaluate("""drawing => {
      const channels = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const paper = channels(getComputedStyle(document.body).backgroundColor);
      const cells = [...drawing.querySelectorAll(".pic-cell")].filter(cell => cell.nextSibling?.tagName === "text");
      return cells.map(cell => {
        const full = Number(cell.getAttribute("fill-opacity"));
        const fill = channels(getComputedStyle(cell).fill).map((v, i) => full * v + (1 - full) * paper[i]);
        const [a, b] = [light(fill), light(channels(getComputedStyle(cell.nextSibling).fill))].sort();
        return [full, (b + 0.05) / (a + 0.05)];
      });
    }""")
    assert {full for full, _ in shades} >= {0.06, 0.5, 0.6, 0.82, 1}
    assert min(contrast for _, contrast in shades) >= 4.5
    visit.context.close()


def test_the_cost_is_that_of_the_boards_until_one_asks_for_another(browser: Any, tmp_path: Path) -> None:
    """cRT has a timed step, GCL has none; both took their seconds on a busy machine."""
    seconds = {"ce": 10.0, "crt": 60.0, "gcl": 20.0}
    for name, spent in seconds.items():
        stages = {"train": {"images_per_second": 100.0, "train_seconds": 10.0}}
        costs = costs_path(store(tmp_path / "records", name, 0, [0.9] * 10))
        write_json(costs, {"device": "CPU", "train_seconds": spent, "stages": stages})
    steps = [
        {"method": name, "stage": "train", "shared_by": [], "ratio": {"median": ratio}}
        for name, ratio in (("ce", 1.0), ("crt", 1.5))
    ]
    bench = written(tmp_path, parts=FIGURES["parts"] | {"steps": steps})
    page = build_report(collect(tmp_path / "records"), tmp_path / "page", sources(benches=[bench]))
    visit = Pictures(browser, page)
    time = {"ce": "1", "crt": "1.5", "gcl": "2"}
    source = dict.fromkeys(("ce", "crt"), "timed steps") | {"gcl": "the seconds of its runs, machine load included"}
    assert {row[0]: row[1] for row in visit.table("cost")[1:]} == time
    assert {row[0]: row[2] for row in visit.table("cost")[1:]} == source
    assert "as if each ran alone; 1 of 3 from the seconds of runs, machine load included." in visit.reading("cost")
    cells = visit.page.locator("table.board td[data-col=wall_seconds]")
    boards = cells.evaluate_all("all => all.map(one => [one.parentNode.cells[1].dataset.text, one.dataset.value])")
    assert {name: float(value) for name, value in boards} == {name: float(value) for name, value in time.items()}
    visit.of("cost", "[name=measure]").select_option(label="as measured, machine load included")
    assert {row[0]: row[1] for row in visit.table("cost")[1:]} == {"ce": "1", "crt": "6", "gcl": "2"}
    assert "Cost from the seconds of runs, machine load included." in visit.reading("cost")
    visit.close()


def test_a_framed_cell_of_grouped_classes_is_not_called_right(browser: Any, tmp_path: Path) -> None:
    """Of 40 classes, ten groups of four: every image is taken for a neighbour of its group."""
    counts, targets = [400 - 9 * c for c in range(40)], np.repeat(np.arange(40), 5)
    facts: dict[str, Any] = {"class_counts": counts, "test_images": 200, "val_images": 0}
    plain = make_record("ce", 0, 0.5, **facts)
    scores = score_epoch(targets ^ 1, targets, counts, epoch=3, ece=0.1, policy=plain.shot_policy)
    record = tmp_path / "records" / "seed0.json"
    write_record(record, replace(plain, results={"last": scores, "best_val": None, "best_test": scores}))
    arrays: dict[str, np.ndarray] = {"targets": targets.astype(np.uint8)}
    arrays |= {"predictions": (targets ^ 1)[None].astype(np.uint8)}
    arrays |= {"rules": np.array(["last", "best_test"]), "row": np.array([0, 0]), "run_key": np.array(plain.run_key)}
    arrays |= {"epochs": np.array([3]), "loss": np.ones(3), "learning_rate": np.ones(3)}
    write_arrays(evidence_path(record), arrays | {"test": np.zeros(1), "val": np.empty(0)})
    visit = Pictures(browser, page_of(tmp_path / "records", tmp_path / "page"))
    about = visit.of("confusion", ".pic-about").inner_text()
    assert about.endswith("Framed: taken for a class of the same group.")
    assert visit.press("confusion", "Home").endswith("100 % taken for one of them")
    visit.close()


def test_a_framed_cell_of_single_classes_is_right(visit: Pictures) -> None:
    assert visit.of("confusion", ".pic-about").inner_text().endswith("Framed: right.")
