"""Every recipe file, and the papers' figures in theirs. A new file is tested by being there."""

import tomllib

import pytest

from archiveprobe.embed import libraries
from archiveprobe.embed.backbones import BACKBONES
from archiveprobe.finetune.recipe import RECIPES, Recipe, load_recipe, read_head

WANTED = {
    "nu-clip-last-block",
    "nu-clip-frozen",
    "nu-clip-cross-entropy",
    "nu-resnet18",
    "nu-resnet34",
    "nu-resnet50",
    "nu-efficientnet-b3",
    "kvochur-convnextv2-nano",
    "kvochur-convnextv2-nano-drop-path",
    "pixel-convnext-tiny",
    "boulanouar-convnext-tiny",
    "thefangs-maxvit-base",
    "ours",
    "demo-tiny",
}


def leaves(value, place: str = "") -> dict:
    """The keys of a nested table, joined by dots, and their values; lists as tuples."""
    if not isinstance(value, dict):
        return {place: tuple(value) if isinstance(value, list) else value}
    inner = [leaves(part, f"{place}.{key}".lstrip(".")) for key, part in value.items()]
    return {key: part for table in inner for key, part in table.items()}


def settings(recipe: Recipe) -> dict:
    return leaves(recipe.model_dump(exclude={"name", "seed"}))


def test_the_recipes_of_the_shared_task_are_there() -> None:
    assert set(RECIPES) >= WANTED


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_holds_only_what_differs(name) -> None:
    written = leaves(tomllib.loads(RECIPES[name].read_text("utf-8")))
    assert written == leaves(load_recipe(name).differs())


@pytest.mark.parametrize("name", RECIPES)
def test_a_head_says_origin_launch_score_and_assumptions(name) -> None:
    head = read_head(RECIPES[name])
    assert min(len(head.origin), len(head.published), len(head.assumed)) > 4
    assert f"archiveprobe finetune TASK --recipe {name}" in head.launch


@pytest.mark.parametrize("name", RECIPES)
def test_a_backbone_is_in_the_table_or_in_a_library(name) -> None:
    model = load_recipe(name).model
    library, colon, architecture = model.backbone.partition(":")
    if not colon:
        assert model.backbone in BACKBONES
        return
    assert library == "timm"
    assert libraries.timm().is_model(architecture)


