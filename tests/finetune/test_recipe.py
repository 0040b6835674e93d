"""Reading recipes: defaults, faults and their one line each, changes, heads."""

import pytest
from pydantic import ValidationError

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.recipe import RECIPES, Recipe, changed, load_recipe, read_head
from archiveprobe.finetune.settings import Model

SMALL = '[model]\nbackbone = "timm:test_convnext2"\n'


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
    assert recipe.differs() == {
        "model": {"backbone": "timm:test_convnext2"},
        "schedule": {"epochs": 3},
    }
    assert changed(plain, {"schedule.epochs": 3}) == recipe


def test_by_default_nothing_special_is_on() -> None:
    plain = Recipe(name="own", model=Model(backbone="x"))
    assert (plain.loss.kind, plain.loss.alpha, plain.loss.smoothing) == ("cross-entropy", None, 0)
    assert (plain.ema.decay, plain.ema.remainder, plain.interpolate.tuned) == (None, None, ())
    assert (plain.augment.rand_augment, plain.augment.erasing, plain.augment.mixup) == (None, 0, 0)
    assert (plain.rows.unreadable, plain.rows.merged) == ("skip", False)
    assert not plain.optimiser.decay_one_dimensional


def test_a_recipe_cannot_be_changed_in_place() -> None:
    recipe = load_recipe("demo-tiny")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "[schedul]\n", r"unknown key 'schedul' in \S+ \(did you mean 'schedule'\?\)"),
        (SMALL + "[loss]\ngama = 1.0\n", r"'loss.gama' in \S+ \(did you mean 'gamma'\?\)"),
        ('[modle]\nbackbone = "x"\n', r"unknown key 'modle' in \S+ \(did you mean 'model'\?\)"),
        ("[model]\n", r"missing key 'model.backbone' in \S+: add it"),
        ("", r"missing key 'model' in \S+: add it"),
        ('name = "x"\n' + SMALL, r"unknown key 'name' in \S+: the file's name is the name"),
        (SMALL + '[loss]\nkind = "focl"\n', r"'loss.kind' in \S+: .*'focal', not 'focl'"),
        (SMALL + "[loss]\nalpha = 1.5\n", r"'loss.alpha' in \S+: .* or equal to 1, not 1.5"),
        (SMALL + "[optimiser]\nbatch = 0\n", r"'optimiser.batch' in \S+: .*equal to 1, not 0"),
        (SMALL + "[optimiser]\nbatch = true\n", r"'optimiser.batch' .* integer, not True"),
        (SMALL + "[optimiser]\nhead_rate = nan\n", r"'optimiser.head_rate' .*, not nan"),
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
        (SMALL + "[schedule]\nwarm_up = 20.0\n", r"schedule: warm_up must be shorter than epochs"),
        (SMALL + "[schedule]\nlast_rate = 0.1\n", r"last_rate must not be above"),
        (SMALL + '[schedule]\nwatch = "none"\npatience = 3\n', r"patience: nothing is watched"),
        (SMALL + "[rows]\nmerged = true\n", r"rows.merged leaves no row"),
        (SMALL + "[ema]\ndecay = 0.9\nremainder = 0.1\n", r"keep one of them"),
        (SMALL + '[loss]\nalpha = 0.7\nclass_weights = "balanced"\n', r"keep one of them"),
        (SMALL + "dropouts = [0.5, 0.3]\n", r"model: dropouts: one per hidden layer .* 1 here"),
        (SMALL + 'hidden = [8]\nstart = "probe"\n', r"the probe is linear, so leave out hidden"),
        (
            SMALL + 'unfreeze = "none"\n[interpolate]\ntuned = [0.5]\n',
            r"a frozen backbone has nothing to interpolate",
        ),
        ("[model", r"is not valid TOML: .*: mend that line"),
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
