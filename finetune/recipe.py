"""Recipes: how a network is fine-tuned. A recipe file holds what differs from the defaults here.

Adding a setting is one line in its section. Adding a loss, an optimizer or a schedule is one entry
in `losses.LOSSES`, `optimizer.OPTIMIZERS` or `optimizer.SCHEDULES`; a recipe is one file in the
folder recipes/.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from archiveprobe.base.errors import InputError
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES
from archiveprobe.finetune.losses import LOSSES
from archiveprobe.finetune.optimizer import OPTIMIZERS, SCHEDULES
from archiveprobe.finetune.recipe_files import recipe_file
from archiveprobe.task.config import explain, nearest

_HEADINGS = ("Origin", "Launch", "Published", "Assumed")


def _entry_of(what: str, table: Collection[str]) -> AfterValidator:
    """Accept the names in a table, and name the nearest of them otherwise."""

    def check(name: str) -> str:
        if name not in table:
            known = ", ".join(table)
            raise ValueError(f"no {what} {name!r}{nearest(name, table)}: use one of {known}")
        return name

    return AfterValidator(check)


def _check_views(name: str) -> str:
    try:
        view_set(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


def _check_range(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the lower end comes first")
    return span


# timm's notation: magnitude, operations, its bound, increasing; probability, noise; a named set.
_RAND_AUGMENT = r"^rand(-(m|n|mmax|inc)\d{1,2}|-(p|mstd)\d+(\.\d+)?|-t(weights|3a|3aw))*$"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
# What AdamW makes of it must be a float of 32 bits.
LearningRate = Annotated[Finite, Field(gt=0, le=1e37)]
Weight = Annotated[Finite, Field(ge=0, le=1000)]
Probability = Annotated[Finite, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=65536)]
_Range = (Field(strict=False), AfterValidator(_check_range))


class Section(BaseModel):
    """A part of a recipe: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Model(Section):
    """The network: a backbone of embed/backbones, of task.toml, or `timm:NAME`, and a head.

    `weights` are those that the backbone declares, or random ones; `size` is the side of the input
    in pixels where it is not the weights' own. `unfreeze` says how much of the backbone is trained.
    `drop_path` is the share of images that skip the last block in training (stochastic depth); it
    rises from 0 at the first block in equal steps.
    The head takes the unnormalised embedding: linear, or layers of `hidden` widths with ReLU.
    `dropouts` has one share per hidden layer, after its ReLU, and a last one on the output, which
    is the only one of a linear head; without any there is none. `head_init` "probe" copies the head
    from the linear probe on the cached embeddings (LP-FT, Kumar et al. 2022).
    """

    backbone: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    unfreeze: Literal["none", "last-block", "all"] = "all"
    drop_path: Probability = 0.0
    hidden: Annotated[tuple[Width, ...], Field(strict=False)] = ()
    dropouts: Annotated[tuple[Probability, ...], Field(strict=False)] = ()
    head_init: Literal["random", "probe"] = "random"

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if self.dropouts and len(self.dropouts) != len(self.hidden) + 1:
            raise ValueError(
                f"dropouts: one per hidden layer and one on the output, {len(self.hidden) + 1} here"
            )
        if self.head_init == "probe" and self.hidden:
            raise ValueError('head_init = "probe": the probe is linear, so leave out hidden')
        if self.drop_path and self.unfreeze == "none":
            raise ValueError("drop_path: no block of a frozen backbone is skipped, so leave it out")
        return self


class Loss(Section):
    """`alpha` weighs the positive class and 1 - alpha all others, `gamma` belongs to focal loss.

    Class weights "balanced" are n / (classes x rows of the class).
    """

    kind: Annotated[str, _entry_of("loss", LOSSES)] = "cross-entropy"
    alpha: Share | None = None
    gamma: Weight = 2.0
    label_smoothing: Probability = 0.0
    class_weights: Literal["none", "balanced"] = "none"

    @model_validator(mode="after")
    def _check(self) -> "Loss":
        if self.alpha is not None and self.class_weights != "none":
            raise ValueError("alpha and class_weights both weigh the classes: keep one of them")
        return self


