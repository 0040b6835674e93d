"""The sections of a recipe: what can be set, and the defaults, which are told nowhere else."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from archiveprobe.base.errors import InputError
from archiveprobe.embed.views import view_set
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES
from archiveprobe.task.config import nearest


def _views(name: str) -> str:
    try:
        view_set(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


def _rule(name: str) -> str:
    if name not in THRESHOLD_RULES:
        raise ValueError(
            f"no threshold rule {name!r}{nearest(name, THRESHOLD_RULES)}: "
            f"use one of {', '.join(THRESHOLD_RULES)}"
        )
    return name


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the lower end comes first")
    return span


# What timm reads: magnitude, operations, its bound, increasing; probability, noise; a named set.
_POLICY = r"^rand(-(m|n|mmax|inc)\d{1,2}|-(p|mstd)\d+(\.\d+)?|-t(weights|3a|3aw))*$"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Above0 = Annotated[Finite, Field(gt=0)]
From0 = Annotated[Finite, Field(ge=0)]
# What AdamW makes of it must be a float of 32 bits.
Rate = Annotated[Finite, Field(gt=0, le=1e37)]
Weight = Annotated[Finite, Field(ge=0, le=1000)]
Dropout = Annotated[Finite, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=65536)]


class Section(BaseModel):
    """Frozen, and without a key that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Model(Section):
    """The network: a backbone of embed/backbones (or of task.toml, or `timm:NAME`) and a head.

    `weights` are those that the backbone declares, or random ones; `size` is the side of the input
    in pixels where it is not the weights' own. `unfreeze` says how much of the backbone is trained.
    `drop_path` is the share of images that skip the last block in training (stochastic depth); it
    rises from 0 at the first block in equal steps.
    The head takes the unnormalised embedding: linear, or layers of `hidden` widths with ReLU.
    `dropouts` has one share per hidden layer, after its ReLU, and a last one on the output, which
    is the only one of a linear head; without any there is none. `start` "probe" copies the head
    from the linear probe on the cached embeddings (LP-FT).
    """

    backbone: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    unfreeze: Literal["none", "last-block", "all"] = "all"
    drop_path: Dropout = 0.0
    hidden: Annotated[tuple[Width, ...], Field(strict=False)] = ()
    dropouts: Annotated[tuple[Dropout, ...], Field(strict=False)] = ()
    start: Literal["random", "probe"] = "random"

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if self.dropouts and len(self.dropouts) != len(self.hidden) + 1:
            raise ValueError(
                f"dropouts: one per hidden layer and one on the output, {len(self.hidden) + 1} here"
            )
        if self.start == "probe" and self.hidden:
            raise ValueError('start = "probe": the probe is linear, so leave out hidden')
        if self.drop_path and self.unfreeze == "none":
            raise ValueError("drop_path: no block of a frozen backbone is skipped, so leave it out")
        return self


class Loss(Section):
    """`alpha` weighs the positive class and 1 - alpha all others, `gamma` belongs to focal loss.

    Class weights "balanced" are n / (classes x rows of the class).
    """

    kind: Literal["cross-entropy", "focal"] = "cross-entropy"
    alpha: Share | None = None
    gamma: Weight = 2.0
    smoothing: Dropout = 0.0
    class_weights: Literal["none", "balanced"] = "none"

    @model_validator(mode="after")
    def _check(self) -> "Loss":
        if self.alpha is not None and self.class_weights != "none":
            raise ValueError("alpha and class_weights both weigh the classes: keep one of them")
        return self


class Optimiser(Section):
    """AdamW: rates at their highest. Layer k below the backbone's last has rate x layer_decay^k.

    `decay_one_dimensional` lets weight decay also reach norms, biases and GRN.
    """

    head_rate: Rate = 1e-3
    body_rate: Rate = 1e-4
    weight_decay: Weight = 0.05
    decay_one_dimensional: bool = False
    layer_decay: Annotated[Finite, Field(ge=0.01, le=1)] = 1.0
    batch: Annotated[int, Field(ge=1, le=65536)] = 32
    gradient_norm: Above0 | None = None


