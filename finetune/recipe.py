"""Recipes: how a network is fine-tuned. A recipe file holds what differs from the defaults here.

Adding a setting is one field in its section; `archiveprobe recipe show` prints its description.
Adding a loss, an optimizer or a schedule is one entry in `losses.LOSSES`, `optimizer.OPTIMIZERS` or
`optimizer.SCHEDULES`.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from archiveprobe.base.errors import InputError
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES
from archiveprobe.finetune.losses import LOSSES
from archiveprobe.finetune.optimizer import OPTIMIZERS, SCHEDULES
from archiveprobe.finetune.recipe_values import (
    Finite,
    LearningRate,
    NotNegative,
    Positive,
    Probability,
    Section,
    Share,
    Weight,
    Width,
    entry_of,
)


def _check_views(name: str) -> str:
    try:
        view_set(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


def _check_unfreeze(name: str) -> str:
    if not re.fullmatch(r"none|all|last-block|last-[1-9]\d{0,3}", name):
        raise ValueError(
            f'use "none", "last-block", "last-4" (or any other number) or "all", not {name!r}'
        )
    return name


def _check_range(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the lower end comes first")
    return span


# timm's notation: magnitude, operations, its bound, increasing; probability, noise; a named set.
_RAND_AUGMENT = r"^rand(-(m|n|mmax|inc)\d{1,2}|-(p|mstd)\d+(\.\d+)?|-t(weights|3a|3aw))*$"

_Range = (Field(strict=False), AfterValidator(_check_range))


class Model(Section):
    """The network: a backbone and a head, which takes the unnormalised embedding."""

    backbone: Annotated[str, Field(min_length=1)] = Field(
        description="One of `archiveprobe list backbones`, of task.toml, or `timm:NAME`."
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained",
        description="Weights to start from: those the backbone declares, or random.",
    )
    size: Annotated[int, Field(ge=8, le=4096)] | None = Field(
        default=None, description="Side of the input in pixels, where it is not the weights' own."
    )
    unfreeze: Annotated[str, AfterValidator(_check_unfreeze)] = Field(
        default="all",
        description='How much of the backbone is trained: "none", "last-block", "last-4" or any '
        'other number of blocks, counted over all stages from the output, or "all".',
    )
    lora_rank: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="Rank r of what the linear layers of these blocks learn instead of their "
        "weights, W + (lora_alpha / r) B A (LoRA, Hu et al. 2021); not set: the blocks themselves.",
    )
    lora_alpha: Positive | None = Field(
        default=None, description="Alpha of that sum; not set: lora_rank, so that its share is 1."
    )
    lora_layers: Literal["attention", "mlp", "both"] = Field(
        default="both", description="Which linear layers of a block learn so."
    )
    grad_checkpointing: bool = Field(
        default=False,
        description="Whether activations are computed again on the way back instead of kept: less "
        "memory, a third more time, the same gradients.",
    )
    drop_path: Probability = Field(
        default=0.0,
        description="Share of images that skip the last block in training (stochastic depth); it "
        "rises from 0 at the first block in equal steps.",
    )
    hidden: Annotated[tuple[Width, ...], Field(strict=False)] = Field(
        default=(),
        description="Widths of the head's hidden layers, each with ReLU; empty: a linear head.",
    )
    dropouts: Annotated[tuple[Probability, ...], Field(strict=False)] = Field(
        default=(),
        description="Dropout after each hidden layer's ReLU and on the output, which is the only "
        "one of a linear head; empty: none.",
    )
    head_init: Literal["random", "probe"] = Field(
        default="random",
        description='"probe" copies the head from the linear probe on the cached embeddings '
        "(LP-FT, Kumar et al. 2022).",
    )

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
        if self.grad_checkpointing and self.unfreeze == "none":
            raise ValueError("grad_checkpointing: a frozen backbone has no gradients")
        if self.lora_rank is None:
            if self.lora_alpha is not None or self.lora_layers != "both":
                raise ValueError("lora_alpha and lora_layers are about LoRA: set lora_rank too")
        elif self.unfreeze == "none" or self.drop_path:
            raise ValueError(
                'lora_rank: the blocks to change are those of unfreeze, so not "none", and they '
                "stay whole, so leave out drop_path"
            )
        return self

    @property
    def last_blocks(self) -> int | None:
        """Return how many blocks are trained; None where it is none or all of the backbone."""
        _, _, count = self.unfreeze.partition("-")
        return (1 if count == "block" else int(count)) if count else None

    @property
    def trains_everything(self) -> bool:
        """Return whether every weight is trained, so that a state holds the whole network."""
        return self.unfreeze == "all" and self.lora_rank is None


class Loss(Section):
    """What training makes small."""

    kind: Annotated[str, *entry_of("loss", LOSSES)] = Field(
        default="cross-entropy", description="Loss function."
    )
    alpha: Share | None = Field(
        default=None, description="Weight of the positive class; 1 - alpha is that of all others."
    )
    gamma: Weight = Field(default=2.0, description="Focus of the focal loss on hard rows.")
    label_smoothing: Probability = Field(
        default=0.0, description="Share given to all classes alike."
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description='"balanced" weighs a class with n / (classes x rows of the class).',
    )

    @model_validator(mode="after")
    def _check(self) -> "Loss":
        if self.alpha is not None and self.class_weights != "none":
            raise ValueError("alpha and class_weights both weigh the classes: keep one of them")
        return self


class Optimizer(Section):
    """How weights follow their gradients."""

    kind: Annotated[str, *entry_of("optimizer", OPTIMIZERS)] = Field(
        default="adamw", description="Optimizer."
    )
    lr: LearningRate = Field(
        default=1e-4, description="Learning rate of the backbone at its highest."
    )
    head_lr: LearningRate = Field(
        default=1e-3, description="Learning rate of the head at its highest."
    )
    weight_decay: Weight = Field(default=0.05, description="Decay of the weights.")
    weight_decay_exclude_1d: bool = Field(
        default=True, description="Whether norms, biases and GRN do not decay."
    )
    layer_decay: Annotated[Finite, Field(ge=0.01, le=1)] = Field(
        default=1.0, description="Layer k below the backbone's last has lr x layer_decay^k."
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=32, description="Images of one step."
    )
    micro_batch: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None,
        description="Images of one pass, whose gradients are added up to a step: for small cards. "
        "The same numbers up to rounding where no BatchNorm is trained; none: all of a step.",
    )
    clip_grad_norm: Positive | None = Field(
        default=None, description="Limit of the norm of all gradients together."
    )


class Schedule(Section):
    """How long to train, the course of the learning rates, and which epoch is kept."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=20, description="Times that every row is trained on, at most."
    )
    warmup: NotNegative = Field(
        default=0.0, description="Epochs in which the rates rise, in every step, to their highest."
    )
    warmup_start: Share = Field(
        default=0.001, description="Share of the rate at which warm-up starts."
    )
    kind: Annotated[str, *entry_of("schedule", SCHEDULES)] = Field(
        default="cosine",
        description="Course of the rates after warm-up; a cosine falls in every step.",
    )
    min_lr: NotNegative = Field(
        default=0.0,
        description="The head's rate at the end of a cosine; everything else falls to the same "
        "share of its own rate.",
    )
    monitor: Literal["macro-f1", "training-loss", "none"] = Field(
        default="macro-f1",
        description="What chooses the epoch that is kept; the last one where nothing is monitored.",
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Epochs without a better one after which training ends."
    )

    @model_validator(mode="after")
    def _check(self) -> "Schedule":
        if self.warmup >= self.epochs:
            raise ValueError(
                f"warmup = {self.warmup:g} must be less than epochs = {self.epochs}; lower it "
                "(0 is none)"
            )
        if self.monitor == "none" and self.patience is not None:
            raise ValueError("patience: nothing is monitored, so set monitor or leave patience out")
        return self


