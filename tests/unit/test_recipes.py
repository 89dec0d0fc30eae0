"""Recipes: layers in their order, and mistakes that name their file and key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UserError
from harness.spec import recipe_layers
from harness.spec.entries import parse_entry
from harness.spec.recipe_layers import parse_override
from harness.spec.recipes import Cell, Recipe, resolve
from harness.spec.stage_recipe import Augment, StageRecipe
from tests.unit import toys

COMMON: dict[str, Any] = {
    "backbone": "resnet8_cifar", "epochs": 10, "batch_size": 8, "lr": 0.1, "weight_decay": 5e-4, "momentum": 0.8,
    "augment": {"crop_padding": 2}, "warmup_epochs": 1, "finetune": {"epochs": 3},
}  # fmt: skip


@pytest.fixture(autouse=True)
def common_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "common.yaml"
    path.write_text(yaml.safe_dump({"common": {"toy": COMMON}}))
    monkeypatch.setattr(recipe_layers, "COMMON_FILE", path)
    return path


def resolved(entry: str, overrides: Sequence[str] = (), backbone: str | None = None) -> Cell:
    return resolve(parse_entry(entry), "toy", overrides, backbone)


def refused(entry: str, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(UserError) as caught:
        resolved(entry, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PARAMS = """
    @dataclass(frozen=True)
    class Params:
        strength: float = 1.0
        rounds: int = second_stage(4)

        def __post_init__(self):
            if self.strength < 0:
                raise ValueError(f"strength must be at least 0, found {self.strength}")