class Optimizer(Section):
    """The optimizer. `lr` is the backbone's learning rate at its highest, `head_lr` the head's.

    Layer k below the backbone's last has lr x layer_decay^k. With `weight_decay_exclude_1d` norms,
    biases and GRN do not decay. `clip_grad_norm` limits the norm of all gradients together.
    """

    kind: Annotated[str, _entry_of("optimizer", OPTIMIZERS)] = "adamw"
    lr: LearningRate = 1e-4
    head_lr: LearningRate = 1e-3
    weight_decay: Weight = 0.05
    weight_decay_exclude_1d: bool = True
    layer_decay: Annotated[Finite, Field(ge=0.01, le=1)] = 1.0
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    clip_grad_norm: Positive | None = None


class Schedule(Section):
    """How long to train, the course of the learning rates, and which epoch is kept.

    `warmup` is in epochs and rises in every step from `warmup_start` times the rate; a cosine then
    falls in every step to `min_lr` for the head, and to the same share of its own rate for
    everything else. `monitor` is what improves or does not: after `patience` epochs without a
    better one training ends. The best epoch is kept; the last one where nothing is monitored.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    warmup: NotNegative = 0.0
    warmup_start: Share = 0.001
    kind: Annotated[str, _entry_of("schedule", SCHEDULES)] = "cosine"
    min_lr: NotNegative = 0.0
    monitor: Literal["macro-f1", "training-loss", "none"] = "macro-f1"
    patience: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Schedule":
        if self.warmup >= self.epochs:
            raise ValueError("warmup must be shorter than epochs")
        if self.monitor == "none" and self.patience is not None:
            raise ValueError("patience: nothing is monitored, so set monitor or leave patience out")
        return self


class Augment(Section):
    """The random changes of every image in every epoch, in this order; `mixup` is per batch.

    `crop_scale` is the share of the area, `crop_ratio` width over height; "weights" is the
    interpolation that the weights declare. `flip` is a probability, `rotation` the most degrees
    either way, `jitter` the ranges of brightness, contrast, saturation and hue. `rand_augment` is
    in timm's notation, `erasing` a probability, `mixup` the alpha of its Beta distribution.
    """

    crop_scale: Annotated[tuple[Share, Share], *_Range] = (0.8, 1.0)
    crop_ratio: Annotated[tuple[Positive, Positive], *_Range] = (3 / 4, 4 / 3)
    interpolation: Literal["weights", "bilinear", "bicubic", "lanczos"] = "weights"
    flip: Share = 0.5
    rotation: Annotated[Finite, Field(ge=0, le=180)] = 0.0
    jitter: Annotated[tuple[Share, Share, Share, Share], Field(strict=False)] = (0.0, 0.0, 0.0, 0.0)
    rand_augment: Annotated[str, Field(pattern=_RAND_AUGMENT)] | None = None
    erasing: Share = 0.0
    mixup: Weight = 0.0

    @model_validator(mode="after")
    def _check(self) -> "Augment":
        if self.jitter[3] > 0.5:
            raise ValueError("jitter: hue goes from 0 to 0.5")
        if self.crop_scale[0] == 0:
            raise ValueError("crop_scale: a crop has some area, so above 0")
        return self


class Ema(Section):
    """An exponential moving average of the weights, which is then validated, saved and used.

    `decay` per step; or `remainder`, the share of the first weights that is left in the average
    after the last step, so that the decay scales with the number of steps. Neither: no average.
    """

    decay: Annotated[Finite, Field(gt=0, lt=1)] | None = None
    remainder: Annotated[Finite, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Ema":
        if self.decay is not None and self.remainder is not None:
            raise ValueError("decay and remainder say the same thing twice: keep one of them")
        return self


class Interpolate(Section):
    """WiSE-FT: shares of the fine-tuned weights, 0 to 1, tried on held-out rows; empty: none."""

    alphas: Annotated[tuple[Share, ...], Field(strict=False)] = ()


class Rows(Section):
    """`merged`: without a flag, train and validation rows are trained on together.

    `sampler` "balanced" draws every class equally often, with replacement. With `--fold` one of
    `inner_folds` grouped parts of the other folds chooses the epoch. An image that cannot be read
    is left out, or trained on and predicted as a "blank" one.
    """

    merged: bool = False
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    inner_folds: Annotated[int, Field(ge=2, le=100)] = 5
    unreadable: Literal["skip", "blank"] = "skip"


class Predict(Section):
    """The views and how they become one answer.

    "mean" averages probabilities, and `threshold_rule`, one of evaluate/thresholding, decides.
    "vote" counts the views whose probability is above 0.5; where they are even, the unmirrored
    centre view decides, and there is no threshold to find ("half"). With `calibrate` the threshold
    is found on calibrated probabilities, else on the network's own softmax. `threshold` is a fixed
    one for the positive label's share of that softmax.
    """

    views: Annotated[str, AfterValidator(_check_views)] = "center"
    combine: Literal["mean", "vote"] = "mean"
    threshold_rule: Annotated[str, _entry_of("threshold rule", THRESHOLD_RULES)] = "smoothed"
    calibrate: bool = True
    threshold: Annotated[Finite, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Predict":
        vote = self.combine == "vote"
        if self.threshold is not None:
            if vote:
                raise ValueError('threshold: combine = "vote" has none, so leave one of them out')
            if self.threshold_rule != Predict.model_fields["threshold_rule"].default:
                raise ValueError("threshold and threshold_rule both decide: keep one of them")
            if self.calibrate:
                raise ValueError("threshold is about the softmax as it is: set calibrate = false")
        if vote and self.threshold_rule != "half":
            raise ValueError(
                'combine = "vote" has no threshold to find: set threshold_rule = "half"'
            )
        centres = {view.crop for view in view_set(self.views) if not view.mirror}
        if vote and not centres & {"center", "crop-middle"}:
            raise ValueError('combine = "vote" needs views with a centre: "crops6" for instance')
        return self


class Recipe(Section):
    """A whole recipe. `name` is the file's name without its ending, `seed` the random seed."""

    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: Model
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    ema: Ema = Ema()
    interpolate: Interpolate = Interpolate()
    rows: Rows = Rows()
    predict: Predict = Predict()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.rows.merged and self.schedule.monitor == "macro-f1":
            raise ValueError(
                'rows.merged leaves no row for monitor = "macro-f1": change one of them'
            )
        if self.schedule.min_lr > self.optimizer.head_lr:
            raise ValueError("schedule.min_lr must not be above optimizer.head_lr")
        if self.interpolate.alphas and self.model.unfreeze == "none":
            raise ValueError("interpolate.alphas: a frozen backbone has nothing to interpolate")
        return self