class Augment(Section):
    """The random changes of every image in every epoch, in this order; mixup is per batch."""

    crop_scale: Annotated[tuple[Share, Share], *_Range] = Field(
        default=(0.8, 1.0), description="Range of the crop's share of the area."
    )
    crop_ratio: Annotated[tuple[Positive, Positive], *_Range] = Field(
        default=(3 / 4, 4 / 3), description="Range of the crop's width over height."
    )
    interpolation: Literal["weights", "bilinear", "bicubic", "lanczos"] = Field(
        default="weights", description='"weights" is the interpolation that the weights declare.'
    )
    flip: Share = Field(default=0.5, description="Probability of a mirrored image.")
    rotation: Annotated[Finite, Field(ge=0, le=180)] = Field(
        default=0.0, description="The most degrees either way."
    )
    jitter: Annotated[tuple[Share, Share, Share, Share], Field(strict=False)] = Field(
        default=(0.0, 0.0, 0.0, 0.0),
        description="Ranges of brightness, contrast, saturation and hue; hue up to 0.5.",
    )
    rand_augment: Annotated[str, Field(pattern=_RAND_AUGMENT)] | None = Field(
        default=None,
        description='RandAugment in timm\'s notation, for example "rand-m9-mstd0.5-inc1".',
    )
    erasing: Share = Field(default=0.0, description="Probability that a rectangle becomes noise.")
    mixup: Weight = Field(default=0.0, description="Alpha of MixUp's Beta distribution; 0: none.")

    @model_validator(mode="after")
    def _check(self) -> "Augment":
        if self.jitter[3] > 0.5:
            raise ValueError("jitter: hue goes from 0 to 0.5")
        if self.crop_scale[0] == 0:
            raise ValueError("crop_scale: a crop has some area, so above 0")
        return self