"""
TWO_STAGES: dict[str, Any] = {"stages": ("train", "finetune")}


# ---- layers --------------------------------------------------------------------------------------------------------


def test_later_layers_win(plugins: Path) -> None:
    text = """
        title: Layers
        params: {strength: 2}
        tracks:
          common:
            "*": {lr: 0.2, momentum: 0.7, weight_decay: 1e-3, batch_size: 16}
            toy: {momentum: 0.6, weight_decay: 2e-3, batch_size: 32}
            other: {momentum: 0.1}
        variants:
          strong: {weight_decay: 3e-3, batch_size: 64, params: {strength: 9}}
    """
    toys.write_plugin(plugins, "layers", toys.plugin_code("layers", PARAMS), text)
    plain = resolved("layers@common").recipe
    assert (plain.train.epochs, plain.train.lr, plain.train.momentum) == (10, 0.2, 0.6)
    assert (plain.train.weight_decay, plain.train.batch_size, plain.params.strength) == (2e-3, 32, 2.0)
    variant = resolved("layers-strong@common").recipe
    assert (variant.train.momentum, variant.train.weight_decay, variant.train.batch_size) == (0.6, 3e-3, 64)
    assert variant.params.strength == 9.0
    last = resolved("layers-strong@common", ["batch_size=128", "batch_size=256", "params.strength=0"]).recipe
    assert (last.train.weight_decay, last.train.batch_size, last.params.strength) == (3e-3, 256, 0.0)
    assert last.finetune is None


def test_backbone_option_wins_over_recipes_and_set_over_both(plugins: Path) -> None:
    toys.write_plugin(plugins, "plain")
    assert resolved("plain@common").recipe.backbone == "resnet8_cifar"
    assert resolved("plain@common", backbone="resnet18").recipe.backbone == "resnet18"
    assert resolved("plain@common", ["backbone=resnet10"], "resnet18").recipe.backbone == "resnet10"


def test_an_own_track_needs_no_common_recipe(plugins: Path) -> None:
    own = {key: value for key, value in COMMON.items() if key != "finetune"} | {"epochs": 2}
    text = yaml.safe_dump({"title": "t", "tracks": {"paper": {"toy": own}}})
    toys.write_plugin(plugins, "own", recipes=text)
    assert resolved("own@paper").recipe.train.epochs == 2
    assert "no recipe on track 'common' for data set 'toy'" in refused("own@common")


def test_second_stage_inherits_the_first(plugins: Path) -> None:
    text = "title: t\ntracks: {common: {'*': {lr: 0.3, augment: {flip: true}, finetune: {momentum: 0.5}}}}"
    toys.write_plugin(plugins, "two", toys.plugin_code("two", **TWO_STAGES), text)
    recipe = resolved("two@common", ["finetune.augment.crop_padding=0"]).recipe
    assert recipe.finetune is not None
    assert (recipe.train.epochs, recipe.finetune.epochs) == (10, 3)
    assert (recipe.train.lr, recipe.finetune.lr) == (0.3, 0.3)
    assert (recipe.train.momentum, recipe.finetune.momentum) == (0.8, 0.5)
    assert (recipe.train.augment.crop_padding, recipe.finetune.augment.crop_padding) == (2, 0)
    assert recipe.finetune.augment.flip


def test_a_second_stage_without_recipe_is_refused(plugins: Path, common_file: Path) -> None:
    common_file.write_text(yaml.safe_dump({"common": {"toy": {k: v for k, v in COMMON.items() if k != "finetune"}}}))
    toys.write_plugin(plugins, "two", toys.plugin_code("two", **TWO_STAGES))
    assert "key 'finetune' is missing" in refused("two@common")


def test_common_file_is_named(plugins: Path, common_file: Path) -> None:
    toys.write_plugin(plugins, "plain")
    common_file.write_text(yaml.safe_dump({"common": {"toy": COMMON | {"epochz": 3}}}))
    assert "common.yaml: common.toy: unknown key 'epochz' (closest is 'epochs'" in refused("plain@common")
    common_file.write_text(yaml.safe_dump({"common": {"toy": {k: v for k, v in COMMON.items() if k != "lr"}}}))
    assert "key 'lr' is missing" in refused("plain@common")
    common_file.write_text(yaml.safe_dump({"common": {"toy": {k: v for k, v in COMMON.items() if k != "backbone"}}}))
    assert "key 'backbone' is missing" in refused("plain@common")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "title: t\ntracks: {common: {}}\nparams: {strenght: 1}",
            "recipes.yaml: params.params: unknown key 'strenght'",
        ),
        ("title: t\ntracks: {common: {'*': {epoch: 1}}}", "recipes.yaml: tracks.common.*: unknown key 'epoch'"),
        ("title: t\ntracks: {common: {toy: {lr: fast}}}", "recipes.yaml: tracks.common.toy.lr: expected float"),
        ("title: t\ntracks: {common: {toy: 3}}", "recipes.yaml: tracks.common.toy: expected keys and values, found 3"),
        ("title: t\ntracks: {common: 3}", "recipes.yaml: tracks.common"),
        ("title: t\ntracks: {comon: {}}", "recipes.yaml"),
        ("title: t\ntracks: {common: {toyy: {lr: 1}}}", "toyy"),
        ("title: t\ntracks: {common: {'*': {finetune: {epoch: 1}}}}", "tracks.common.*.finetune: unknown key 'epoch'"),
        ("tracks: {common: {}}", "recipes.yaml: key 'title' is missing"),
        ("title: t\ntrack: {common: {}}", "recipes.yaml: unknown key 'track' (closest is 'tracks'"),
        ("title: [", "recipes.yaml: not valid YAML"),
        ("- 1", "recipes.yaml: expected keys and values"),
        ("title: t\ntracks: {common: {}}\nparams: {strength: -1}", "recipes.yaml): strength must be at least 0"),
    ],
)
def test_method_file_and_key_are_named(plugins: Path, text: str, message: str) -> None:
    toys.write_plugin(plugins, "broken", toys.plugin_code("broken", PARAMS), text)
    assert message in refused("broken@common")


@pytest.mark.parametrize("track", ["common", "paper"])
@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("imagenet", "imagenet-lt"), ("places", "places-lt"), ("CIFAR100", "cifar100"), ("cifar", "cifar10"),
        ("mnist", "mnist5k"), ("inaturalist2018", "inat2018"), ("iNaturalist-2018", "inat2018"), ("inat", "inat2018"),
        ("ImageNet_LT", "imagenet-lt"), ("imagnet-lt", "imagenet-lt"), ("tinyimagenet", "tiny-imagenet"),
    ],
)  # fmt: skip
def test_a_known_data_set_written_otherwise_is_refused(plugins: Path, track: str, key: str, near: str) -> None:
    text = {"title": "t", "tracks": {"common": {}, "paper": {"toy": COMMON}}}
    text["tracks"][track][key] = {"lr": 1.0}  # type: ignore[index]
    toys.write_plugin(plugins, "written", toys.plugin_code("written"), yaml.safe_dump(text))
    message = refused(f"written@{track}")
    assert f"recipes.yaml: tracks.{track}: no data set is named '{key}' (closest: " in message
    assert near in message


@pytest.mark.parametrize(
    "key",
    ["svhn", "imagenet100", "imagenet21k", "places365", "cifar10-noisy", "stl10", "herbarium-lt", "birds-lt", "emnist"],
)
def test_a_data_set_that_somebody_may_bring_is_no_mistake(plugins: Path, key: str) -> None:
    text = yaml.safe_dump({"title": "t", "tracks": {"common": {key: {"lr": 1.0}}}})
    toys.write_plugin(plugins, "brought", toys.plugin_code("brought"), text)
    assert resolved("brought@common").recipe.train.lr == 0.1


def test_a_method_without_recipes_file(plugins: Path) -> None:
    (toys.write_plugin(plugins, "bare") / "recipes.yaml").unlink()
    assert "recipes.yaml" in refused("bare@common")


def test_params_that_are_no_dataclass_are_the_plugins_mistake(plugins: Path) -> None:
    toys.write_plugin(plugins, "plainparams", toys.plugin_code("plainparams", "class Params:\n    kappa: float = 1.0"))
    assert "plainparams" in refused("plainparams@common")


# ---- --set ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("epochs=2", {"epochs": 2}),
        ("recipe.epochs=2", {"epochs": 2}),
        ("recipe.finetune.lr=5e-4", {"finetune": {"lr": 5e-4}}),
        ("params.kappa=64", {"params": {"kappa": 64}}),
        (" epochs = 2", {"epochs": 2}),
        ("augment.flip=true", {"augment": {"flip": True}}),
        ("augment={flip: true}", {"augment": {"flip": True}}),
        ("a.b.c=x=y", {"a": {"b": {"c": "x=y"}}}),
        ("backbone='8'", {"backbone": "8"}),
        ("mean=0.5, -1e-3,2", {"mean": [0.5, -0.001, 2]}),
        ("pretrained=a,b.th", {"pretrained": "a,b.th"}),
    ],
)
def test_override(item: str, expected: dict[str, Any]) -> None:
    assert parse_override(item) == expected


@pytest.mark.parametrize(
    "item", ["", "epochs", "=2", "a..b=2", ".a=2", "a.=2", "recipe.=2", "a b=2", "a-b=2", "epochs=[", "lr=2001-99-99"]
)
def test_bad_override_is_quoted(item: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(item)
    assert str(caught.value).startswith(f"--set {item}:")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("epoch=2", "unknown key 'epoch' (closest is 'epochs'"),
        ("kappa=8", "--set kappa=8: 'kappa' is a parameter of method 'tvmf': write params.kappa"),
        ("params.kappa=x", "--set params.kappa=x: kappa: expected"),
        ("finetune.epochs=x", "--set finetune.epochs=x: epochs: expected"),
        ("recipe.epochs=2.5", "expected int, found 2.5"),
        ("epochs=-1", "epochs must be a number of at least 0"),
        ("batch_size=0", "batch_size must be a number of at least 1"),
        ("eval_every=0", "eval_every must be a number of at least 1"),
        ("lr=.nan", "lr must be a number"),
        ("lr=.inf", "lr must be a number"),
        ("augment.crop_padding=-1", "augment.crop_padding"),
        ("finetune.lr=-1", "lr must be a number"),
        ("params.kapa=1", "unknown key 'kapa' (closest is 'kappa'"),
        ("params.kappa=-0.5", "kappa must be above -0.5"),
        ("params.kappa=.nan", "kappa must be above -0.5"),
        ("params.class_aware_k=0", "class_aware_k"),
        ("precision=float16", "expected one of float32, bfloat16"),
        ("schedule=cosin", "closest: cosine"),
        ("recipe=3", "unknown key 'recipe'"),
    ],
)
def test_overrides_are_checked(item: str, message: str) -> None:
    found = refused("tvmf@common", [item])
    assert message in found
    assert f"--set {item}" in found


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ("augment.hue=0.1", lambda recipe: recipe.train.augment.hue == 0.1),
        ("schedule.milestones=0.7,0.85", lambda recipe: recipe.train.schedule.milestones == (0.7, 0.85)),
        ("schedule.warmup_from=0.1", lambda recipe: recipe.train.schedule.warmup_from == 0.1),
        ("strong_augment.hue=0.05", lambda recipe: recipe.train.strong_augment.hue == 0.05),
    ],
)
@pytest.mark.parametrize("place", ["command line", "variant"])
def test_a_layer_may_change_one_key_of_what_another_one_gives(
    plugins: Path, place: str, item: str, found: Callable[[Recipe], bool]
) -> None:
    full = {
        "augment": {"color_jitter": 0.4, "crop_padding": 2}, "strong_augment": {"color_jitter": 0.4, "crop_padding": 2},
        "schedule": {"milestones": [0.5, 0.6], "factors": [0.1, 0.01]},
    }  # fmt: skip
    text: dict[str, Any] = {"title": "t", "tracks": {"common": {"*": full}}}
    text["variants"] = {"other": parse_override(item)}
    toys.write_plugin(plugins, "layered", None, yaml.safe_dump(text))
    if place == "variant":
        assert found(resolved("layered-other@common").recipe)
    else:
        assert found(resolved("layered@common", [item]).recipe)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("augment.hue=0.1", "augment.hue does nothing without augment.color_jitter"),
        ("augment.crop_padding=-1", "augment.crop_padding must be a number of at least 0, found -1"),
        ("schedule.milestones=0.7,0.85", "schedule: key 'factors' is missing"),
        ("schedule.warmup_from=0.1", "schedule: key 'milestones' is missing"),
    ],
)
@pytest.mark.parametrize("place", ["command line", "variant"])
def test_what_no_layer_completes_names_the_files_and_the_key(
    plugins: Path, place: str, item: str, message: str
) -> None:
    text = {"title": "t", "tracks": {"common": {}}, "variants": {"other": parse_override(item)}}
    toys.write_plugin(plugins, "layered", None, yaml.safe_dump(text))
    found = refused("layered-other@common") if place == "variant" else refused("layered@common", [item])
    assert message in found
    assert (f"--set {item}" if place == "command line" else "methods/layered/recipes.yaml") in found


@pytest.mark.parametrize("unit", ["epochs", "iterations"])
@pytest.mark.parametrize(
    ("typed", "warmups"),
    [
        (["{}=20"], (8, 5)),
        (["{}=4"], (1, 5)),
        (["finetune.{}=4"], (8, 2)),
        (["{}=4", "finetune.{}=2"], (1, 1)),
        (["{}=4", "finetune.{}=2", "warmup_{}=3", "finetune.warmup_{}=2"], (3, 2)),
    ],
)
def test_each_stages_warmup_is_shortened(
    plugins: Path, common_file: Path, unit: str, typed: list[str], warmups: tuple[int, int]
) -> None:
    lengths = {"epochs": 0, unit: 32, f"warmup_{unit}": 8}
    common = {**COMMON, "warmup_epochs": 0, **lengths, "finetune": {unit: 10, f"warmup_{unit}": 5}}
    common_file.write_text(yaml.safe_dump({"common": {"toy": common}}))
    toys.write_plugin(plugins, "two", toys.plugin_code("two", **TWO_STAGES))
    recipe = resolved("two@common", [item.format(unit) for item in typed]).recipe
    assert recipe.finetune is not None
    key = f"warmup_{unit}"
    assert (getattr(recipe.train, key), getattr(recipe.finetune, key)) == warmups


def test_a_second_stage_that_takes_over_the_first_ones_length_has_its_warmup_shortened(
    plugins: Path, common_file: Path
) -> None:
    common = {**COMMON, "epochs": 40, "warmup_epochs": 4, "finetune": {"warmup_epochs": 20}}
    common_file.write_text(yaml.safe_dump({"common": {"toy": common}}))
    toys.write_plugin(plugins, "two", toys.plugin_code("two", **TWO_STAGES))
    recipe = resolved("two@common", ["epochs=10"]).recipe
    assert recipe.finetune is not None
    assert (recipe.train.warmup_epochs, recipe.finetune.warmup_epochs) == (4, 5)


@pytest.mark.parametrize("item", ["finetune=3", "finetune.epochs=x", "warmup_epochs=x", "epochs=x", "finetune=[1]"])
def test_a_mistake_in_a_length_is_named_and_not_stumbled_over(plugins: Path, item: str) -> None:
    toys.write_plugin(plugins, "two", toys.plugin_code("two", **TWO_STAGES))
    assert f"--set {item}" in refused("two@common", [item])


# ---- entries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["ce@common", "tvmf-k64@common", "balanced_softmax@paper"])
def test_entry_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_entry(text)) == text


def test_entry_path() -> None:
    assert parse_entry("tvmf-k64@common").path == Path("common/tvmf-k64")


@pytest.mark.parametrize(
    "text", ["ce", "@common", "ce@", "ce-@common", "ce@common@x", "ce @common", "", "ce-a/b@common"]
)
def test_what_is_no_entry(text: str) -> None:
    with pytest.raises(UserError, match=r"method\[-variant\]@track"):
        parse_entry(text)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("tvfm@common", "tvmf"),
        ("ce@comon", "common"),
        ("balanced-softmex@common", "balanced_softmax"),
        ("CE@common", "closest: ce"),
    ],
)
def test_entry_near_misses(text: str, near: str) -> None:
    with pytest.raises(UserError, match=near):
        parse_entry(text)


def test_unknown_variant() -> None:
    message = refused("tvmf-k65@common")
    assert "closest: k64" in message
    assert "methods/tvmf/recipes.yaml" in message


# ---- shared first stages -------------------------------------------------------------------------------------------


def identity(entry: str, *overrides: str) -> dict[str, Any]:
    return resolved(entry, overrides).first_stage_identity()


def test_second_stage_settings_do_not_tell_first_stages_apart() -> None:
    plain = identity("tvmf@common")
    assert identity("tvmf@common", "params.class_aware_k=1") == plain
    assert identity("tvmf@common", "finetune.lr=9") == plain
    assert (
        resolved("tvmf@common", ["params.class_aware_k=1"]).recipe.sha256() != resolved("tvmf@common").recipe.sha256()
    )
    for override in ("params.kappa=1", "lr=9", "epochs=1", "backbone=resnet20_cifar", "precision=bfloat16"):
        assert identity("tvmf@common", override) != plain


def test_methods_that_name_one_first_stage_share_it(plugins: Path) -> None:
    toys.write_plugin(plugins, "retrain", toys.plugin_code("retrain", PARAMS, first_stage="ce", **TWO_STAGES))
    toys.write_plugin(plugins, "rescale", toys.plugin_code("rescale", PARAMS, first_stage="ce", **TWO_STAGES))
    assert identity("retrain@common") == identity("rescale@common") == identity("ce@common")
    assert identity("retrain@common", "params.strength=5") == identity("ce@common")
    assert identity("retrain@common", "lr=9") != identity("ce@common")


def test_a_shared_first_stage_runs_with_its_own_recipes_params(plugins: Path) -> None:
    text = "title: t\nparams: {strength: 7}\ntracks: {common: {}}"
    toys.write_plugin(plugins, "base", toys.plugin_code("base", PARAMS), text)
    toys.write_plugin(plugins, "heir", toys.plugin_code("heir", first_stage="base", **TWO_STAGES))
    assert identity("heir@common") == identity("base@common")


def test_unknown_first_stage_is_the_plugins_mistake(plugins: Path) -> None:
    toys.write_plugin(plugins, "orphan", toys.plugin_code("orphan", first_stage="cee", **TWO_STAGES))
    message = refused("orphan@common")
    assert "'cee'" in message
    assert "orphan" in message


def test_equal_recipes_have_equal_hashes_however_written() -> None:
    assert resolved("ce@common", ["lr=1"]).recipe.sha256() == resolved("ce@common", ["recipe.lr=1.0"]).recipe.sha256()


# ---- published recipes, shortened tracks, variants that belong to a track -----------------------------------------


def with_sections(path: Path, **sections: Any) -> None:
    path.write_text(yaml.safe_dump({"common": {"toy": COMMON}, **sections}))


def test_base_starts_over_from_a_published_recipe(plugins: Path, common_file: Path) -> None:
    published = {"old": {**COMMON, "epochs": 7, "augment": {"flip": True}}, "new": {**COMMON, "epochs": 9}}
    with_sections(common_file, published=published)
    text = """
        title: t
        params: {strength: 3}
        tracks: {paper: {toy: {base: old, nesterov: true, params: {strength: 4}}}}
        variants: {later: {base: new, lr: 0.5}}
    """
    toys.write_plugin(plugins, "cited", toys.plugin_code("cited", PARAMS), text)
    plain = resolved("cited@paper").recipe
    assert (plain.train.epochs, plain.train.nesterov, plain.train.augment.flip) == (7, True, True)
    later = resolved("cited-later@paper").recipe
    assert (later.train.epochs, later.train.lr) == (9, 0.5)
    assert not later.train.nesterov, "a base leaves nothing of the layers before it"
    assert not later.train.augment.flip
    assert later.params.strength == 4, "but the params"


def test_an_unknown_base_is_refused(plugins: Path, common_file: Path) -> None:
    with_sections(common_file, published={"old": COMMON})
    toys.write_plugin(plugins, "cited", recipes="title: t\ntracks: {paper: {toy: {base: odl}}}")
    assert "published recipe" in refused("cited@paper")
    assert "closest: old" in refused("cited@paper")


def test_short_is_the_common_recipe_shortened(plugins: Path, common_file: Path) -> None:
    with_sections(common_file, short={"toy": {"epochs": 2, "weight_decay": 1.0}})
    text = "title: t\ntracks: {common: {'*': {weight_decay: 0.5, lr: 0.3}}, short: {toy: {lr: 0.4}}}"
    toys.write_plugin(plugins, "plain", recipes=text)
    recipe = resolved("plain@short").recipe.train
    assert (recipe.epochs, recipe.batch_size) == (2, 8)
    assert recipe.weight_decay == 0.5, "what the method is stays as it is"
    assert recipe.lr == 0.4
    assert resolved("plain@common").recipe.train.epochs == 10


def test_a_variant_of_another_track_or_data_set_is_refused(plugins: Path) -> None:
    text = """
        title: t
        tracks: {common: {}}
        variants:
          code: {applies_to: {tracks: [paper]}, lr: 0.5}
          other: {applies_to: {datasets: [other]}, lr: 0.5}
          here: {applies_to: {tracks: [common], datasets: [toy]}, lr: 0.5}
    """
    toys.write_plugin(plugins, "plain", recipes=text)
    for name in ("code", "other"):
        assert f"variant '{name}', has no recipe on track 'common'" in refused(f"plain-{name}@common")
    assert resolved("plain-here@common").recipe.train.lr == 0.5
    toys.write_plugin(
        plugins, "wrong", recipes="title: t\ntracks: {common: {}}\nvariants: {a: {applies_to: {trak: x}}}"
    )
    assert "variants.a.applies_to: unknown key 'trak'" in refused("wrong-a@common")


def test_iterations_become_whole_epochs() -> None:
    """The lengths of Balanced Softmax's code on CIFAR-LT (methods.md, section 7)."""
    recipe = StageRecipe(0, 512, 0.1, 5e-4, iterations=13000, warmup_iterations=800)
    found = {n: recipe.for_images(n) for n in (20431, 13996, 12406, 11203, 19573, 12608, 10847, 9502)}
    assert [r.epochs for r in found.values()] == [325, 465, 520, 591, 334, 520, 591, 685]
    assert [r.warmup_epochs for r in found.values()] == [20, 29, 32, 37, 21, 32, 37, 43]
    full = StageRecipe(0, 512, 0.1, 5e-4, iterations=2000, count_partial_batch=False)
    assert [full.for_images(n).epochs for n in found] == [52, 75, 84, 96, 53, 84, 96, 112]
    assert recipe.for_images(12406).iterations == 0
    plain = StageRecipe(3, 512, 0.1, 5e-4)
    assert plain.for_images(12406) is plain


