"""Reading recipes: defaults, faults and their one line each, changes, heads."""

import tomllib

import pytest
import timm
from pydantic import ValidationError

from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import BACKBONES
from archiveprobe.finetune.recipe import Model, Recipe
from archiveprobe.finetune.recipe_file import changed, load_recipe, read_head
from archiveprobe.finetune.recipe_names import RECIPES

SMALL = '[model]\nbackbone = "timm:test_convnext2"\n'


def differs(recipe: Recipe) -> dict:
    """What differs from the defaults, nested as in a file."""
    return recipe.model_dump(mode="json", exclude_defaults=True, exclude={"name"})


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "own.toml") -> str:
        file = tmp_path / name
        file.write_text(text, "utf-8")
        return str(file)

    return write


def test_a_file_holds_what_differs_from_the_defaults(write) -> None:
    recipe = load_recipe(write(SMALL + "[schedule]\nepochs = 3\n"))
    assert recipe.name == "own"
    assert recipe.schedule.epochs == 3
    plain = Recipe(name="own", model=Model(backbone="timm:test_convnext2"))
    assert recipe.schedule.kind == plain.schedule.kind
    assert differs(recipe) == {
        "model": {"backbone": "timm:test_convnext2"},
        "schedule": {"epochs": 3},
    }
    assert changed(plain, {"schedule.epochs": 3}) == recipe


def test_by_default_nothing_special_is_on() -> None:
    plain = Recipe(name="own", model=Model(backbone="x"))
    assert (plain.loss.kind, plain.loss.alpha, plain.loss.label_smoothing) == (
        "cross-entropy",
        None,
        0,
    )
    assert (plain.ema.decay, plain.ema.remainder, plain.interpolate.alphas) == (None, None, ())
    assert (plain.augment.rand_augment, plain.augment.erasing, plain.augment.mixup) == (None, 0, 0)
    assert (plain.rows.unreadable, plain.rows.merged) == ("skip", False)
    assert plain.optimizer.weight_decay_exclude_1d


