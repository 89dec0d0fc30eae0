"""Published weights: matched one to one, scored like every run, refused in one line when they are something else."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness import cli
from harness.api import Classifier
from harness.base.errors import UserError
from harness.base.files import sha256_bytes, sha256_file, stamped, write_json
from harness.engine.backbones import create_backbone
from harness.engine.pretrained import match, read_tensors
from harness.reading.identity import identities_by_class
from harness.reading.profiles import exponential_class_counts
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits import store
from harness.weights import catalogue as module
from harness.weights.catalogue import Weights, catalogue
from harness.weights.record import WeightsRecord, read_weights_record

SHAPE, CLASSES, BACKBONE = (8, 8, 3), 4, "resnet8_cifar"
Tensors = dict[str, Tensor]


def network(backbone: str = BACKBONE, classes: int = CLASSES, *, bias: bool = True) -> Tensors:
    """A network with random BatchNorm statistics, under our names."""
    torch.manual_seed(0)
    body, width = create_backbone(backbone, SHAPE)
    state = Classifier(body, nn.Linear(width, classes, bias=bias)).state_dict()
    return {
        key: torch.rand_like(value) + 0.5 if ".bn" in key and value.is_floating_point() else value
        for key, value in state.items()
    }


def as_module(state: Tensors) -> Tensors:
    """The layout `module.*`, `module.linear.*`, without `num_batches_tracked`."""
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return {key.replace("backbone.", "module.").replace("head.", "module.linear."): kept[key] for key in kept}


def as_parts(state: Tensors) -> Tensors:
    """The layout `backbone.*`, `classifier.*`, with `num_batches_tracked`."""
    return {key.replace("head.", "classifier."): value for key, value in state.items()}


def saved(path: Path, state: Any, **extra: Any) -> Path:
    torch.save({"state_dict": state, **extra}, path)
    return path


def matched(path: Path) -> Tensors:
    return match(path, BACKBONE, SHAPE, CLASSES)


# ---- matching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [as_module, as_parts])
@pytest.mark.parametrize("bias", [True, False])
def test_both_layouts_are_our_network(layout: Callable[[Tensors], Tensors], bias: bool, tmp_path: Path) -> None:
    ours = network(bias=bias)
    found = matched(saved(tmp_path / "a.th", layout(ours), best_prec1=1.0))
    assert list(found) == [key for key in ours if not key.endswith("num_batches_tracked")]
    assert ("head.bias" in found) == bias
    assert all(torch.equal(found[key], ours[key]) for key in found)


def test_tensors_may_stand_at_the_top_and_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    torch.save({key: value.half() for key, value in as_module(network()).items()}, path)
    assert {value.dtype for value in matched(path).values()} == {torch.float32}


@settings(max_examples=20)
@given(prefix=st.text("abc._", max_size=8), place=st.integers(0, 60))
def test_prefixes_are_free_and_no_two_neighbours_may_change_places(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, place: int
) -> None:
    path, items = tmp_path_factory.mktemp("made") / "a.th", list(as_module(network()).items())
    expected = matched(saved(path, dict(items)))
    found = matched(saved(path, {f"{prefix}.{key}": value for key, value in items}))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    at = place % (len(items) - 1)
    swapped = [*items[:at], items[at + 1], items[at], *items[at + 2 :]]
    with pytest.raises(UserError, match=f"tensor {at + 1} is"):
        matched(saved(path, dict(swapped)))


def test_swapped_batchnorm_vectors_are_refused_though_all_shapes_fit(tmp_path: Path) -> None:
    items = list(as_module(network()).items())
    keys = [key for key, _ in items]
    at = keys.index("module.bn1.weight")
    items[at], items[at + 1] = items[at + 1], items[at]
    with pytest.raises(
        UserError, match=r"tensor 2 is 'module.bn1.bias' \(16,\), where resnet8_cifar has 'backbone.bn1.w"
    ):
        matched(saved(tmp_path / "a.th", dict(items)))


def _without(state: Tensors, key: str) -> Tensors:
    return {name: value for name, value in state.items() if name != key}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another network": (lambda: as_module(network("resnet20_cifar")), "tensor 16 is 'module.layer1.1.conv1.weight'"),
    "another head": (
        lambda: as_parts(network(classes=10)),
        r"'classifier.weight' \(10, 64\), where .* \(4, 64\); the data set has 4 classes",
    ),
    "a head too few": (lambda: _without(as_module(network(bias=False)), "module.linear.weight"), "'head.weight'"),
    "a tensor too many": (lambda: as_module(network()) | {"module.ema.bias": torch.zeros(4)}, "'module.ema.bias'"),
    "not a number": (
        lambda: as_module(network()) | {"module.conv1.weight": torch.full((16, 3, 3, 3), torch.nan)},
        "'module.conv1.weight' holds values that are not finite numbers",
    ),
    "integers": (
        lambda: as_module(network()) | {"module.bn1.weight": torch.ones(16, dtype=torch.int64)},
        "'module.bn1.weight' holds values that are not finite numbers",
    ),
    "no tensors": (lambda: {"a": 1}, "expected tensors by name"),
    "nothing": (dict, "0 tensors, where resnet8_cifar has"),
    "a list": (lambda: [torch.zeros(1)], "expected tensors by name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_something_else_is_refused(what: str, tmp_path: Path) -> None:
    made, message = REFUSED[what]
    with pytest.raises(UserError, match=message):
        matched(saved(tmp_path / "a.th", made()))


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_is_refused_and_does_not_run(
    save: Callable[[Any, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save({"state_dict": Code()}, tmp_path / "evil.th")
    with pytest.raises(UserError, match=r"executing code|which is code"):
        read_tensors(tmp_path / "evil.th")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.th").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.th: cannot be read as weights") as caught:
        read_tensors(tmp_path / "a.th")
    assert "\n" not in str(caught.value)


# ---- the catalogue ---------------------------------------------------------------------------------------------------


def test_the_catalogue_is_sound() -> None:
    found = catalogue()
    assert {name for name, one in found.weights.items() if not one.pinned} == {"cifar10-resnet44", "cifar10-resnet56"}
    for one in found.weights.values():
        assert store.get_dataset(one.dataset).num_classes == 10
        assert one.published
        assert one.sha256[:8] in one.path or one.source == "imbalanced-DL"  # names end with the first digits
        assert len(found.source(one).commit) == 40
        assert one.bytes > 0 or not one.pinned
    for method, params in found.post_hoc.items():  # what is scored is what the method's own cell does
        cell = resolve(parse_entry(f"{method}@common"), "mnist5k")
        assert cell.recipe.finetune is not None
        assert cell.recipe.finetune.epochs == 0
        assert cell.first_stage.name == "ce"
        assert cell.recipe.as_dict()["params"] == params


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: imbalanced-DL", "source: imbalanced", "no source is named 'imbalanced'"),
        ("normalisation: cifar\n", "normalisation: cifa\n", "no normalisation is named 'cifa'"),
        ("selection: best_test", "selection: best", "selection must be"),
        ("imbalance_factor: 100", "imbalance_factor: 0.01", "imbalance_factor must be"),
        ("sha256: 014dd654", "sha256: 014DD654", "sha256 must be"),
        ("value: 71.23", "value: 171.23", "value must be a percentage"),
        ("epochs:", "epoch:", "unknown key 'epoch'"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = module.FILE.read_text()
    assert old in text
    (tmp_path / "weights.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        catalogue(tmp_path / "weights.yaml")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The content of published weights named `small`; the data root is empty, and there is no network."""
    content = b"weights"
    found = Weights(
        "cifar10", BACKBONE, source="imbalanced-DL", path="a/b.th", file="b.th", sha256=sha256_bytes(content)
    )
    monkeypatch.setattr(module, "get_weights", lambda name: found)
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)

    def offline(url: str, target: Path, advice: str) -> None:
        raise UserError(f"{url}: cannot be downloaded; {advice}")

    monkeypatch.setattr("harness.reading.download.download", offline)
    return content