def test_epochs_and_iterations_exclude_each_other(plugins: Path) -> None:
    toys.write_plugin(plugins, "plain")
    message = refused("plain@common", ["iterations=5"])
    assert "either epochs (10) or iterations (5) must be 0" in message
    steps = ["iterations=5", "epochs=0", "warmup_epochs=0"]
    assert resolved("plain@common", steps).recipe.train.iterations == 5
    message = refused("plain@common", [*steps, "warmup_iterations=6"])
    assert "warmup_iterations 6 must not be more than iterations 5" in message


@pytest.mark.parametrize("stage", ["", "finetune."])
@pytest.mark.parametrize(("key", "value"), [("optimizer", "adamw"), ("clip_grad", "1.5")])
def test_a_method_that_needs_sgd_refuses_the_rest_before_anything_runs(
    plugins: Path, stage: str, key: str, value: str
) -> None:
    toys.write_plugin(plugins, "inner", toys.plugin_code("inner", only_sgd="it says so", **TWO_STAGES))
    toys.write_plugin(plugins, "heir", toys.plugin_code("heir", first_stage="inner", **TWO_STAGES))
    message = f"{key} {value}: not with 'inner': it says so"
    assert message in refused("inner@common", [f"{stage}{key}={value}"])
    back = f"finetune.{key}={'sgd' if key == 'optimizer' else 0}"
    assert message in refused("heir@common", [f"{key}={value}", back])
    assert resolved("heir@common", [f"finetune.{key}={value}"]).recipe.finetune is not None
    assert resolved("inner@common").recipe.train.optimizer == "sgd"


def test_a_strong_view_pads_as_the_first_one_or_cuts_parts_out() -> None:
    usual: dict[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 0.1, "weight_decay": 0.0}
    for strong in (Augment(crop_padding=4, flip=True), Augment(resized_crop=True)):
        assert StageRecipe(**usual, augment=Augment(crop_padding=4), strong_augment=strong).strong_augment == strong
    with pytest.raises(ValueError, match="strong_augment must have resized_crop, or the crop_padding of augment"):
        StageRecipe(**usual, augment=Augment(crop_padding=4), strong_augment=Augment(crop_padding=2))