@dataclass(frozen=True)
class Head:
    """What the comment at the top of a recipe file says."""

    origin: str
    launch: str
    published: str
    assumed: str


def load_recipe(name: str) -> Recipe:
    """Load the recipe of that name, or the .toml file of that path.

    Raises:
        InputError: no such recipe, an unknown key, a wrong value; the nearest name is given.
    """
    file = recipe_file(name)
    try:
        content = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {file}: {error.strerror}: name another") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid TOML: {error}: correct that line") from None
    return _checked(file.stem, content, str(file))


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values, checked again: ``changed(r, {"schedule.epochs": 1})``.

    Raises:
        InputError: an unknown key or a wrong value.
    """
    content = recipe.model_dump(exclude={"name"})
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = content
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return _checked(recipe.name, content, f"recipe {recipe.name}")


def read_head(file: Path) -> Head:
    """Read the comment at the top of a recipe file; a part that is missing is empty.

    A part begins with its name and a colon and goes on until the next one.
    """
    parts: dict[str, list[str]] = {heading: [] for heading in _HEADINGS}
    current: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").rstrip()
        word, colon, rest = text.partition(":")
        if colon and word in parts:
            current, text = parts[word], rest.strip()
        current.append(text)
    return Head(*(" ".join(parts[heading]).strip() for heading in _HEADINGS))


def _checked(name: str, content: dict[str, Any], where: str) -> Recipe:
    if "name" in content:
        raise InputError(f"unknown key 'name' in {where}: the file's name is the name; remove it")
    try:
        return Recipe(name=name, **content)
    except ValidationError as error:
        # A misspelt key is the reason of a missing one.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise InputError(explain(faults[0], where, _keys_beside)) from None


def _keys_beside(place: list[str]) -> list[str]:
    """Return the valid keys of the section that holds the unknown key at `place`."""
    section: Any = Recipe
    for part in place[:-1]:
        section = section.model_fields[part].annotation
    return [name for name in section.model_fields if name != "name"]
