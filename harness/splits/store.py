"""Where data sets are stored, how they get there, and whether they match the registry."""

from __future__ import annotations

import gzip
import importlib
import os
import pkgutil
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import harness.datasets
from harness.base.errors import UserError, unknown
from harness.base.files import atomic_path, sha256_json
from harness.datasets._forms import ANY, FORMS, KINDS, OWN
from harness.reading import pins

if TYPE_CHECKING:  # names of data sets are asked for often, their images seldom: numpy is imported with those
    from harness.reading.dataset import AnyImages, Dataset, Images

PINNED = Path("datasets")  # the default suite's raw data, pinned by datasets.dvc


# ---- registry --------------------------------------------------------------------------------------------------------


def available_datasets() -> list[str]:
    """Names of all registered data sets: the modules of `harness.datasets`, those that only help them left out."""
    names = (module.name for module in pkgutil.iter_modules(harness.datasets.__path__))
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def module_name(dataset: str) -> str:
    """Name of the module in `harness.datasets` that defines the data set."""
    return dataset.replace("-", "_")


def get_dataset(name: str, *, where: str = "", holdout: float = 0.0) -> Dataset:
    """The data set registered under `name`, or the one that a user's own folder is.

    Args:
        name: a registered name, `folder:PATH`, `list:DIR`, ..., or the name `folder-...` that such a one has got.
        where: the file or option that the name comes from.
        holdout: of a user's own: share of each class that becomes the test part they have not.

    Raises:
        UserError: no data set has that name (the message has its nearest known names), or the folder is none.
    """
    if name.startswith(OWN):
        from harness.datasets._folder import open_folder

        return open_folder(name, data_root(), holdout)
    if name not in available_datasets() and Path(name).is_dir():
        forms = ", ".join(f"{kind}:{name}" for kind in KINDS)
        raise UserError(f"{where + ': ' if where else ''}'{name}' is a folder here; say in which form: {forms}")
    if ":" in name:
        form = name.partition(":")[0]
        raise UserError(f"{where + ': ' if where else ''}no form of data is called '{form}:'; there are {ANY}")
    if name not in available_datasets():
        raise unknown("data set", name, [*available_datasets(), *FORMS], where=where)
    if holdout:
        raise UserError(f"--holdout {holdout:g}: '{name}' has a test part; only your own data ({ANY}) may lack one")
    return cast("Dataset", importlib.import_module(f"harness.datasets.{module_name(name)}").DATASET)


def recipes_of(name: str) -> str:
    """The data set whose recipes a data set is trained with: itself, but for users' folders."""
    return get_dataset(name).recipes_of if name.startswith(OWN) else name


def data_root() -> Path:
    """The folder for data sets that DVC does not track (`LTBENCH_DATA`, else `data/`)."""
    return Path(os.environ.get("LTBENCH_DATA") or "data")


def default_mirror() -> Path | None:
    """The folder that is looked at before anything is downloaded (`LTBENCH_MIRROR`)."""
    named = os.environ.get("LTBENCH_MIRROR")
    return Path(named) if named else None


# ---- fetching --------------------------------------------------------------------------------------------------------


def fetch(dataset: Dataset, root: Path, mirror: Path | None = None, *, repair: bool = False) -> Path:
    """Brings the data set's files to `root/<name>/` and returns that folder.

    Files that are already there and right are left alone; one that is there and wrong is refused, or replaced with
    `repair`. Bytes that are not as pinned are never put in place.

    Args:
        mirror: a folder that holds `<name>/<file>` or `<file>`, perhaps packed as `<file>.gz`; default
            `LTBENCH_MIRROR`. What it lacks may come from the data set's source on this machine, never from a
            download; without a mirror from either.

    Raises:
        UserError: source missing, no network, or a wrong hash in source or target.
    """
    mirror = mirror or default_mirror()
    form = _form_to_fetch(dataset, root, mirror)
    target = root / (form.folder or form.name)
    for name, pin in form.files.items():
        path = target / name
        if path.is_file():
            fault = pins.wrong(path, pin)
            if not fault:
                continue
            if not repair:
                command = f"ltbench fetch {dataset.name} --to {root} --repair"
                raise UserError(f"{path}: wrong content: {fault}; nothing was overwritten; to replace it: {command}")
        origin = _origin(dataset, form, name, mirror)
        bring(path, pin, origin, form.urls.get(name, ""), _advice(dataset, path))
    return target


