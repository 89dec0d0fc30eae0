"""The forms in which users' own data sets are given; each is read by one of the modules beside this one."""

from __future__ import annotations

FORMS = {
    "folder:PATH": "your own images, train/<class>/ and test/<class>/; or a folder of classes with --holdout 0.2",
    "list:DIR": "your own images by lists train.csv, test.csv, val.csv with the columns path,label",
    "hf:PATH": "a Hugging Face data set on your disk: train-*.parquet and test-*.parquet, or what save_to_disk wrote",
    "wds:PATH": "WebDataset shards train-*.tar and test-*.tar of <key>.jpg and <key>.cls (or <key>.json)",
    "coco:DIR": "annotations as COCO and iNaturalist have them, train.json and test.json, beside the images",
}
KINDS = tuple(form.partition(":")[0] for form in FORMS)
OWN = tuple(kind + sign for kind in KINDS for sign in ":-")  # how names of users' own data sets begin
ANY = ", ".join(FORMS)
