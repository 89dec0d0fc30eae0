"""Each split as a Croissant description (MLCommons, version 1.0): which images it has, class by class.

A split lists its training images by their identities (`harness.reading.identity`). Its validation and test parts are
fixed parts of the data set, which the description names with their sizes and hashes. The images stay where their owners
publish them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.files import json_text, sha256_bytes
from harness.reading.dataset import Dataset
from harness.reporting.site.config import Site
from harness.reporting.site.content import address
from harness.reporting.site.versions import day, histories
from harness.splits import store
from harness.splits.splits import Part, Split, read_split

CONFORMS = "http://mlcommons.org/croissant/1.0"
TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
    "subField transform"
)
CONTEXT: dict[str, Any] = {  # as the specification has it: readers expect exactly these keys
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS.split()},
}
INTEGER, TEXT = "sc:Integer", "sc:Text"
TRAIN = "train.csv"


def files(splits: Path, site: Site) -> Iterator[tuple[str, str]]:
    """Path and text of the files of every split in a folder.

    Raises:
        UserError: a damaged split, or there is none.
    """
    paths = sorted(splits.glob("*.json"))
    if not paths:
        raise UserError(f"{splits}: no split; `ltbench split NAME` writes one")
    for path in paths:
        split = read_split(path)
        train = _train(split)
        yield f"{address(split.id)}/{TRAIN}", train
        known = histories([path]).get(path)
        published = {"datePublished": day(known.time)} if known else {}
        yield f"{address(split.id)}/croissant.json", json_text(_description(split, train, site) | published)


def _train(split: Split) -> str:
    """A line for each training image, duplicates as often as they are chosen."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "class"])
    lines.writerows((image, number) for number, images in enumerate(split.train) for image in images)
    return text.getvalue()


def _description(split: Split, train: str, site: Site) -> dict[str, Any]:
    dataset = _dataset(split)
    data = train.encode()
    own = _file(TRAIN, TRAIN, "text/csv", {"sha256": sha256_bytes(data)}, f"{len(data)} B")
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": split.id,
        "description": _text(split, dataset),
        "citeAs": dataset.citation if dataset else split.dataset,
        "url": site.url or site.repository or f"urn:sha256:{split.sha256}",
        "version": f"{split.schema}.0.0+{split.sha256[:12]}",
        **({"license": site.licence} if site.licence else {}),
        "distribution": [own, *_archives(dataset)],
        "recordSet": [_classes(split), _images()],
    }


def _dataset(split: Split) -> Dataset | None:
    """The data set that it was cut from; None if that is a user's own, or not known here."""
    try:
        return store.get_dataset(split.dataset)
    except UserError:
        return None


def _text(split: Split, dataset: Dataset | None) -> str:
    def part(name: str, one: Part) -> str:
        return f"{name}: {sum(one.class_counts)} images (sha256 over their identities {one.sha256})"

    title = dataset.title if dataset else split.dataset
    return (
        f"The long-tailed split {split.id} of {title}: {sum(split.class_counts)} training images in "
        f"{split.num_classes} classes, {max(split.class_counts)} of the most frequent one and "
        f"{min(split.class_counts)} of the rarest ({split.profile}, imbalance factor {split.imbalance_factor:g}, "
        f"subset rule {split.subset_rule}). "
        f"{part('Validation', split.val)}; {part('test', split.test)}. The list only: the images are not part of it. "
        f"sha256 of the split: {split.sha256}."
    )


def _archives(dataset: Dataset | None) -> Iterator[dict[str, Any]]:
    """The files with the images, where they are published and pinned."""
    forms = dataset.all_forms if dataset else ()
    for name, url in {name: url for form in reversed(forms) for name, url in form.urls.items()}.items():
        pins = next(form.files[name] for form in forms if name in form.files).split()
        known = {kind or "sha256": digest for kind, _, digest in (pin.rpartition(":") for pin in pins)}
        if found := {kind: pin for kind, pin in known.items() if kind in ("sha256", "md5")}:
            yield _file(name, url, "application/octet-stream", found)


def _file(name: str, url: str, encoding: str, pin: Mapping[str, str], size: str = "") -> dict[str, Any]:
    found = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": url, "encodingFormat": encoding, **pin}
    return found | ({"contentSize": size} if size else {})


def _classes(split: Split) -> dict[str, Any]:
    names = ("number", "name", "train_images", "val_images", "test_images")
    kinds = (INTEGER, TEXT, INTEGER, INTEGER, INTEGER)
    counts = (split.class_counts, split.val.class_counts, split.test.class_counts)
    values = zip(range(split.num_classes), split.class_names, *counts, strict=True)
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "key": {"@id": "classes/number"},
        "field": [_field("classes", name, kind) for name, kind in zip(names, kinds, strict=True)],
        "data": [{f"classes/{name}": one for name, one in zip(names, line, strict=True)} for line in values],
    }


def _images() -> dict[str, Any]:
    def column(name: str) -> dict[str, Any]:
        return {"source": {"fileObject": {"@id": TRAIN}, "extract": {"column": name}}}

    label = _field("train", "class", INTEGER) | column("class") | {"references": {"field": {"@id": "classes/number"}}}
    image = _field("train", "image", TEXT) | column("image")
    return {"@type": "cr:RecordSet", "@id": "train", "name": "train", "field": [image, label]}


def _field(record_set: str, name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{record_set}/{name}", "name": f"{record_set}/{name}", "dataType": kind}