class Ema(Section):
    """An exponential moving average of the weights, which is then validated, saved and used."""

    decay: Annotated[Finite, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Decay per step."
    )
    remainder: Annotated[Finite, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Instead of decay: the share of the first weights that is left after the last "
        "step, so that the decay scales with the number of steps. Neither: no average.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Ema":
        if self.decay is not None and self.remainder is not None:
            raise ValueError("decay and remainder say the same thing twice: keep one of them")
        return self


class Interpolate(Section):
    """WiSE-FT: a mixture of the first and the fine-tuned weights."""

    alphas: Annotated[tuple[Share, ...], Field(strict=False)] = Field(
        default=(),
        description="Shares of the fine-tuned weights, tried on held-out rows; empty: none.",
    )


class Rows(Section):
    """The rows that are trained on."""

    merged: bool = Field(
        default=False,
        description="Whether, without a flag, train and validation rows are trained on together.",
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        default="shuffle",
        description='"balanced" draws every class equally often, with replacement.',
    )
    inner_folds: Annotated[int, Field(ge=2, le=100)] = Field(
        default=5,
        description="With `--fold` one of so many grouped parts of the other folds chooses the "
        "epoch.",
    )
    selection: Literal["held-out", "learned"] = Field(
        default="held-out",
        description='What becomes of the rows that choose the epoch: "learned" trains again from '
        "the start, on them too, for the epochs that they chose. It takes twice as long.",
    )
    unreadable: Literal["skip", "blank"] = Field(
        default="skip",
        description="An image that cannot be read is left out, or trained on and predicted as a "
        "blank one.",
    )


class Seeds(Section):
    """Several trainings of every part, which differ in what is drawn: order, augmentation, dropout.

    They begin at the same weights, without which a mean of weights would mean nothing.
    """

    count: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="Number of trainings; their seeds count on from `seed`."
    )
    combine: Literal["mean", "soup", "greedy-soup"] = Field(
        default="mean",
        description='"mean" averages probabilities; "soup" averages weights (Wortsman et al. '
        '2022), so that one network is left; "greedy-soup" those that score no worse together on '
        "the rows that choose the epoch.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Seeds":
        if self.count == 1 and self.combine != "mean":
            raise ValueError(f'combine = "{self.combine}" needs several seeds: set seeds.count')
        return self


class Predict(Section):
    """The views and how they become one answer."""

    views: Annotated[str, AfterValidator(_check_views)] = Field(
        default="center", description="View set; see `archiveprobe list views`."
    )
    combine: Literal["mean", "vote"] = Field(
        default="mean",
        description='"mean" averages probabilities; "vote" counts the views above 0.5, and where '
        "they are even the unmirrored centre view decides.",
    )
    threshold_rule: Annotated[str, *entry_of("threshold rule", THRESHOLD_RULES)] = Field(
        default="smoothed",
        description='How the threshold is found; a vote has none to find: "half".',
    )
    calibrate: bool = Field(
        default=True,
        description="Whether it is found on calibrated probabilities, else on the network's own "
        "softmax.",
    )
    threshold: Annotated[Finite, Field(gt=0, lt=1)] | None = Field(
        default=None, description="A fixed one, for the positive label's share of that softmax."
    )

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
    """A whole recipe. `name` is the file's name without its ending."""

    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="Random seed.")
    model: Model
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    ema: Ema = Ema()
    interpolate: Interpolate = Interpolate()
    rows: Rows = Rows()
    seeds: Seeds = Seeds()
    predict: Predict = Predict()

    @model_validator(mode="after")
    def _check_selection(self) -> "Recipe":
        chosen = self.schedule.monitor == "macro-f1" or self.interpolate.alphas
        if self.rows.selection == "learned" and (self.rows.merged or not chosen):
            raise ValueError(
                'rows.selection = "learned": no row chooses anything here, so rows.merged = true '
                "learns all of them at once: leave selection out"
            )
        if self.seeds.combine == "greedy-soup" and (
            self.rows.merged or self.rows.selection == "learned"
        ):
            raise ValueError(
                'seeds.combine = "greedy-soup" needs rows that were not trained on: use "soup"'
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.rows.merged and (self.schedule.monitor == "macro-f1" or self.interpolate.alphas):
            raise ValueError(
                'rows.merged leaves no row for monitor = "macro-f1", nor for interpolate.alphas: '
                "change one of them"
            )
        if self.schedule.min_lr > self.optimizer.head_lr:
            raise ValueError("schedule.min_lr must not be above optimizer.head_lr")
        if self.interpolate.alphas and self.model.unfreeze == "none":
            raise ValueError("interpolate.alphas: a frozen backbone has nothing to interpolate")
        return self
