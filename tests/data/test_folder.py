"""folder:PATH: a user's own images of any size, from their folders to a trained model's recipe."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.base.errors import UserError
from harness.base.files import sha256_bytes
from harness.datasets import _folder
from harness.reading import decoding
from harness.reading.archives import MAX_MEMBER
from harness.reading.dataset import Dataset, ImageFiles, Images
from harness.reading.decoding import decode_resized
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits import store
from harness.splits.split_names import name_split, parse_split_name
from harness.splits.splits import build_split, select
from harness.splits.verify import verify
from tests.data import made

COUNTS = {"cat": 12, "dog": 6, "emu": 3}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    _folder._scan.cache_clear()
    return tmp_path / "My Pets"


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[path.suffix.lower()]
    path.write_bytes(made.encoded(array, kind))


def fill(root: Path, side: int, *, val: bool = False, counts: dict[str, int] = COUNTS) -> Path:
    """Images around a size, some grey, in several formats."""
    seed = 0
    for part, scale in (("train", 1.0), ("test", 0.34), ("val", 0.2 if val else 0)):
        for name, count in counts.items():
            for i in range(-int(-count * scale)):
                seed += 1
                shape = (side + i % 3, side + 5 + i % 2, 1 if i % 3 == 1 else 3)
                suffix = (".png", ".JPG", ".webp")[i % 3]
                write(root / part / name / f"{i}{suffix}", made.pixels(seed, shape))
    return root


def opened(root: Path) -> Dataset:
    _folder._scan.cache_clear()
    return store.get_dataset(f"folder:{root}")


@pytest.mark.parametrize(
    ("side", "pixels", "recipes"),
    [(20, 32, "cifar10"), (45, 32, "cifar10"), (48, 64, "tiny-imagenet-lt"), (100, 64, "tiny-imagenet-lt"),
     (112, 224, "imagenet-lt"), (150, 224, "imagenet-lt")],
)  # fmt: skip
def test_the_size_decides_pixels_and_recipes(root: Path, side: int, pixels: int, recipes: str) -> None:
    dataset = opened(fill(root, side))
    assert dataset.image_shape == (pixels, pixels, 3)
    assert store.recipes_of(dataset.name) == recipes
    parts = store.load(dataset)
    assert isinstance(parts["train"], ImageFiles if pixels == 224 else Images)
    assert np.bincount(parts["train"].labels).tolist() == [12, 6, 3]


def test_a_folder_is_trained_with_the_recipe_of_its_size(root: Path) -> None:
    name = opened(fill(root, 60)).name
    for method in ("ce", "crt"):
        entry = parse_entry(f"{method}@common")
        assert resolve(entry, name).recipe == resolve(entry, "tiny-imagenet-lt").recipe
    assert resolve(parse_entry("ce@common"), name).recipe.train.augment.crop_padding == 8


@pytest.mark.parametrize("name", store.available_datasets())
def test_every_data_set_has_a_common_recipe(name: str) -> None:
    recipe = resolve(parse_entry("ce@common"), name).recipe
    large = store.get_dataset(name).image_shape[0] == 224
    assert (recipe.train.augment.resized_crop, recipe.train.augment.crop_padding > 0) == (large, not large)


def test_small_images_are_decoded_and_known_by_their_bytes(root: Path) -> None:
    dataset = opened(fill(root, 40, val=True))
    parts = store.load(dataset)
    split = build_split(dataset.name, dataset, parts)
    assert split.class_names == ["cat", "dog", "emu"]
    assert split.class_counts == [12, 6, 3]
    assert split.profile == "given"
    assert split.imbalance_factor == 4
    assert split.train[2] == sorted(sha256_bytes(path.read_bytes()) for path in (root / "train" / "emu").iterdir())
    assert sum(split.val.class_counts) == 3
    images = select(split, parts)["train"]
    assert isinstance(images, Images)
    assert images.pixels.shape == (21, 32, 32, 3)
    assert (store.cache_root() / f"{dataset.name}-{store._decoder_key(dataset)[:16]}").is_dir()


def test_large_images_stay_files(root: Path) -> None:
    dataset = opened(fill(root, 120))
    parts = store.load(dataset)
    images = select(build_split(dataset.name, dataset, parts), parts)
    train = images["train"]
    assert isinstance(train, ImageFiles)
    assert train.root == root
    assert sorted(train.names[-3:]) == ["train/emu/0.png", "train/emu/1.JPG", "train/emu/2.webp"]
    assert train.identities == tuple(sha256_bytes((root / name).read_bytes()) for name in train.names)
    hashes = list(store.cache_root().glob("hashes-*.json"))
    assert len(hashes) == 1
    hashes[0].write_text("{damaged")  # read anew
    assert select(build_split(dataset.name, dataset, store.load(dataset)), parts)["train"].names == train.names


@pytest.mark.parametrize("side", [40, 120])
def test_made_long_tailed(root: Path, side: int) -> None:
    dataset = opened(fill(root, side, counts={"a": 8, "b": 8, "c": 8}))
    name = name_split(dataset, 4)
    assert str(name) == f"{dataset.name}-lt-if4"
    assert parse_split_name(str(name)) == name
    assert parse_split_name(f"folder:{root}-lt-if4") == name
    split = build_split(str(name), dataset, store.load(dataset))
    assert split.class_counts == [8, 4, 2]
    scores = {path: sha256_bytes(b"0:" + path.read_bytes()) for path in (root / "train" / "c").iterdir()}
    lowest = sorted(scores, key=scores.__getitem__)[:2]
    assert split.train[2] == sorted(sha256_bytes(path.read_bytes()) for path in lowest)


def test_the_name_says_nothing_of_the_machine(root: Path, tmp_path: Path) -> None:
    one = opened(fill(root, 40))
    shutil.copytree(root, tmp_path / "elsewhere" / "My Pets")
    other = opened(tmp_path / "elsewhere" / "My Pets")
    assert one.name == other.name
    assert one.name.startswith("folder-my_pets-")
    splits = [build_split(dataset.name, dataset, store.load(dataset)) for dataset in (one, other)]
    assert splits[0] == splits[1]
    assert str(tmp_path) not in repr(splits[0])


def test_it_is_found_again_by_its_name(root: Path, tmp_path: Path) -> None:
    name = opened(fill(root, 40)).name
    assert store.get_dataset(name).class_names == ("cat", "dog", "emu")
    assert parse_split_name(name).dataset == name
    write(root / "train" / "emu" / "more.png", made.pixels(99, (40, 40, 3)))
    _folder._scan.cache_clear()
    with pytest.raises(UserError, match=rf"not those of '{name}' any more; it is 'folder-my_pets-[0-9a-f]+' now"):
        store.get_dataset(name)
    with pytest.raises(UserError, match=r"no folder is known as 'folder-x-12345678' here; .*ltbench fetch folder:PATH"):
        store.get_dataset("folder-x-12345678")


def test_a_changed_image_is_decoded_anew(root: Path) -> None:
    dataset = opened(fill(root, 40))
    store.load(dataset)
    path = root / "train" / "cat" / "0.png"
    content = bytearray(path.read_bytes())
    array = np.asarray(Image.open(io.BytesIO(content))).copy()
    array[0, 0] ^= 1
    write(path, array)
    again = opened(root)
    changed = store.load(again)["train"]
    assert isinstance(changed, Images)
    assert changed.encoded is not None
    assert changed.encoded.file(0).tobytes() == path.read_bytes()


def test_other_files_are_passed_over(root: Path) -> None:
    fill(root, 40)
    for name in ("train/cat/Thumbs.db", "train/cat/.hidden.png", "train/.cache/x.png", "train/readme.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "train/cat/folder.png").mkdir()
    dataset = opened(root)
    assert len(store.load(dataset)["train"].labels) == 21
    assert dataset.passed_over == ("passed over: 1 x outside of the class folders (train/readme.txt)",)


def _no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def _no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def _one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "cat")
    shutil.rmtree(root / "train" / "dog")


def _unknown_class(root: Path) -> None:
    (root / "test" / "cow").mkdir()


def _empty_class(root: Path) -> None:
    (root / "train" / "ant").mkdir()


def _all_broken(root: Path) -> None:
    for path in (root / "train").rglob("*.*"):
        path.write_bytes(b"broken")


def _huge_file(root: Path) -> None:
    with open(root / "train" / "cat" / "0.png", "wb") as file:
        file.truncate(MAX_MEMBER + 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_no_train, r"train: no such folder; folder:PATH needs train/<class>/ and test/<class>/"),
        (_no_test, r"test: no such folder"),
        (_one_class, "has 1 class folders, at least 2 are needed"),
        (_unknown_class, "cow: a class that train/ has not"),
        (_empty_class, "train: no image of class 'ant'"),
        (_all_broken, "none of its training images can be read"),
        (_huge_file, "0.png: has .* bytes, .* are allowed"),
    ],
)
def test_other_layouts_are_one_clear_line(root: Path, change: object, match: str) -> None:
    fill(root, 40)
    change(root)  # type: ignore[operator]
    with pytest.raises(UserError, match=match) as caught:
        opened(root)
    assert "\n" not in str(caught.value)


def test_verify_lists_every_damaged_image(root: Path) -> None:
    fill(root, 40)
    damaged = [root / "test/cat/0.png", root / "train/cat/1.JPG", root / "train/dog/0.png", root / "train/emu/2.webp"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:60])
    report = verify(opened(root))
    assert not report.sound
    assert sorted(fault.split(": ")[0] for fault in report.damaged) == sorted(map(str, damaged))
    assert report.images == {"train": 21, "test": 7}


def test_verify_reports_duplicates(root: Path) -> None:
    fill(root, 40)
    for copy in ("train/cat/copy.png", "train/cat/deep.png", "test/cat/copy.png"):
        shutil.copyfile(root / "train/cat/0.png", root / copy)
    report = verify(opened(root))
    assert report.sound
    assert (report.duplicates_in_train, report.in_train_and_test) == (2, 1)


def test_a_decompression_bomb_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, 40)
    write(root / "train" / "cat" / "bomb.png", np.zeros((100, 100, 1), np.uint8))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 9999)
    dataset = opened(root)
    assert [fault.split(": ")[1] for fault in verify(dataset).damaged] == ["it has 100 x 100 pixels; the limit is 9999"]
    with pytest.raises(UserError, match=r"image 'train/cat/bomb.png' cannot be read: it has 100 x 100 pixels"):
        store.load(dataset)


# ---- resizing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32), (40, 90), (90, 40), (10, 10), (33, 32), (1, 200), (200, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_to_the_short_side_and_cut_in_the_middle(shape: tuple[int, int], channels: int) -> None:
    pixels = decode_resized(made.encoded(made.pixels(0, (*shape, channels)), "PNG"), 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    if channels == 1:
        assert (pixels == pixels[:, :, :1]).all()


def test_an_image_of_the_right_size_is_left_alone() -> None:
    array = made.pixels(0, (32, 32, 3))
    np.testing.assert_array_equal(decode_resized(made.encoded(array, "PNG"), 32), array)


def test_the_middle_is_kept() -> None:
    array = np.zeros((32, 96, 3), np.uint8)
    array[:, 32:64] = 200
    assert (decode_resized(made.encoded(array, "PNG"), 32) == 200).all()


def test_other_colour_modes_become_rgb() -> None:
    for mode in ("RGBA", "P", "LA", "1", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (40, 40)).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
        assert decode_resized(buffer.getvalue(), 32).shape == (32, 32, 3)
