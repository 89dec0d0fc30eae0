"""Published numbers: the files, their import, and which measured rows may stand beside them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UserError
from harness.base.files import read_json
from harness.records.schema import Record
from harness.reporting import import_claims
from harness.reporting.cards import load_cards
from harness.reporting.claims import Claim, Comparison, compare, load_claims
from harness.reporting.summary import Run, summarize
from tests.factories import make_record

CIFAR: dict[str, Any] = {"dataset": "cifar100", "split": "cifar100-lt-if100", "backbone": "resnet32"}
CLAIM = Claim(
    dataset="CIFAR-100-LT", imbalance_factor=100, backbone="ResNet-32", method="ce", variant="", group="all",
    value=45.3, selection="best_test", source="A paper", location="Table 2",
)  # fmt: skip


def compared(claim: Claim, *records: Record) -> Comparison:
    (comparison,) = compare([claim], summarize(Run(f"{i}.json", record, {}) for i, record in enumerate(records)))
    return comparison


def write(folder: Path, text: str) -> dict[str, Path]:
    folder.mkdir(parents=True)
    (folder / "claims.yaml").write_text(text)
    return {folder.name: folder}


# Claims of each method. `cosine_softmax` has none: nobody published the control that we run.
COUNTS = {
    "balanced_softmax": 16, "balms": 18, "ce": 38, "ce_mixup": 18, "class_balanced_loss": 17, "crt": 53, "focal": 17,
    "gcl": 27, "ldam_drw": 14, "logit_adjustment": 3, "lws": 26, "tau_norm": 15, "tvmf": 4, "wcdas": 2,
    "weight_balancing": 183,
}  # fmt: skip


def published() -> list[dict[str, str]]:
    with open(import_claims.NUMBERS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def committed() -> list[Claim]:
    return load_claims({method: import_claims.METHODS / method for method in import_claims.generate()})


def where(variant: str = "", **facts: Any) -> list[Claim]:
    return [c for c in committed() if c.variant == variant and all(getattr(c, k) == v for k, v in facts.items())]


def changed_mapping(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    values = yaml.safe_load(import_claims.MAPPING.read_text(encoding="utf-8"))
    change(values)
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_committed_files_are_what_the_script_generates() -> None:
    generated = import_claims.generate()
    for method, text in generated.items():
        assert (import_claims.METHODS / method / "claims.yaml").read_text(encoding="utf-8") == text, method
    others = {path.parent.name for path in import_claims.METHODS.glob("*/claims.yaml")} - set(generated)
    assert load_claims({name: import_claims.METHODS / name for name in others}) == []


def test_committed_cards_are_what_the_script_generates() -> None:
    for slug, card in import_claims.generate_cards().items():
        assert read_json(import_claims.CARDS / f"{slug}.json", "card") == card, slug
    assert load_cards(import_claims.CARDS)[1] == []


def test_the_script_writes_claims_and_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_claims, "METHODS", tmp_path / "methods")
    monkeypatch.setattr(import_claims, "CARDS", tmp_path / "cards")
    import_claims.main()
    assert {path.parent.name for path in tmp_path.glob("methods/*/claims.yaml")} == set(COUNTS)
    for path in tmp_path.glob("cards/*.json"):
        assert path.read_bytes() == (import_claims.CARDS / path.name).read_bytes(), path.name


def test_every_method_has_its_claims() -> None:
    assert Counter(claim.method for claim in committed()) == COUNTS


def test_every_published_row_is_accounted_for() -> None:
    mapping = yaml.safe_load(import_claims.MAPPING.read_text(encoding="utf-8"))
    rows = Counter((row["method"], row["variant"]) for row in published())
    names = {(name["csv_method"], name["csv_variant"]): name for name in mapping["names"]}
    not_run = {entry["csv_method"] for entry in mapping["not_run_here"]}
    assert {method for method, _ in rows} == {method for method, _ in names} | not_run
    assert not {method for method, _ in names} & not_run
    assert set(names) <= set(rows), "a name of the mapping that no row has"
    assert {row["source_document"].strip().rstrip(";") for row in published()} == {
        source["document"] for source in mapping["sources"]
    }
    assert sum(rows[key] for key, name in names.items() if "method" in name) == sum(COUNTS.values())


def test_every_published_row_is_a_claim_of_a_method_or_in_a_card() -> None:
    generated = import_claims.generate_cards().values()
    carded = [claim for card in load_cards(import_claims.CARDS)[0] for claim in card.claims]
    names = {card["name"] for card in generated}
    found = Counter(
        (claim.dataset, claim.imbalance_factor, claim.group, claim.value)
        for claim in [*committed(), *(claim for claim in carded if claim.method in names)]
    )
    rows = published()
    assert len(rows) == 630
    assert found == Counter(
        (row["dataset"], float(row["imbalance_factor"]), row["group"], float(row["top1_accuracy_percent"]))
        for row in rows
    )


def test_cards_give_the_reason_and_claim_no_epochs_of_the_source() -> None:
    cards = {card.name: card for card in load_cards(import_claims.CARDS)[0]}
    assert cards["BBN"].reason == "two branches with a cumulative schedule"
    ours, quoted = (
        {c for c in cards["BBN"].claims if c.source.startswith(source)} for source in ("GCL", "Weight balancing")
    )
    assert {(c.selection, c.epochs) for c in ours} == {("best_test", None)}
    assert {(c.selection, c.epochs) for c in quoted} == {("not stated", None)}
    assert all(c.note.startswith("quoted there") for c in quoted)
    decoupled = cards["Balanced Softmax, decoupled + Meta Reweighter"]
    assert {c.epochs for c in decoupled.claims} == {"13,000 + 2,000 iterations"}


def test_values_reach_the_claims_unchanged() -> None:
    cells = {
        (row["dataset"], float(row["imbalance_factor"]), row["group"], float(row["top1_accuracy_percent"]))
        for row in published()
    }
    assert {(c.dataset, c.imbalance_factor, c.group, c.value) for c in committed()} <= cells


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
    facts = {(c.variant, c.dataset, c.imbalance_factor, c.value) for c in committed() if c.method == "balanced_softmax"}
    assert ("", "CIFAR-100-LT", 100, 50.3) in facts
    assert ("decoupled", "CIFAR-10-LT", 200, 78.6) in facts
    assert 46.4 not in {value for *_, value in facts}  # the loss with the prior to the power 1/4


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
        for c in committed()
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
    claims = [c for c in committed() if c.method == "weight_balancing" and c.dataset == "CIFAR-100-LT"]
    assert {c.backbone for c in claims} == {"ResNet-34 (CIFAR stem)"}
    assert all("ResNet-32 as printed" in c.note for c in claims if c.source.startswith("Weight balancing paper"))
    assert compared(claims[0], make_record(**CIFAR, method="weight_balancing")).status == "not run"


def test_quoted_numbers_say_so_and_claim_nothing_of_the_protocol_that_quotes_them() -> None:
    quoted = [claim for claim in committed() if claim.note.startswith("quoted")]
    assert len(quoted) == 81
    assert {claim.selection for claim in quoted} == {"not stated"}
    assert {claim.epochs for claim in quoted} == {None, "180"}  # those of the MiSLAS paper are stated
    (ours,) = where("mixup", method="crt", source="GCL paper, CVPR 2022", dataset="ImageNet-LT")
    assert ours.selection == "best_test"


def test_a_number_that_is_neither_mapped_nor_left_out_is_refused(tmp_path: Path) -> None:
    head, first, *_ = import_claims.NUMBERS.read_text(encoding="utf-8").splitlines()
    numbers = tmp_path / "numbers.csv"
    for method in ("CE", "A new method"):
        numbers.write_text("\n".join([head, first.replace("WCDAS", method, 1)]))
        with pytest.raises(UserError, match="neither mapped nor left out"):
            import_claims.generate(numbers)


@pytest.mark.parametrize("key", ["names", "sources", "not_run_here"])
def test_a_mapping_that_names_something_twice_is_refused(key: str, tmp_path: Path) -> None:
    mapping = changed_mapping(tmp_path, lambda values: values[key].append(dict(values[key][0])))
    with pytest.raises(UserError, match="is there twice"):
        import_claims.generate(mapping=mapping)


def test_a_number_without_its_source_is_refused(tmp_path: Path) -> None:
    mapping = changed_mapping(tmp_path, lambda values: values["sources"].clear())
    with pytest.raises(UserError, match="no source has the document"):
        import_claims.generate(mapping=mapping)


@pytest.mark.parametrize(
    ("printed", "built"),
    [
        ("ResNet-32", "resnet32_cifar"),
        ("ResNet-34 (CIFAR stem)", "resnet34_cifar"),
        ("ResNeXt-50", "resnext50_32x4d"),
        ("ResNet-152", "resnet152"),
    ],
)
def test_a_printed_backbone_is_the_one_that_builds_it(printed: str, built: str) -> None:
    claim = replace(CLAIM, backbone=printed)
    assert compared(claim, make_record(**(CIFAR | {"backbone": built}))).status == "measured"
    assert compared(claim, make_record(**(CIFAR | {"backbone": "resnet34"}))).status == "not run"


def test_missing_file_means_no_claims(tmp_path: Path) -> None:
    assert load_claims({"ce": tmp_path}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 145.3}, "percentage"),
        ({"group": "tail"}, "group must be one of"),
        ({"selection": "best"}, "selection must be one of"),
        ({"shot_policy": "halves"}, "shot_policy must be one of"),
        ({"track": "common"}, r"claims\[0\].track"),
        ({"methd": "ce"}, "closest is 'method'"),
        ({"method": "gcl"}, "expected 'ce'"),
    ],
)
def test_bad_claims_are_refused_with_the_place(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    entry = {k: v for k, v in vars(CLAIM).items() if v is not None} | change
    with pytest.raises(UserError, match=message) as caught:
        load_claims(write(tmp_path / "ce", yaml.safe_dump({"claims": [entry]})))
    assert "claims.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["claims: 3", "other: []", "claims: [a]", "- a", "claims: [}"])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claims\.yaml"):
        load_claims(write(tmp_path / "ce", text))


def test_a_comparable_row_stands_beside_the_claim() -> None:
    records = [make_record(seed=seed, accuracy=0.44 + 0.01 * seed, optimism=0.005, **CIFAR) for seed in range(3)]
    result = compared(CLAIM, *records)
    (measured,) = result.measured
    assert result.status == "measured"
    assert measured.stat.mean == pytest.approx(0.455)  # at best_test, the claim's rule, not at last
    assert measured.delta == pytest.approx(0.002)
    assert measured.stat.n == 3


def test_another_spelling_of_a_data_set_is_the_same() -> None:
    facts = {"dataset": "inat2018", "imbalance_factor": 500.0, "backbone": "resnet50", "profile": "given"}
    claim = replace(CLAIM, dataset="iNaturalist-2018", imbalance_factor=500, backbone="ResNet-50")
    assert compared(claim, make_record(**facts)).status == "measured"


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "cifar10"}, {"imbalance_factor": 50.0}, {"backbone": "resnet34"}, {"track": "common"},
        {"variant": "cosine"}, {"method": "gcl"}, {"profile": "step"},
    ],
)  # fmt: skip
def test_another_protocol_is_not_comparable(other: dict[str, Any]) -> None:
    assert compared(CLAIM, make_record(**(CIFAR | other))).status == "not run"


def test_a_group_needs_the_same_shot_policy() -> None:
    claim = replace(CLAIM, group="many", shot_policy="strict_100_20")
    assert compared(claim, make_record(**CIFAR)).status == "measured"
    assert compared(claim, make_record(shot_policy="thirds", **CIFAR)).status == "not run"
    assert compared(replace(claim, group="all"), make_record(shot_policy="thirds", **CIFAR)).status == "measured"


def test_a_claim_without_a_rule_is_read_at_last() -> None:
    result = compared(replace(CLAIM, selection="not stated"), make_record(accuracy=0.45, optimism=0.1, **CIFAR))
    assert result.measured[0].stat.mean == pytest.approx(0.45)


def test_a_failed_cell_is_not_called_not_run() -> None:
    assert compared(CLAIM, make_record(failure="broken", **CIFAR)).status == "failed"