CLIP_PAPER = {
    "model.backbone": "clip-vit-b32",
    "model.weights": "pretrained",
    "model.size": None,
    "model.unfreeze": "last-block",
    "model.hidden": (256,),
    "model.dropouts": (0.5, 0.3),
    "model.start": "random",
    "loss.kind": "focal",
    "loss.alpha": 0.75,
    "loss.gamma": 2.0,
    "loss.smoothing": 0.0,
    "loss.class_weights": "none",
    "optimiser.head_rate": 1e-3,
    "optimiser.body_rate": 1e-5,
    "optimiser.weight_decay": 1e-4,
    "optimiser.decay_one_dimensional": True,
    "optimiser.layer_decay": 1.0,
    "optimiser.batch": 32,
    "optimiser.gradient_norm": 1.0,
    "schedule.epochs": 30,
    "schedule.warm_up": 0.0,
    "schedule.kind": "constant",
    "schedule.watch": "training-loss",
    "schedule.patience": 5,
    "schedule.restore_best": True,
    "augment.crop_scale": (0.8, 1.0),
    "augment.crop_ratio": (3 / 4, 4 / 3),
    "augment.interpolation": "weights",
    "augment.flip": 0.5,
    "augment.rotation": 10.0,
    "augment.jitter": (0.2, 0.2, 0.2, 0.1),
    "augment.rand_augment": None,
    "augment.erasing": 0.0,
    "augment.mixup": 0.0,
    "ema.decay": None,
    "ema.remainder": None,
    "interpolate.tuned": (),
    "rows.merged": True,
    "rows.sampler": "shuffle",
    "rows.unreadable": "blank",
    "predict.views": "center",
    "predict.combine": "mean",
    "predict.threshold_rule": "smoothed",
    "predict.threshold": 0.51,
    "predict.calibrate": False,
    "model.drop_path": 0.0,
}
CONVNEXT_PAPER = CLIP_PAPER | {
    "model.backbone": "convnextv2-nano-384",
    "model.unfreeze": "all",
    "model.hidden": (),
    "model.dropouts": (),
    "loss.kind": "cross-entropy",
    "loss.alpha": None,
    "loss.smoothing": 0.2,
    "optimiser.head_rate": 2e-4,
    "optimiser.body_rate": 2e-4,
    "optimiser.weight_decay": 0.3,
    "optimiser.decay_one_dimensional": False,
    "optimiser.batch": 16,
    "optimiser.gradient_norm": None,
    "schedule.epochs": 50,
    "schedule.warm_up": 5.0,
    "schedule.warm_up_start": 0.001,
    "schedule.kind": "cosine",
    "schedule.last_rate": 1e-6,
    "schedule.watch": "macro-f1",
    "schedule.patience": None,
    "augment.crop_scale": (0.08, 1.0),
    "augment.interpolation": "bicubic",
    "augment.rotation": 0.0,
    "augment.jitter": (0.0, 0.0, 0.0, 0.0),
    "augment.rand_augment": "rand-m9-n2-mstd0.5-inc1",
    "augment.erasing": 0.25,
    "ema.decay": 0.9995,
    "rows.merged": False,
    "rows.unreadable": "skip",
    "predict.views": "crops6",
    "predict.combine": "vote",
    "predict.threshold_rule": "half",
    "predict.threshold": None,
    "predict.calibrate": True,
}


@pytest.mark.parametrize(
    ("name", "figures"),
    [("nu-clip-last-block", CLIP_PAPER), ("kvochur-convnextv2-nano", CONVNEXT_PAPER)],
)
def test_the_papers_figures(name, figures) -> None:
    read = settings(load_recipe(name))
    assert {key: read[key] for key in figures} == figures
    # Whatever is not listed does not bear on these systems.
    unused = {"rows.inner", "schedule.warm_up_start", "schedule.last_rate", "loss.gamma"}
    assert set(read) - set(figures) <= unused


@pytest.mark.parametrize(
    ("name", "of", "differs"),
    [
        ("nu-clip-frozen", "nu-clip-last-block", {"model.unfreeze", "optimiser.body_rate"}),
        ("nu-clip-cross-entropy", "nu-clip-last-block", {"loss.kind", "loss.alpha"}),
        ("kvochur-convnextv2-nano-drop-path", "kvochur-convnextv2-nano", {"model.drop_path"}),
    ],
)
def test_an_ablation_differs_in_nothing_else(name, of, differs) -> None:
    own, whole = settings(load_recipe(name)), settings(load_recipe(of))
    assert {key for key in own if own[key] != whole[key]} == differs


def test_only_the_clip_papers_recipes_learn_blank_pictures() -> None:
    blank = {name for name in RECIPES if load_recipe(name).rows.unreadable == "blank"}
    assert blank == {"nu-clip-last-block", "nu-clip-frozen", "nu-clip-cross-entropy"}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pixel-convnext-tiny", {"loss.kind": "cross-entropy", "loss.class_weights": "balanced"}),
        (
            "boulanouar-convnext-tiny",
            {"loss.kind": "focal", "rows.sampler": "balanced", "predict.views": "flip"},
        ),
        ("thefangs-maxvit-base", {"loss.kind": "focal", "augment.mixup": 0.2}),
        ("ours", {"model.start": "probe", "ema.remainder": 0.01}),
        ("demo-tiny", {"model.backbone": "timm:test_convnext2", "model.weights": "random"}),
    ],
)
def test_what_is_known_of_the_others(name, what) -> None:
    assert what.items() <= settings(load_recipe(name)).items()