def _form_to_fetch(dataset: Dataset, root: Path, mirror: Path | None) -> Dataset:
    """The form that has a file there already; else the first one that the mirror holds; else the first one."""
    for form in dataset.all_forms:
        if any((root / (form.folder or form.name) / name).is_file() for name in form.files):
            return form
    if mirror:
        for form in dataset.all_forms:
            if all(any(path.is_file() for path in _places(form, name, mirror)) for name in form.files):
                return form
    return dataset


def _places(form: Dataset, name: str, mirror: Path) -> Iterator[Path]:
    """Where a mirror may hold a file."""
    for folder in (mirror / form.name, mirror, mirror / "split_lists"):
        yield folder / name
        yield folder / f"{name}.gz"


def bring(path: Path, pin: str, origin: Path | None, url: str, advice: str) -> None:
    """Puts a file in place: a copy of `origin`, unpacked if that is `<file>.gz`, or else what `url` gives.

    Raises:
        UserError: it is not as pinned, or the download failed (the message ends with `advice`).
    """
    with atomic_path(path) as temporary:
        if origin is None:
            from harness.reading.download import download

            download(url, temporary, advice)
        elif origin.name == f"{path.name}.gz":
            _unpack(origin, temporary)
        else:
            shutil.copyfile(origin, temporary)
        if fault := pins.wrong(temporary, pin):
            hint = "nothing was written; the source must hold the original file"
            raise UserError(f"{origin or url}: wrong content: {fault}; {hint}")


def _origin(dataset: Dataset, form: Dataset, name: str, mirror: Path | None) -> Path | None:
    """The file in the mirror, or on this machine; None if it is to be downloaded."""
    folder = form.source() if form.source else None
    here = [folder / name] if folder else []
    if mirror:
        places = [*_places(form, name, mirror), *here]
        also = f", and not in {mirror} either"
    elif not here and name in form.urls:
        return None
    else:
        places, also = here, ""
    for place in places:
        if place.is_file():
            return place
    files = " or ".join(", ".join(other.files) for other in dataset.all_forms)
    where = places[0] if places else name
    raise UserError(f"{where}: missing{also}; the source of data set '{dataset.name}' must hold this file ({files})")


def _advice(dataset: Dataset, path: Path) -> str:
    others = "".join(f" or {', '.join(form.files)}" for form in dataset.forms if path.name not in form.files)
    mirror = "LTBENCH_MIRROR (--mirror of `ltbench fetch`)"
    return f"put the file at {path} yourself, or point {mirror} at a folder that has it{others}"


