"""`ltbench doctor`: one screen that says what is wrong with a data set; exit code 2 where a run would refuse it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import cli
from harness.datasets import _folder
from harness.feed import fast_reader
from harness.running import doctor
from harness.splits import store
from tests.data import made
from tests.data.test_cases_own_data import base, fill

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return base(tmp_path / "mine")


@pytest.fixture
def ltbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: object) -> tuple[int, str, str]:
        _folder._scan.cache_clear()
        monkeypatch.setattr(sys, "argv", ["ltbench", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


SMALL = ("--backbone", "resnet8_cifar")


def test_what_a_person_reads(root: Path, ltbench: Call) -> None:
    code, out, _ = ltbench("doctor", f"folder:{root}", *SMALL, "--device", "cpu")
    name = store.get_dataset(f"folder:{root}").name
    expected = [
        f"data set  {name}: mine \\(own folder, 32 pixels, turned upright\\)",
        "images    24 train, 6 test",
        "sizes     short sides 32 to 32 pixels, median 32; used at 32",
        f"split     {name}: 24 training images, 12 to 4 of a class",
        "classes   a      12 train     0 val     2 test",
        "          b       8 train     0 val     2 test",
        "          c       4 train     0 val     2 test",
        "groups    0 many, 0 medium, 3 few .*",
        "recipe    ce@common of cifar10: resnet8_cifar, 32 x 32 pixels, batches of 128",
        r"a step    \d\S* s without reading images",
        "stage 1   1 steps an epoch, 200 epochs: about .* a seed",
        "note      2 test images of a class: its accuracy moves in steps of 50 points",
        "note      no validation part: there will be no best_val, the last epoch counts",
        f"next      ltbench run {name} ce@common --backbone resnet8_cifar",
    ]
    assert code == 0
    for pattern, line in zip(expected, out.splitlines(), strict=True):
        assert re.fullmatch(pattern, line), line


def test_what_a_person_should_know(root: Path, ltbench: Call) -> None:
    shutil.copytree(root / "test", root / "val")
    shutil.rmtree(root / "test" / "c")
    shutil.copyfile(root / "train/a/0.png", root / "train/b/x.png")
    shutil.copyfile(root / "train/a/1.png", root / "val/a/x.png")
    (root / "train/a/note.txt").write_text("x")
    (root / "train/a/small.png").write_bytes(made.encoded(made.pixels(1, (8, 9, 3)), "PNG"))
    code, out, _ = ltbench("doctor", f"folder:{root}", *SMALL, "--imbalance-factor", "30")
    assert code == 0
    for line in (
        r"passed over: 1 x \.txt \(train/a/note\.txt\)",
        "training images that are copies of others: 1; each counts on its own",
        r"in more than one class: train/a/0.png \('a'\), train/b/x.png \('b'\); remove it from all but the right one",
        "1 of 26 training images have a short side below 32 pixels and are enlarged",
        r"1 different image in more than one class, e.g. in 2 classes \('a', 'b'\)",
        "1 different image: training images stand in the validation part, so best_val is no honest choice",
        "4 different images: test images stand in the validation part, so best_val is no honest choice",
        r"no test images: 1 class \('c'\); left out of every test score",
        "imbalance factor 13, where 30 was asked for: 13 to 1 images of a class",
    ):
        assert re.search(f"^note      {line}$", out, re.MULTILINE), line
    assert "short sides 8 to 32" in out
    assert "-lt-if30 ce@common --backbone resnet8_cifar\n" in out


def _damaged(root: Path) -> None:
    for i in range(7):
        path = root / "train/a" / f"{i}.png"
        path.write_bytes(path.read_bytes()[:100])


def _dead_link(root: Path) -> None:
    (root / "train/a/x.png").symlink_to("gone")


def _nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (_damaged, SMALL, r"damaged: .*2.png: .*\n(.*\n)*STOP      damaged: 2 more; all of them: ltbench verify"),
        (_dead_link, SMALL, "x.png: a link to gone"),
        (_nothing, ("--backbone", "resnet9_cifa"), "STOP      no backbone is named"),
        (_nothing, ("--backbone", "vit_tiny_patch16_224", "--set", "image_size=40"), "does not accept 40x40 images"),
        (_nothing, ("--method", "nothing"), "no method is named"),
        (_nothing, ("--imbalance-factor", "0.5"), "the imbalance factor must be a number of at least 1"),
    ],
)  # fmt: skip
def test_what_a_run_refuses_the_doctor_refuses(
    root: Path, ltbench: Call, change: Callable[[Path], None], options: tuple[str, ...], match: str
) -> None:
    change(root)
    code, out, err = ltbench("doctor", f"folder:{root}", *options)
    assert code == 2
    assert re.search(match, out + err)
    assert err.count("\n") == 1
    method = () if "--method" in options else ("--method", "ce")
    code, _, err = ltbench("run", "--dataset", f"folder:{root}", *method, *options)
    assert code == 2


@pytest.mark.parametrize("command", [("doctor",), ("run",), ("run", "--dry-run")])
def test_a_reader_that_cannot_read_is_refused_before_anything_is_fetched(
    root: Path, ltbench: Call, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(fast_reader, "cv2", None)
    for data, reader, reason in (
        ("mnist5k", "exact", "these images are not stored as image files; leave it out"),
        ("tiny-imagenet", "fast", "needs simplejpeg and OpenCV; install the extra"),
        (f"folder:{root}", "fast", "needs simplejpeg and OpenCV; install the extra"),
    ):
        code, out, err = ltbench(*command, data, "ce", "--set", f"reader={reader}")
        assert (code, err.count("\n")) == (2, 1)
        assert reason in out + err
    assert not list((root.parent / "data").glob("[!.]*"))
    assert not (root.parent / "runs").exists()


def test_all_that_stops_a_run_is_listed_at_once(root: Path, ltbench: Call) -> None:
    _dead_link(root)
    (root / "train/empty").mkdir()
    (root / "train/b/x.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    code, out, err = ltbench("doctor", f"folder:{root}")
    assert code == 2
    assert err == f"error: folder:{root}: a run would refuse it (3 times STOP above)\n"
    stops = [line for line in out.splitlines() if line.startswith("STOP")]
    for line, words in zip(stops, ("a link to gone", "no image of class 'empty'", "1 x HEIC"), strict=True):
        assert words in line
    (root / "train/a/x.png").unlink()
    (root / "train/b/x.jpg").unlink()
    (root / "train/empty").rmdir()
    _damaged(root)
    _, out, _ = ltbench("doctor", f"folder:{root}", "--backbone", "resnet9_cifa")
    assert re.search("STOP +no backbone is named(.*\n)+STOP +damaged: ", out)


def test_the_recipe_is_that_of_the_run_and_both_stages_count(
    root: Path, ltbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "seconds_a_step", lambda *_: (2.0, True))
    changes = ("--set", "epochs=7", "--set", "batch_size=8", "--set", "finetune.batch_size=16")
    call = ("doctor", f"folder:{root}", *SMALL, "--method", "crt", *changes)
    code, out, _ = ltbench(*call, "--set", "finetune.epochs=9")
    assert code == 0
    assert "batches of 8\n" in out
    assert "stage 1   3 steps an epoch, 7 epochs: about 42 s a seed\n" in out
    assert "stage 2   2 steps an epoch, 9 epochs: at most about 72 s a seed\n" in out  # 2 * 9 steps of 2 * 2 s
    assert "to shorten a run" not in out
    assert out.endswith(f"--backbone resnet8_cifar {' '.join(changes)} --set finetune.epochs=9\n")
    code, out, _ = ltbench(*call, "--set", "finetune.epochs=90")
    assert "note      to shorten a run: --set epochs=5 --set finetune.epochs=5, a smaller network" in out
    code, out, _ = ltbench("doctor", f"folder:{root}", "--set", "epoch=5")
    assert code == 2
    assert "STOP      --set epoch=5: unknown key 'epoch'" in out


def test_of_many_classes_the_largest_and_the_smallest_are_shown(tmp_path: Path, ltbench: Call) -> None:
    names = {f"class {i:02}": 1 + i for i in range(12)}
    many = fill(tmp_path / "many", train=names, test=dict.fromkeys(names, 1))
    _, out, _ = ltbench("doctor", f"folder:{many}", *SMALL)
    shown = [line[10:] for line in out.splitlines() if re.match(r".{10}(class \d|\.\.\.)", line)]
    assert [line.split("  ")[0] for line in shown] == [
        "class 11", "class 10", "class 09", "class 08", "... 4 more", "class 03", "class 02", "class 01", "class 00",
    ]  # fmt: skip


def test_a_slow_step_is_timed_on_a_few_images(root: Path, ltbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.0)
    _, out, _ = ltbench("doctor", f"folder:{root}", *SMALL)
    assert re.search(r"^a step    about \d", out, re.MULTILINE)


@pytest.mark.parametrize("fitting", [0, 2])
def test_a_batch_that_does_not_fit_on_the_card_stops_a_run(
    root: Path, ltbench: Call, monkeypatch: pytest.MonkeyPatch, fitting: int
) -> None:
    """Even the first few images, or the whole batch."""
    rand = torch.rand

    def until_it_is_full(*sizes: int, **options: Any) -> torch.Tensor:
        nonlocal fitting
        fitting -= 1
        if fitting < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return rand(*sizes, **options)

    monkeypatch.setattr(torch, "rand", until_it_is_full)
    code, out, err = ltbench("doctor", f"folder:{root}", *SMALL, "--device", "cpu")
    assert code == 2
    assert err.count("\n") == 1
    assert (
        "STOP      a batch of 128 does not fit into the device's memory; take smaller batches (--set batch_size=64)"
        in out
    )


def test_large_images_stay_files_and_held_out_ones_are_counted(tmp_path: Path, ltbench: Call) -> None:
    large = tmp_path / "large"
    for name, count in (("a", 8), ("b", 4)):
        (large / name).mkdir(parents=True)
        for i in range(count):
            array = np.full((130, 140, 3), 20 * i + (name == "b"), np.uint8)
            (large / name / f"{i}.png").write_bytes(made.encoded(array, "PNG"))
    code, out, _ = ltbench("doctor", f"folder:{large}", "--holdout", "0.25", "--backbone", "resnet18")
    assert code == 0
    assert "images    9 train, 3 test\n" in out
    assert "resnet18, 224 x 224 pixels" in out
    assert re.search(r"^note      9 of 9 training images have a short side below 224 pixels", out, re.MULTILINE)


def test_a_published_data_set(ltbench: Call) -> None:
    code, out, _ = ltbench("doctor", "mnist5k")
    assert code == 0
    assert "note      nothing of it is here yet; to look at it, first: ltbench fetch mnist5k" in out
    assert ltbench("fetch", "mnist5k")[0] == 0
    code, out, _ = ltbench("doctor", "mnist5k", "crt")
    assert code == 0
    assert "split     mnist5k-lt-if100: " in out
    assert out.endswith("next      ltbench run mnist5k-lt-if100 crt@common\n")


@pytest.mark.parametrize(("seconds", "text"), [(0.5, "0.5 s"), (119, "119 s"), (600, "10 min"), (2e5, "2.31 days")])
def testdurations(seconds: float, text: str) -> None:
    assert doctor.duration(seconds) == f"about {text}"