@pytest.mark.parametrize("place", ["mirror", "mirror/weights", "weights"])
@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_mirror_is_looked_at_first(
    place: str, named: str, small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "b.th").write_bytes(small)
    mirror = tmp_path / "mirror"
    if named == "environment":
        monkeypatch.setenv("LTBENCH_MIRROR", str(mirror))
    found = module.fetch("small", mirror if named == "option" else None)
    assert found == tmp_path / "data" / "weights" / "b.th"
    assert found.read_bytes() == small
    (tmp_path / place / "b.th").unlink()
    assert module.fetch("small") == found  # it is here now


def test_without_a_mirror_it_is_downloaded_at_its_commit(
    small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = catalogue().sources["imbalanced-DL"].commit
    with pytest.raises(UserError, match=f"/ntucllab/imbalanced-DL/{commit}/a/b.th: cannot .* put the file at .*b.th"):
        module.fetch("small", tmp_path)
    monkeypatch.setattr("harness.reading.download.download", lambda url, target, advice: target.write_bytes(small))
    assert module.fetch("small").read_bytes() == small


def test_another_hash_is_refused_wherever_it_comes_from(
    small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.th").write_bytes(b"other")
    with pytest.raises(UserError, match=r"b\.th: wrong content: expected sha256 .*, found .*; nothing was written"):
        module.fetch("small", tmp_path)
    monkeypatch.setattr("harness.reading.download.download", lambda url, target, advice: target.write_bytes(b"other"))
    with pytest.raises(UserError, match=r"https://.*: wrong content"):
        module.fetch("small")
    here = tmp_path / "data" / "weights" / "b.th"
    assert not here.exists()
    here.write_bytes(b"other")
    with pytest.raises(UserError, match=r"wrong content: .*; delete it"):
        module.fetch("small")


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ltbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_dataset: None
) -> Callable[..., tuple[int, str, str]]:
    """`ltbench weights` in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for variable in ("LTBENCH_DATA", "LTBENCH_MIRROR"):
        monkeypatch.delenv(variable, raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ltbench", "weights", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


OPTIONS = ("--dataset", "tiny", "--backbone", BACKBONE)


@pytest.mark.parametrize("bias", [True, False])
def test_scores_are_those_of_the_plain_network(ltbench: Any, tmp_path: Path, bias: bool) -> None:
    state = network(bias=bias)
    path = saved(tmp_path / "My Net.v2.th", as_parts(state))
    code, out, err = ltbench("score", "--file", path, *OPTIONS, "--imbalance-factor", 10)
    name = f"my-net-{sha256_file(path)[:8]}"
    assert (code, err) == (0, "")
    assert "medium (1)" in out
    assert out.rstrip().endswith(f"results/weights/{name}.json")

    record = read_weights_record(Path("results/weights") / f"{name}.json")
    assert (record.class_counts, record.head_bias, record.weights.selection) == ([40, 18, 8, 4], bias, "not stated")
    assert [result.method for result in record.results] == ["ce", "logit_adjustment", "tau_norm"]
    features, targets = _features(state)
    weight, shift = state["head.weight"], state.get("head.bias", torch.zeros(CLASSES))
    logits = features @ weight.T + shift
    prior = torch.tensor(exponential_class_counts(40, 4, 10)).float()
    expected = [logits, logits - (prior / prior.sum()).log(), features @ (weight / weight.norm(dim=1, keepdim=True)).T]
    for result, values in zip(record.results, expected, strict=True):
        assert result.scores.all == pytest.approx((values.argmax(1) == targets).float().mean().item(), abs=1e-6)
        assert result.scores.medium is None or 0 <= result.scores.medium <= 1
    before = [file.read_bytes() for file in sorted(Path("results/weights").iterdir())]
    assert ltbench("score", "--file", path, *OPTIONS, "--imbalance-factor", 10)[0] == 0
    assert [file.read_bytes() for file in sorted(Path("results/weights").iterdir())] == before


def _features(state: Tensors) -> tuple[Tensor, Tensor]:
    dataset = store.get_dataset("tiny")
    images = dataset.decode(Path())["test"]
    order = [index for group in identities_by_class(images, CLASSES) for _, index in group]
    pixels = torch.from_numpy(images.pixels[order]).permute(0, 3, 1, 2) / 255
    body, width = create_backbone(BACKBONE, SHAPE)
    model = Classifier(body, nn.Linear(width, CLASSES, bias="head.bias" in state))
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval().backbone((pixels - 0.5) / 0.25), torch.from_numpy(images.labels[order])


def test_another_normalisation_is_another_score(ltbench: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.th", as_module(network()))
    for out, more in (("own", ()), ("imagenet", ("--normalisation", "imagenet"))):
        assert ltbench("score", "--file", path, *OPTIONS, *more, "--out", out)[0] == 0
    own, other = (read_weights_record(next(Path(out).glob("*.json"))) for out in ("own", "imagenet"))
    assert other.mean == [0.485, 0.456, 0.406] != own.mean
    assert other.results != own.results
    assert own.weights.imbalance_factor == 1
    assert own.class_counts == [40] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score",), "name published weights (ltbench weights list)"),
        (("score", "cifar10-resnet22"), "no set of weights is named 'cifar10-resnet22' (closest: cifar10-resnet"),
        (("score", "cifar10-resnet20", "--backbone", BACKBONE), "--backbone: known for 'cifar10-resnet20'"),
        (("score", "cifar10-resnet44"), "only the first 8 digits of its sha256 are known"),
        (("score", "cifar10-resnet44", "--file", "net.th"), "expected sha256 that begins with 014dd654"),
        (("score", "cifar10-resnet20", "--file", "net.th"), "expected sha256 12fca82f"),
        (("score", "cifar10-resnet20", "--file", "gone.th"), "gone.th: no such file"),
        (("score", "--file", "net.th", "--dataset", "tiny"), "--backbone: missing"),
        (("score", "--file", "net.th", "--backbone", BACKBONE), "--dataset: missing"),
        (("score", "--file", "gone.th", *OPTIONS), "gone.th: no such file"),
        (("score", "--file", "net.th", "--dataset", "tiny", "--backbone", "resnet20_cifar"), "net.th: tensor 16 is"),
        (("score", "--file", "net.th", "--dataset", "tinny", "--backbone", BACKBONE), "closest: tiny"),
        (("score", "--file", "net.th", "--dataset", "tiny", "--backbone", "resnet8_cifa"), "no backbone is named"),
        (("score", "--file", "net.th", *OPTIONS, "--normalisation", "imagnet"), "--normalisation: no normalisation"),
        (("score", "--file", "net.th", *OPTIONS, "--imbalance-factor", "0"), "imbalance_factor must be a number"),
        (("score", "--file", "net.th", *OPTIONS, "--device", "tpu"), "--device tpu"),
    ],
)
def test_a_mistake_is_one_line(ltbench: Any, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    saved(tmp_path / "net.th", as_module(network()))
    code, out, err = ltbench(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not Path("results").exists()


def test_list(ltbench: Any) -> None:
    code, out, _ = ltbench("list")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert "71.23 (README), 71.92 (best_acc1, in the file)" in lines["cifar10-lt-if100-ce"]
    assert "scored from a file that you have" in lines["cifar10-resnet44"]
    assert [item["name"] for item in json.loads(ltbench("list", "--json")[1])] == list(lines)


# ---- the record ------------------------------------------------------------------------------------------------------


def test_a_changed_record_or_evidence_is_refused(ltbench: Any, tmp_path: Path) -> None:
    ltbench("score", "--file", saved(tmp_path / "a.th", as_module(network())), *OPTIONS)
    (path,) = Path("results/weights").glob("*.json")
    evidence, text = path.with_suffix(".npz"), path.read_text()
    for old, new, message in (
        ('"backbone": "resnet8_cifar"', '"backbone": "resnet9_cifar"', "content does not have its sha256"),
        ('"schema": 1', '"schema": 2', "content does not have its sha256"),
        ("{", "[", "not a readable record of published weights"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=message):
            read_weights_record(path)
    path.write_text(text)
    other = path.with_name("other.json")
    other.write_text(text)
    with pytest.raises(UserError, match="lies under another name"):
        read_weights_record(other)
    with np.load(evidence) as file:
        arrays = {name: file[name] for name in file.files}
    for change, message in (
        ({"file_sha256": np.array("x")}, "of weights x"),
        ({"predictions": 1 - np.eye(CLASSES, dtype=np.uint8)}, "predictions .* of 40 images"),
        ({"predictions": (arrays["predictions"] + 1) % CLASSES}, "all at ce is .*, its predictions give "),
        ({"predictions": arrays["predictions"].astype(np.int64) - 1}, "other things than its 4 classes"),
        ({"predictions": arrays["predictions"].astype(float)}, "other things than its 4 classes"),
        ({"targets": arrays["targets"] + CLASSES}, "other things than its 4 classes"),
    ):
        np.savez_compressed(evidence, **(arrays | change))
        with pytest.raises(UserError, match=f"damaged evidence .*{message}"):
            read_weights_record(path)
    evidence.unlink()
    with pytest.raises(UserError, match="damaged evidence"):
        read_weights_record(path)


def test_every_score_of_a_record_follows_from_its_predictions(ltbench: Any, tmp_path: Path) -> None:
    """Whatever is changed, also where the hash is made anew."""
    ltbench("score", "--file", saved(tmp_path / "a.th", as_module(network())), *OPTIONS, "--imbalance-factor", "10")
    (path,) = Path("results/weights").glob("*.json")
    record = read_weights_record(path)
    of = record.results[1].method

    def changed(**scores: Any) -> WeightsRecord:
        results = [*record.results]
        results[1] = dataclasses.replace(results[1], scores=dataclasses.replace(results[1].scores, **scores))
        return dataclasses.replace(record, results=results)

    forged = {f"{name} at {of} is 0.99, ": changed(**{name: 0.99}) for name in ("all", "macro", "medium", "macro_f1")}
    forged |= {
        f"per_class at {of} is ": changed(per_class=[0.99] * CLASSES),
        f"few at {of} is None, ": changed(few=None),
        r"groups \{.*\} are not those of its class_counts": dataclasses.replace(record, groups={"few": CLASSES}),
        "shot policy 'mine' is unknown": dataclasses.replace(record, shot_policy="mine"),
        "groups .* are not those of its class_counts under": dataclasses.replace(record, class_counts=[400] * CLASSES),
    }
    for message, one in forged.items():
        write_json(path, stamped(dataclasses.asdict(one)))
        with pytest.raises(UserError, match=message) as refused:
            read_weights_record(path)
        assert str(path.with_suffix("")) in str(refused.value)