def test_a_recipe_cannot_be_changed_in_place() -> None:
    recipe = load_recipe("demo-tiny")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "[schedul]\n", r"unknown key 'schedul' in \S+ \(did you mean 'schedule'\?\)"),
        (SMALL + "[loss]\ngama = 1.0\n", r"'loss.gama' in \S+ \(did you mean 'loss.gamma'\?\)"),
        ('[modle]\nbackbone = "x"\n', r"unknown key 'modle' in \S+ \(did you mean 'model'\?\)"),
        ("[model]\n", r"missing key 'model.backbone' in \S+: add it"),
        ("", r"missing key 'model' in \S+: add it"),
        ('name = "x"\n' + SMALL, r"unknown key 'name' in \S+: the file's name is the name"),
        (
            SMALL + '[loss]\nkind = "focl"\n',
            r"loss.kind: no loss 'focl' \(did you mean 'focal'\?\)",
        ),
        (SMALL + "[loss]\nalpha = 1.5\n", r"'loss.alpha' in \S+: .* or equal to 1, not 1.5"),
        (
            SMALL + "[optimizer]\nbatch_size = 0\n",
            r"'optimizer.batch_size' in \S+: .*equal to 1, not 0",
        ),
        (
            SMALL + "[optimizer]\nbatch_size = true\n",
            r"'optimizer.batch_size' .* integer, not True",
        ),
        (SMALL + "[optimizer]\nhead_lr = nan\n", r"'optimizer.head_lr' .*, not nan"),
        (SMALL + "[augment]\ncrop_scale = [1.0, 0.8]\n", r"crop_scale: the lower end comes first"),
        (SMALL + "[augment]\ncrop_scale = [0.0, 0.8]\n", r"crop_scale: a crop has some area"),
        (SMALL + "[augment]\njitter = [0.2, 0.2, 0.2]\n", r"'augment.jitter.3' in \S+"),
        (SMALL + "[augment]\njitter = [0, 0, 0, 0.7]\n", r"jitter: hue goes from 0 to 0.5"),
        (SMALL + '[augment]\nrand_augment = "rand-x9"\n', r"'augment.rand_augment' in \S+"),
        (SMALL + '[augment]\nrand_augment = "rand-m9.5"\n', r"'augment.rand_augment' in \S+"),
        (SMALL + '[predict]\nviews = "crops5"\n', r"unknown views 'crops5' \(did you mean 'crops"),
        (
            SMALL + "[predict]\nthreshold = 0.51\n",
            r"threshold is about the softmax as it is: set calibrate = false",
        ),
        (
            SMALL + '[predict]\nthreshold = 0.51\nthreshold_rule = "grid"\ncalibrate = false\n',
            r"threshold and threshold_rule both decide: keep one of them",
        ),
        (SMALL + "[predict]\nthreshold = 51\n", r"'predict\.threshold'.*less than 1"),
        (SMALL + 'unfreeze = "none"\ndrop_path = 0.1\n', r"no block of a frozen backbone"),
        (SMALL + 'unfreeze = "last-0"\n', r'use "none", "last-block", "last-4" .* not .last-0'),
        (SMALL + 'unfreeze = "none"\ngrad_checkpointing = true\n', r"has no gradients"),
        (SMALL + 'unfreeze = "none"\nlora_rank = 4\n', r"lora_rank: the blocks to change"),
        (SMALL + "lora_alpha = 4.0\n", r"lora_alpha and lora_layers .*: set lora_rank too"),
        (SMALL + "lora_rank = 4\ndrop_path = 0.1\n", r"leave out drop_path"),
        (
            SMALL + '[predict]\nthreshold_rule = "gird"\n',
            r"no threshold rule 'gird' \(did you mean 'grid'\?\)",
        ),
        (
            SMALL + '[predict]\ncombine = "vote"\n',
            r'no threshold to find: set threshold_rule = "half"',
        ),
        (
            SMALL + '[predict]\ncombine = "vote"\nthreshold_rule = "half"\nviews = "squash"\n',
            r"needs views with a centre",
        ),
        (
            SMALL + "[schedule]\nwarmup = 20.0\n",
            r"schedule: warmup = 20 must be less than epochs = \d+; lower it \(0 is none\)",
        ),
        (SMALL + "[schedule]\nmin_lr = 0.1\n", r"min_lr must not be above"),
        (SMALL + '[schedule]\nmonitor = "none"\npatience = 3\n', r"patience: nothing is monitored"),
        (SMALL + "[rows]\nmerged = true\n", r"rows.merged leaves no row"),
        (
            SMALL + '[rows]\nmerged = true\n[schedule]\nmonitor = "none"\n'
            "[interpolate]\nalphas = [0.5]\n",
            r"rows.merged leaves no row .*, nor for interpolate.alphas",
        ),
        (SMALL + "[ema]\ndecay = 0.9\nremainder = 0.1\n", r"keep one of them"),
        (SMALL + '[loss]\nalpha = 0.7\nclass_weights = "balanced"\n', r"keep one of them"),
        (SMALL + "dropouts = [0.5, 0.3]\n", r"model: dropouts: one per hidden layer .* 1 here"),
        (
            SMALL + 'hidden = [8]\nhead_init = "probe"\n',
            r"the probe is linear, so leave out hidden",
        ),
        (
            SMALL + 'unfreeze = "none"\n[interpolate]\nalphas = [0.5]\n',
            r"a frozen backbone has nothing to interpolate",
        ),
        ("[model", r"is not valid TOML: .*: correct that line"),
    ],
)
def test_a_fault_is_one_line_with_the_key_and_the_file(write, text, message) -> None:
    with pytest.raises(InputError, match=message) as fault:
        load_recipe(write(text))
    assert "own.toml" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"'demo-tin' \(did you mean 'demo-tiny'\?\): `archiveprobe"
    ):
        load_recipe("demo-tin")


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot read the recipe \S+none.toml: No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(InputError, match=r"latin.toml is not UTF-8 text: save it as UTF-8"):
        load_recipe(str(tmp_path / "latin.toml"))


def test_a_task_file_is_no_recipe(tmp_path, fault_of) -> None:
    file = tmp_path / "task.toml"
    file.write_text('name = "mine"\nlabels = ["a", "b"]\n[images]\nroot = "."\n', "utf-8")
    fault_of(lambda: load_recipe(str(file)), f"{file} is a task file, no recipe: ", "list recipes")


