"""Recipes as commented files, and settings of the command line instead of a recipe's own."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.recipe_file import load_recipe, override, read_head
from archiveprobe.finetune.recipe_names import RECIPES
from archiveprobe.finetune.recipe_text import settings_of

Command = Callable[..., Result]


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_printed_is_the_same_recipe(name: str, run: Command, tmp_path: Path) -> None:
    shown = run("recipe", "show", name)
    assert shown.exit_code == 0, shown.stderr
    file = tmp_path / f"{name}.toml"
    file.write_text(shown.stdout)
    assert load_recipe(str(file)) == load_recipe(name)
    assert read_head(file) == read_head(RECIPES[name])
    assert max(map(len, shown.stdout.split("seed = ")[1].splitlines())) <= 100
    # Printed again, a printed recipe is the same text.
    assert run("recipe", "show", file).stdout == shown.stdout


def test_every_key_is_there_with_its_meaning_values_and_default(run: Command) -> None:
    shown = run("recipe", "show", "nu-clip-last-block").stdout
    for setting in settings_of(load_recipe("nu-clip-last-block")):
        section, _, key = setting.key.rpartition(".")
        assert len(setting.what) > 5 and setting.what[-1] in ".;)", setting.key
        assert f"\n{key} = " in shown or f"\n# {key} =\n" in shown
        assert not section or f"\n[{section}]\n" in shown
    plain = " ".join(shown.replace("\n# ", " ").split())
    assert "of the backbone at its highest. number, above 0 and at most 1e+37; default:" in plain
    assert "default: 0.0001 lr = 1e-05" in plain
    assert 'function. one of "cross-entropy", "focal"; default: "cross-entropy" kind' in plain
    assert "at least 8 and at most 4096, or not set; default: not set size =" in plain
    assert "true or false; default: true weight_decay_exclude_1d = false" in plain
    assert "list of 4 values, each a number, at least 0 and at most 1; default: [0.0, " in plain


def test_every_default_that_is_printed_is_the_default() -> None:
    plain = Recipe.model_validate({"name": "x", "model": {"backbone": "y"}})
    for setting in settings_of(plain):
        assert setting.required or setting.default == setting.value
    assert [setting.key for setting in settings_of(plain) if setting.required] == ["model.backbone"]


def test_a_recipe_as_json(run: Command) -> None:
    shown = run("recipe", "show", "demo-tiny", "--json")
    record = json.loads(shown.stdout)
    assert record["recipe"] == "demo-tiny" and record["origin"].startswith("this project")
    settings = {entry["key"]: entry for entry in record["settings"]}
    assert settings["schedule.epochs"]["value"] == 30
    assert settings["schedule.epochs"]["default"] == 20
    assert len(settings) == len(settings_of(load_recipe("demo-tiny")))


def test_a_file_of_ones_own_without_a_head_and_with_settings(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[model]\nbackbone = "a \\"b\\"\\\\"\n')
    shown = run("recipe", "show", file, "--set", "augment.jitter=[0.1, 0, 0, 0]")
    assert shown.exit_code == 0, shown.stderr
    content = tomllib.loads(shown.stdout)
    assert content["model"]["backbone"] == 'a "b"\\'
    assert content["augment"]["jitter"] == [0.1, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "demo-tyni"], "unknown recipe 'demo-tyni' (did you mean 'demo-tiny'?)"),
        (["show", "none.toml"], "cannot read the recipe none.toml: No such file"),
        (["show", "."], "unknown recipe '.'"),
        (["show", "demo-tiny", "--set", "lr=1"], "'lr' in --set (did you mean 'optimizer.lr'?)"),
    ],
)
def test_what_cannot_be_shown_is_one_line(words: list[str], message: str, run: Command) -> None:
    shown = run("recipe", *words)
    assert shown.exit_code == 1 and not shown.stdout
    assert shown.stderr.startswith("error: ") and shown.stderr.count("\n") == 1
    assert message in shown.stderr


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("schedule.epochs=5", "schedule.epochs", 5),
        (" schedule.epochs = 5 ", "schedule.epochs", 5),
        ("optimizer.lr=1e-5", "optimizer.lr", 1e-5),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("rows.sampler=balanced", "rows.sampler", "balanced"),
        ('rows.sampler="balanced"', "rows.sampler", "balanced"),
        ("model.backbone=timm:test_vit", "model.backbone", "timm:test_vit"),
        ("model.unfreeze=none", "model.unfreeze", "none"),
        ("model.size=none", "model.size", None),
        ("predict.calibrate=false", "predict.calibrate", False),
        ("augment.crop_scale=[0.5, 1]", "augment.crop_scale", [0.5, 1.0]),
        ("seed=7", "seed", 7),
    ],
)
def test_a_setting_is_toml_or_plain_text(text: str, key: str, value: object) -> None:
    recipe, forms = override(load_recipe("demo-tiny"), [text])
    assert {entry.key: entry.value for entry in settings_of(recipe)}[key] == value
    # Given back as it is recorded, it says the same.
    assert override(load_recipe("demo-tiny"), forms) == (recipe, forms)


def test_settings_are_part_of_the_name_in_one_order() -> None:
    plain = load_recipe("demo-tiny")
    both = ["schedule.epochs=5", "augment.crop_scale=[0.5,1]"]
    recipe, forms = override(plain, both)
    assert override(plain, both[::-1]) == (recipe, forms)
    assert recipe.name == "demo-tiny+augment.crop_scale=0.5,1.0+schedule.epochs=5"
    assert override(plain, [])[0].name == "demo-tiny"
    assert override(plain, ["schedule.epochs=30"])[0].name == "demo-tiny+schedule.epochs=30"
    assert override(plain, ["model.backbone=timm:x y/z"])[0].name == (
        "demo-tiny+model.backbone=timm-x-y-z"
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["schedule.epochs"], "'schedule.epochs' is no KEY=VALUE"),
        (["=5"], "'=5' is no KEY=VALUE"),
        (["seed=1", "seed=2"], "'seed=2' is set twice"),
        (["schedule.epochs=0"], "wrong value for 'schedule.epochs' in --set"),
        (["schedule.epochs=5\nseed=2"], "wrong value for 'schedule.epochs' in --set"),
        (["seed=none"], "wrong value for 'seed' in --set"),
        (["seed.x=1"], "wrong value for 'seed' in --set"),
        (["model=clip"], "wrong value for 'model' in --set: it is a section, not 'clip'"),
        (["schedule.warmup=99"], "schedule: warmup = 99 must be less than epochs = "),
        (["name=x"], "unknown key 'name' in --set"),
        (["a.b.c.d=1"], "unknown key 'a' in --set"),
        ([".=1"], "unknown key '' in --set"),
        (["model.backbone=" + "x" * 200], "so many settings cannot be part of a system's name"),
    ],
)
def test_a_setting_at_fault_is_one_line(
    texts: list[str], message: str, fault_of: Callable[..., str]
) -> None:
    fault_of(lambda: override(load_recipe("demo-tiny"), texts), message)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("lr = 1e-4\n[model]\nbackbone = 'x'", "'optimizer.lr'"),
        ("[model]\nbackbone = 'x'\n[schedule]\nlr = 1e-4", "'optimizer.lr'"),
        ("[model]\nbackbone = 'x'\nlearning_rate = 1e-4", "'optimizer.lr'"),
        ("[model]\nbackbone = 'x'\n[optimizer]\nwd = 1e-4", "'optimizer.weight_decay'"),
        ("epochs = 3\n[model]\nbackbone = 'x'", "'schedule.epochs'"),
        ("backbone = 'x'", "'model.backbone'"),
        ("[optimiser]\nlr = 1.0\n[model]\nbackbone = 'x'", "'optimizer'"),
        ("kind = 'focal'\n[model]\nbackbone = 'x'", "'loss.kind' or 'optimizer.kind' or"),
    ],
)
def test_an_unknown_key_names_the_nearest_of_all_sections(
    text: str, hint: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=f"did you mean {hint}"):
        load_recipe(str(file))