def _unpack(origin: Path, target: Path) -> None:
    try:
        with gzip.open(origin) as packed, open(target, "wb") as file:
            shutil.copyfileobj(packed, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{origin}: damaged gzip file: {error}") from None


# ---- finding and loading ---------------------------------------------------------------------------------------------


def folder_of(form: Dataset) -> Path:
    """The folder for a form's files: the DVC-tracked one if it is there, else in the data root."""
    name = form.folder or form.name
    return (PINNED if (PINNED / name).is_dir() else data_root()) / name


def find(dataset: Dataset) -> Dataset:
    """The form of the data set whose files are here; the first one if none is.

    A form with all its files wins over one with some. The files' content is not checked.
    """
    for enough in (all, any):
        for form in dataset.all_forms:
            if enough((folder_of(form) / name).is_file() for name in form.files):
                return form
    return dataset


def is_here(dataset: Dataset) -> bool:
    """Whether any file of the data set is here."""
    form = find(dataset)
    return not form.files or any((folder_of(form) / name).is_file() for name in form.files)


def locate(dataset: Dataset) -> Path:
    """The folder with the data set's files: the DVC-tracked one if it is there, else in the data root.

    Raises:
        UserError: not fetched yet, a file missing, or a file whose hash is wrong; with the command that repairs it.
    """
    for path, fault in file_faults(dataset):
        raise UserError(f"{path}: {fault}")
    return folder_of(find(dataset))


def file_faults(dataset: Dataset) -> Iterator[tuple[Path, str]]:
    """The data set's files that are missing or whose hash is wrong, with what to do."""
    form = find(dataset)
    for name, pin in form.files.items():
        path = folder_of(form) / name
        if not path.is_file():
            yield path, f"missing ({pins.expected(pin)}); to bring it here: {bringing_command(dataset)}"
        elif fault := pins.wrong(path, pin):
            yield path, f"wrong content: {fault}; to repair it: {bringing_command(dataset, repair=True)}"


def bringing_command(dataset: Dataset, *, repair: bool = False) -> str:
    """The command that brings a data set's missing files here, or replaces its damaged ones too."""
    if folder_of(find(dataset)).parent == PINNED:
        return "dvc repro datasets.dvc"
    return f"ltbench fetch {dataset.name}{' --repair' if repair else ''}"


def load(dataset: Dataset) -> Mapping[str, AnyImages]:
    """Images of each part, from verified files. Of a data set that is cached, the pixels are read-only.

    Of a data set that does not fit into memory they are lists of files (`ImageFiles`).

    Raises:
        UserError: as `locate`, images that cannot be decoded, or images of another shape.
    """
    from harness.reading.cache import cached
    from harness.reading.dataset import ImageFiles

    form, folder = find(dataset), locate(dataset)
    if form.decoder_version is None:
        parts = form.decode(folder)
    else:
        key = _decoder_key(form)
        place = cache_root() / f"{form.name}-{key[:16]}"
        parts = cached(place, key, lambda: cast("Mapping[str, Images]", form.decode(folder)))
    for part, images in parts.items():
        if not isinstance(images, ImageFiles) and images.pixels.shape[1:] != form.image_shape:
            found = images.pixels.shape[1:]
            raise UserError(f"data set '{form.name}', {part}: images are {found}, expected {form.image_shape}")
    return parts


def cache_root() -> Path:
    """The folder for decoded images. It is in the data root even of data that DVC tracks: DVC's folder is its own."""
    return data_root() / ".cache"


def _decoder_key(dataset: Dataset) -> str:
    """Hash over all that decides what `decode` gives."""
    content = {
        "files": dict(dataset.files),
        "decoder_version": dataset.decoder_version,
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
    }
    return sha256_json(content | ({"state": dataset.state} if dataset.state else {}))


def check_pool(dataset: Dataset, split: str, imbalance_factor: float, subset_rule: str) -> None:
    """Refuses a split that the data set's pool cannot serve; a data set that is not a pool serves every split.

    Args:
        dataset: whose images are to be used.
        split: the split's name, for the message.
        imbalance_factor: n_max / n_min that was asked for.
        subset_rule: `hash:<seed>`, say. `pool-hash:<seed>` draws within the pool, so a pool serves it.

    Raises:
        UserError: another subset rule than `hash:0`, or too small an imbalance factor.
    """
    least = dataset.pool_min_imbalance_factor
    served = subset_rule == "hash:0" or subset_rule.startswith("pool-hash:")
    if least is not None and (not served or imbalance_factor < least):
        raise UserError(
            f"split '{split}' (subset rule {subset_rule}, imbalance factor {imbalance_factor:g}): the pool archive of "
            f"'{dataset.name}' serves only hash:0 with an imbalance factor of at least {least:g}"
        )