def test_changes_are_checked_again() -> None:
    recipe = load_recipe("demo-tiny")
    assert changed(recipe, {"seed": 4, "model.size": 32}).model.size == 32
    assert changed(recipe, {}) == recipe
    with pytest.raises(InputError, match=r"'schedule.epoch' in recipe demo-tiny \(did you mean"):
        changed(recipe, {"schedule.epoch": 1})


def test_the_head_of_a_file(write, tmp_path) -> None:
    write("# Origin: a paper,\n#   page 3: all of it\n# Launch: run\n\n# Assumed: not the head\n")
    head = read_head(tmp_path / "own.toml")
    assert (head.origin, head.launch) == ("a paper, page 3: all of it", "run")
    assert (head.published, head.assumed) == ("", "")


def test_names_are_files() -> None:
    assert all(path.is_file() and path.stem == name for name, path in RECIPES.items())


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
    "clip-lora",
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
    assert written == leaves(differs(load_recipe(name)))


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
    assert timm.is_model(architecture)


CLIP_PAPER = {
    "model.backbone": "clip-vit-b32",
    "model.weights": "pretrained",
    "model.size": None,
    "model.unfreeze": "last-block",
    "model.hidden": (256,),
    "model.dropouts": (0.5, 0.3),
    "model.head_init": "random",
    "loss.kind": "focal",
    "loss.alpha": 0.75,
    "loss.gamma": 2.0,
    "loss.label_smoothing": 0.0,
    "loss.class_weights": "none",
    "optimizer.head_lr": 1e-3,
    "optimizer.kind": "adamw",
    "optimizer.lr": 1e-5,
    "optimizer.weight_decay": 1e-4,
    "optimizer.weight_decay_exclude_1d": False,
    "optimizer.layer_decay": 1.0,
    "optimizer.batch_size": 32,
    "optimizer.clip_grad_norm": 1.0,
    "schedule.epochs": 30,
    "schedule.warmup": 0.0,
    "schedule.kind": "constant",
    "schedule.monitor": "training-loss",
    "schedule.patience": 5,
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
    "interpolate.alphas": (),
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
    "loss.label_smoothing": 0.2,
    "optimizer.head_lr": 2e-4,
    "optimizer.kind": "adamw",
    "optimizer.lr": 2e-4,
    "optimizer.weight_decay": 0.3,
    "optimizer.weight_decay_exclude_1d": True,
    "optimizer.batch_size": 16,
    "optimizer.clip_grad_norm": None,
    "schedule.epochs": 50,
    "schedule.warmup": 5.0,
    "schedule.warmup_start": 0.001,
    "schedule.kind": "cosine",
    "schedule.min_lr": 1e-6,
    "schedule.monitor": "macro-f1",
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
    unused = {
        "rows.inner_folds",
        "schedule.warmup_start",
        "schedule.min_lr",
        "loss.gamma",
        "rows.selection",
        "seeds.count",
        "seeds.combine",
    }
    unused |= {"optimizer.micro_batch", "model.grad_checkpointing"}
    unused |= {"model.lora_rank", "model.lora_alpha", "model.lora_layers"}
    assert set(read) - set(figures) <= unused


@pytest.mark.parametrize(
    ("name", "of", "differs"),
    [
        ("nu-clip-frozen", "nu-clip-last-block", {"model.unfreeze", "optimizer.lr"}),
        ("nu-clip-cross-entropy", "nu-clip-last-block", {"loss.kind", "loss.alpha"}),
        ("kvochur-convnextv2-nano-drop-path", "kvochur-convnextv2-nano", {"model.drop_path"}),
    ],
)
def test_an_ablation_differs_in_nothing_else(name, of, differs) -> None:
    own, whole = settings(load_recipe(name)), settings(load_recipe(of))
    assert {key for key in own if own[key] != whole[key]} == differs


def test_only_the_clip_papers_recipes_learn_blank_images() -> None:
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
        ("ours", {"model.head_init": "probe", "ema.remainder": 0.01}),
        ("demo-tiny", {"model.backbone": "timm:test_convnext2", "model.weights": "random"}),
    ],
)
def test_what_is_known_of_the_others(name, what) -> None:
    assert what.items() <= settings(load_recipe(name)).items()