class Schedule(Section):
    """How long, at which share of the rates, and which epoch is kept.

    `warm_up` is in epochs and rises in every step from `warm_up_start` times the rate; the cosine
    then falls in every step to `last_rate` for the head, and to the same share of its own rate for
    everything else. `watch` is what improves or does not: after `patience` epochs without
    a better one training ends. With `restore_best` the best epoch is kept, else the last.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    warm_up: From0 = 0.0
    warm_up_start: Share = 0.001
    kind: Literal["constant", "cosine"] = "cosine"
    last_rate: From0 = 0.0
    watch: Literal["macro-f1", "training-loss", "none"] = "macro-f1"
    patience: Annotated[int, Field(ge=1)] | None = None
    restore_best: bool = True

    @model_validator(mode="after")
    def _check(self) -> "Schedule":
        if self.warm_up >= self.epochs:
            raise ValueError("warm_up must be shorter than epochs")
        if self.watch == "none" and self.patience is not None:
            raise ValueError("patience: nothing is watched, so set watch or leave patience out")
        return self


class Augment(Section):
    """What is drawn for every image in every epoch, in this order; `mixup` mixes whole batches.

    `crop_scale` is the share of the area, `crop_ratio` width over height; "weights" is the
    interpolation that the weights declare. `flip` is a probability, `rotation` the most degrees
    either way, `jitter` the ranges of brightness, contrast, saturation and hue. `rand_augment` is
    in timm's notation, `erasing` a probability, `mixup` the alpha of its Beta distribution.
    """

    crop_scale: Annotated[tuple[Share, Share], Field(strict=False), AfterValidator(_rising)] = (
        0.8,
        1.0,
    )
    crop_ratio: Annotated[tuple[Above0, Above0], Field(strict=False), AfterValidator(_rising)] = (
        3 / 4,
        4 / 3,
    )
    interpolation: Literal["weights", "bilinear", "bicubic", "lanczos"] = "weights"
    flip: Share = 0.5
    rotation: Annotated[Finite, Field(ge=0, le=180)] = 0.0
    jitter: Annotated[tuple[Share, Share, Share, Share], Field(strict=False)] = (0.0, 0.0, 0.0, 0.0)
    rand_augment: Annotated[str, Field(pattern=_POLICY)] | None = None
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
    """A running average of the weights, which is then validated, saved and used.

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
    """WiSE-FT: shares of the tuned weights, 0 to 1, tried on held-out rows; none tried if empty."""

    tuned: Annotated[tuple[Share, ...], Field(strict=False)] = ()


class Rows(Section):
    """`merged`: without a flag, train and validation are learnt together and nothing is held out.

    `sampler` "balanced" draws every class equally often, with replacement. With `--fold` one of
    `inner` grouped parts of the other folds chooses the epoch. An image that cannot be read is
    left out, or learnt and predicted as a "blank" one.
    """

    merged: bool = False
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    inner: Annotated[int, Field(ge=2, le=100)] = 5
    unreadable: Literal["skip", "blank"] = "skip"


class Predict(Section):
    """The views and how they become one answer.

    "mean" averages probabilities, and `threshold_rule`, one of evaluate/thresholding, decides.
    "vote" counts the views whose probability is above 0.5; where they are even, the unmirrored
    centre view decides, and there is no threshold to find ("half"). With `calibrate` the threshold
    is found on calibrated probabilities, else on the network's own softmax. `threshold` is one that
    is not found here but taken over, for the positive label's share of that softmax.
    """

    views: Annotated[str, AfterValidator(_views)] = "center"
    combine: Literal["mean", "vote"] = "mean"
    threshold_rule: Annotated[str, AfterValidator(_rule)] = "smoothed"
    calibrate: bool = True
    threshold: Annotated[Finite, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Predict":
        if self.threshold is not None and self.combine == "vote":
            raise ValueError('threshold: combine = "vote" has none, so leave one of them out')
        if (
            self.threshold is not None
            and self.threshold_rule != Predict.model_fields["threshold_rule"].default
        ):
            raise ValueError("threshold and threshold_rule both decide: keep one of them")
        if self.threshold is not None and self.calibrate:
            raise ValueError("threshold is about the softmax as it is: set calibrate = false")
        if self.combine == "vote" and self.threshold_rule != "half":
            raise ValueError(
                'combine = "vote" has no threshold to find: set threshold_rule = "half"'
            )
        centres = {view.crop for view in view_set(self.views) if not view.mirror}
        if self.combine == "vote" and not centres & {"center", "crop-middle"}:
            raise ValueError('combine = "vote" needs views with a centre: "crops6" for instance')
        return self
