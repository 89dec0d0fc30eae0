"""The published numbers of the CSV: what reaches a claim or a card, and what a damaged file says."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UserError
from harness.reporting.claims import COLUMNS, MAPPING, NUMBERS, Claim, load_claims, load_shipped_cards, read_published
from harness.reporting.comparison import MeasuredRows, dataset_identity
from harness.reporting.paper_tables import count_by_status, coverage, fill, load_tables
from harness.reporting.summary import RunResult, summarize
from harness.spec.entries import Entry
from harness.spec.recipe_layers import has_recipe, variants
from harness.spec.recipes import resolve
from harness.spec.registry import find_plugins, get_plugin
from tests.factories import make_record

# Claims of each method, whether it is here or not.
COUNTS = {
    "balanced_softmax": 36, "balms": 42, "bbn": 16, "bcl": 3, "cdb": 1, "ce": 72, "ce_mixup": 28,
    "class_balanced_focal": 7, "class_balanced_loss": 23, "cmo": 1, "cosine_softmax": 4, "crt": 51, "disalign": 7,
    "dive": 10, "equalization": 9, "focal": 27, "gcl": 27, "glmc": 20, "gpaco": 6, "hybrid_sc": 12, "ib": 4, "lade": 4,
    "ldam_drw": 34, "lift": 8, "logit_adjustment": 3, "lws": 26, "mislas": 18, "ncm": 4, "paco": 9, "remix": 4,
    "resampling": 30, "reweighting": 14, "ride": 22, "sade": 8, "tau_norm": 15, "tde": 29, "tvmf": 4, "vs": 4,
    "wcdas": 2, "weight_balancing": 183,
}  # fmt: skip
# Over every field of every claim and card. After an edit of the CSV or the mapping, look at what changed in
# reports/tables/, then write the new one here.
DIGEST = "d4f1357eda455911"


def printed() -> list[dict[str, str]]:
    with open(NUMBERS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shipped() -> list[Claim]:
    return load_claims({name: plugin.folder for name, plugin in find_plugins().items()})


def where(variant: str = "", **facts: Any) -> list[Claim]:
    return [c for c in shipped() if c.variant == variant and all(getattr(c, k) == v for k, v in facts.items())]


def changed_mapping(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    values = yaml.safe_load(MAPPING.read_text(encoding="utf-8"))
    change(values)
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_method_has_its_claims() -> None:
    assert Counter(claim.method for claim in read_published().claims) == COUNTS
    assert Counter(c.method for c in shipped()) == {name: n for name, n in COUNTS.items() if name in find_plugins()}


def test_a_method_that_is_not_here_has_a_card_with_its_claims() -> None:
    folders = {name: plugin.folder for name, plugin in find_plugins().items()}
    without = {name: folder for name, folder in folders.items() if name != "ncm"}
    (card,) = (card for card in load_shipped_cards(without) if card.name == "ncm")
    assert card.reason == "no method 'ncm' is here"
    assert [c.value for c in card.claims] == [c.value for c in shipped() if c.method == "ncm"]
    assert "ncm" not in {card.name for card in load_shipped_cards(folders)}


def test_a_claims_variant_is_one_of_its_methods() -> None:
    """GCL's and weight balancing's ablations name variants that nobody has written yet."""
    for claim in shipped():
        if claim.variant and claim.method not in ("gcl", "weight_balancing"):
            recipes = find_plugins()[claim.method].folder / "recipes.yaml"
            assert claim.variant in yaml.safe_load(recipes.read_text(encoding="utf-8"))["variants"], claim


def test_a_claim_has_the_variant_of_its_data_set_and_imbalance_factor() -> None:
    found = {
        (c.dataset, c.imbalance_factor): c.variant
        for c in shipped()
        if c.method == "mislas" and c.source == "MiSLAS README" and c.dataset.startswith("CIFAR")
    }
    assert found == {
        ("CIFAR-10-LT", 100): "", ("CIFAR-10-LT", 50): "cifar10-if50", ("CIFAR-10-LT", 10): "cifar10-if10",
        ("CIFAR-100-LT", 100): "", ("CIFAR-100-LT", 50): "cifar100-if50", ("CIFAR-100-LT", 10): "cifar100-if10",
    }  # fmt: skip
    assert {c.value for c in where("lambda0.1", method="lade")} == {50.54}
    assert {c.dataset for c in where("mislas", method="ce_mixup")} == {"CIFAR-10-LT", "CIFAR-100-LT"}


def test_a_variant_of_a_setting_has_a_recipe_there() -> None:
    mapping = yaml.safe_load(MAPPING.read_text(encoding="utf-8"))
    names = (name for of in mapping["names"].values() for name in of.values())
    named = {(n["method"], at, v) for n in names for at, v in n.get("variants", {}).items()}
    assert ("glmc", "CIFAR-100-LT 50", "if50") in named
    for method, at, variant in named:
        dataset = dataset_identity(at.split()[0])
        assert variant in variants(get_plugin(method), "paper", dataset), (method, at)
        assert has_recipe(Entry(method, variant, "paper"), dataset), (method, at)


def test_a_third_partys_re_runs_on_cifar_have_that_partys_recipe() -> None:
    """Bag of Tricks: batch 128, Nesterov, crop and flip, its own warm-up; nothing else stands beside its numbers."""
    claims = [c for c in shipped() if c.source == "Bag of Tricks, trick gallery"]
    assert len(claims) > 50
    for method, variant, dataset in {(c.method, c.variant, dataset_identity(c.dataset)) for c in claims}:
        train = resolve(Entry(method, variant, "paper"), dataset).recipe.train
        assert (train.batch_size, train.lr, train.weight_decay) == (128, 0.1, 2e-4), (method, variant)
        assert (train.nesterov, train.drop_last, train.head_init) == (True, True, "default"), (method, variant)
        assert train.schedule.warmup_from == pytest.approx(1 / 3), (method, variant)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ({"method": "mislas", "variants": {"CIFAR-10-LT 51": "cifar10-if50"}}, "is named 'CIFAR-10-LT 51'"),
        ({"method": "mislas", "variants": {"CIFAR10": "cifar10-if50"}}, "is named 'CIFAR10'"),
        (
            {"method": "mislas", "variants": {"CIFAR-10-LT 50": "cifar10-if5"}},
            r"variants\.CIFAR-10-LT 50: no variant of 'mislas' is named 'cifar10-if5' \(closest: cifar10-if50",
        ),
        ({"left_out": "why", "variants": {"CIFAR-10-LT": "cifar10-if50"}}, "leave out 'variants'"),
    ],
)
def test_a_setting_or_variant_that_does_not_exist_is_refused(
    name: dict[str, Any], message: str, tmp_path: Path
) -> None:
    mapping = changed_mapping(tmp_path, lambda values: values["names"]["MisLAS"].update({"stage 2": name}))
    with pytest.raises(UserError, match=message) as caught:
        read_published(mapping=mapping)
    assert str(caught.value).startswith(f"{mapping}.names.MisLAS.stage 2")
    assert "\n" not in str(caught.value)


def test_no_claim_and_no_card_changes_unseen() -> None:
    claims = [asdict(claim) for claim in sorted(read_published().claims, key=lambda claim: claim.method)]
    cards = sorted((asdict(card) for card in read_published().cards), key=lambda card: card["name"])
    text = json.dumps([claims, cards], sort_keys=True)
    assert (len(claims), len(cards)) == (827, 53)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGEST


def test_every_printed_number_is_a_claim_of_a_method_or_of_a_card() -> None:
    everything = [*read_published().claims, *(claim for card in read_published().cards for claim in card.claims)]
    found = Counter((claim.dataset, claim.imbalance_factor, claim.group, claim.value) for claim in everything)
    rows = printed()
    assert len(rows) == 630 + 376 + 8
    assert found == Counter(
        (row["dataset"], float(row["imbalance_factor"]), row["group"], float(row["top1_accuracy_percent"]))
        for row in rows
    )


def test_the_claims_of_a_folder_come_after_those_of_the_csv(tmp_path: Path) -> None:
    own = {"dataset": "cifar10", "imbalance_factor": 50, "backbone": "ResNet-32", "variant": "", "group": "all"}
    for method in ("wcdas", "theirs"):
        (tmp_path / method).mkdir()
        claim = own | {"method": method, "value": 81.5, "selection": "last", "source": "Mine", "location": "Table 1"}
        (tmp_path / method / "claims.yaml").write_text(yaml.safe_dump({"claims": [claim]}))
    found = load_claims({"wcdas": tmp_path / "wcdas", "theirs": tmp_path / "theirs", "tvmf": tmp_path})
    assert [claim.method for claim in found] == ["theirs", *["tvmf"] * 4, *["wcdas"] * 3]
    assert [claim.source for claim in found if claim.method == "wcdas"] == ["WCDAS README", "WCDAS README", "Mine"]


def test_every_published_row_is_accounted_for() -> None:
    mapping = yaml.safe_load(MAPPING.read_text(encoding="utf-8"))
    rows = Counter((row["method"], row["variant"]) for row in printed())
    names = {(method, variant): name for method, of in mapping["names"].items() for variant, name in of.items()}
    not_run = set(mapping["not_run_here"])
    assert {method for method, _ in rows} == {method for method, _ in names} | not_run
    assert not {method for method, _ in names} & not_run
    assert set(names) <= set(rows), "a name of the mapping that no row has"
    assert {row["source_document"].strip().rstrip(";") for row in printed()} == set(mapping["sources"])
    assert sum(rows[key] for key, name in names.items() if "method" in name) == sum(COUNTS.values())


def test_a_number_that_is_printed_again_is_there_before_and_counts_once() -> None:
    claims = read_published().claims

    def same(claim: Claim) -> tuple[object, ...]:
        facts = claim.source, claim.dataset, claim.imbalance_factor, claim.backbone
        return *facts, claim.method, claim.group, claim.value

    first = Counter(same(claim) for claim in claims if not claim.again)
    again = [claim for claim in claims if claim.again]
    assert {claim.variant for claim in again} == {"size-log", "cben", ""}
    assert all(first[same(claim)] == 1 for claim in again)
    filled = fill(load_tables({}), claims, load_shipped_cards({}), MeasuredRows([]))
    cells = [cell for table in filled for cell in table.cells]
    total = sum(count_by_status(filled).values())
    assert 0 < total == len(cells) - len(again)
    matrix = coverage(filled)
    assert sum(n for _, of in matrix.sources for one in of if one for n in one.values()) == total


def test_cards_give_the_reason_and_claim_no_epochs_of_the_source() -> None:
    cards = {card.name: card for card in read_published().cards}
    assert cards["OLTR"].reason == "memory and attention modules"
    ours, quoted = (
        {c for c in cards["OLTR"].claims if c.source.startswith(source)} for source in ("De-confound", "GCL")
    )
    assert {(c.selection, c.epochs) for c in ours} == {("not stated", None)}
    assert {(c.selection, c.epochs) for c in quoted} == {("not stated", None)}
    assert all(c.note.startswith("quoted there") for c in quoted)
    long = cards["RIDE, 6 experts; no EA; 300 epochs"]
    assert {c.epochs for c in long.claims} == {"300"}


@pytest.mark.parametrize(
    ("dataset", "variant", "error"),
    [
        ("ImageNet-LT", "", 57.30),
        ("iNaturalist-2018", "", 28.92),
        ("ImageNet-LT", "k64", 56.31),
        ("iNaturalist-2018", "k64", 29.69),
    ],
)
def test_tvmf_errors_become_accuracies(dataset: str, variant: str, error: float) -> None:
    (claim,) = where(variant, method="tvmf", dataset=dataset)
    assert claim.value == pytest.approx(100 - error)
    assert claim.original == f"error {error:.2f}"
    assert claim.epochs == "90 + 30"


def test_balanced_softmax_has_the_published_cells_and_no_other_loss() -> None:
    facts = {(c.variant, c.dataset, c.imbalance_factor, c.value) for c in shipped() if c.method == "balanced_softmax"}
    assert ("", "CIFAR-100-LT", 100, 50.3) in facts
    assert ("decoupled", "CIFAR-10-LT", 200, 78.6) in facts
    assert {variant for variant, *_, value in facts if value == 46.4} == {"quarter"}  # another loss, a variant


def test_a_cell_with_two_published_values_keeps_both() -> None:
    balms = where(method="balms", dataset="CIFAR-10-LT", imbalance_factor=200)
    assert {(c.source, c.value) for c in balms} == {("BALMS README", 82.2), ("BALMS paper, arXiv:2007.10740v3", 81.5)}
    gcl = where(method="gcl", dataset="ImageNet-LT")
    assert sorted(c.value for c in gcl) == [54.88, 54.884]
    maxnorm = where("cb-maxnorm", method="weight_balancing", imbalance_factor=100, group="all")
    assert sorted(c.value for c in maxnorm) == [50.20, 50.24]


def test_logs_keep_the_selection_rule_and_the_flip_averaging() -> None:
    source = "weight-balancing notebooks and logs"
    claims = {
        (c.variant, c.selection, "averaged over" in c.note): c.value
        for c in shipped()
        if c.source == source and c.group == "all"
    }
    assert claims == {
        ("naive", "last", False): 39.13, ("naive", "best_test", False): 39.62,
        ("code-naive-flip", "best_test", True): 40.0,
        ("wd", "last", False): 46.76, ("wd", "best_test", False): 47.18,
        ("code-wd-flip", "best_test", True): 47.9,
        ("code-l2-flip", "best_test", True): 51.0, ("code-tau-flip", "best_test", True): 52.6,
        ("", "last", False): 51.83, ("", "best_test", False): 51.98,
        ("code-flip", "best_test", True): 53.1,
    }  # fmt: skip


def test_weight_balancing_stands_beside_the_backbone_of_its_code_not_the_printed_one() -> None:
    record = make_record("weight_balancing", dataset="cifar100", split="cifar100-lt-if100", backbone="resnet32")
    claims = [c for c in shipped() if c.method == "weight_balancing" and c.dataset == "CIFAR-100-LT"]
    assert {c.backbone for c in claims} == {"ResNet-34 (CIFAR stem)"}
    assert all("ResNet-32 as printed" in c.note for c in claims if c.source.startswith("Weight balancing paper"))
    rows = MeasuredRows(summarize([RunResult("0.json", record, {})]))
    assert {comparison.status for comparison in map(rows.beside, claims)} == {"not comparable", "not run"}


def test_quoted_numbers_say_so_and_claim_nothing_of_the_protocol_that_quotes_them() -> None:
    quoted = [claim for claim in read_published().claims if claim.note.startswith("quoted")]
    assert len(quoted) == 164
    assert {claim.selection for claim in quoted} == {"not stated"}
    assert {claim.epochs for claim in quoted} == {None, "180"}  # those of the MiSLAS paper are stated
    (ours,) = where("mixup", method="crt", source="GCL paper, CVPR 2022", dataset="ImageNet-LT")
    assert ours.selection == "best_test"


def changed_numbers(folder: Path, *lines: str) -> Path:
    path = folder / "numbers.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


HEAD, FIRST = NUMBERS.read_text(encoding="utf-8").splitlines()[:2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (FIRST.replace("WCDAS", "CE", 1), r"'CE', variant '2-stage .*', is neither mapped nor left out"),
        (FIRST.replace("WCDAS", "A new method", 1), "neither mapped nor left out; add it to claims_mapping.yaml"),
        (FIRST.replace("44.5", "44,5"), "expected 9 cells, found 10"),
        (FIRST.replace("44.5", "about 44"), "top1_accuracy_percent: expected a number, found 'about 44'"),
        (FIRST.replace("44.5", "144.5"), "value must be a percentage, found 144.5"),
        (FIRST.replace("256", "", 1), "imbalance_factor: expected a number, found ''"),
        (FIRST.replace(",all,", ",tail,"), "group must be one of"),
        (FIRST.replace("boranhan/WCDAS_code", "somebody"), "no source has the document 'somebody README.md'"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: str, message: str, tmp_path: Path) -> None:
    numbers = changed_numbers(tmp_path, HEAD, FIRST, line)
    with pytest.raises(UserError, match=message) as caught:
        read_published(numbers)
    assert str(caught.value).startswith(f"{numbers}:3: ")


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    long = FIRST.rpartition(",")[0] + ',"over\ntwo lines"'
    numbers = changed_numbers(tmp_path, HEAD, long, "", "cut")
    with pytest.raises(UserError, match=r"numbers\.csv:5: expected 9 cells, found 1"):
        read_published(numbers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", f"1: expected the columns {', '.join(COLUMNS)}"),
        (b"dataset,method\n", "found dataset, method"),
        (HEAD.encode() + b'\n"cut', "cannot be read: unexpected end of data"),
        (b"\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(text: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UserError, match=message) as caught:
        read_published(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("key", ["names", "sources", "not_run_here"])
def test_a_mapping_that_names_something_twice_is_refused(key: str, tmp_path: Path) -> None:
    first = next(iter(yaml.safe_load(MAPPING.read_text(encoding="utf-8"))[key]))
    text = MAPPING.read_text(encoding="utf-8")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(text.replace(f"\n{key}:\n", f"\n{key}:\n  {first}: {{}}\n"))
    with pytest.raises(UserError, match="stands twice"):
        read_published(mapping=mapping)


def test_a_number_without_its_source_is_refused(tmp_path: Path) -> None:
    mapping = changed_mapping(tmp_path, lambda values: values["sources"].clear())
    with pytest.raises(UserError, match="no source has the document"):
        read_published(mapping=mapping)


def test_a_mapping_without_a_section_is_refused(tmp_path: Path) -> None:
    mapping = changed_mapping(tmp_path, lambda values: values.pop("sources"))
    with pytest.raises(UserError, match=r"mapping\.yaml: key 'sources' is missing"):
        read_published(mapping=mapping)


def test_a_source_whose_pattern_is_not_printed_is_refused(tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        next(iter(values["sources"].values()))["original"] = "ERROR"

    with pytest.raises(UserError, match=r"paper_results\.csv:\d+: the pattern 'ERROR' is not in"):
        read_published(mapping=changed_mapping(tmp_path, change))
