"""The training loop: rows become a trained state, epoch by epoch, resumable."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import keep_freed_memory, memory_for
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import first_few
from archiveprobe.embed.arithmetic import computing_on
from archiveprobe.embed.augment import seeded
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.finetune import inference
from archiveprobe.finetune.augment import as_floats, mix, mixup_share
from archiveprobe.finetune.checkpoint import Checkpoints, random_states, set_random_states
from archiveprobe.finetune.checkpoint_writer import CheckpointWriter
from archiveprobe.finetune.forward import ForwardPasses, computing_at
from archiveprobe.finetune.loader import Batch, BatchSampler, InputRows, training_batches
from archiveprobe.finetune.losses import make_loss, soft_targets
from archiveprobe.finetune.mixing import State, choose_mixture, mixture_of, update_batch_norms
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.optimizer import make_average, make_learning_rates, make_optimizer
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.split import Part

if TYPE_CHECKING:
    import torch

# To look at every loss at once would let a GPU wait for the host in every step.
_LOSSES_AT_ONCE = {"cpu": 1, "cuda": 32, "mps": 32}
_MEMORY_REMEDY = (
    "free some and run the same command again, which goes on from the last state it kept; or set "
    "optimizer.micro_batch, or lower optimizer.batch_size or model.size, by --set, which trains "
    "another system from the start"
)


@dataclass(frozen=True)
class TrainingData:
    """The inputs, classes (n,) and ids (n,) of the labelled rows, and the part of them to train on.

    Labels of rows in `part.held_out` are not looked at.
    """

    inputs: InputRows
    labels: np.ndarray
    ids: np.ndarray
    classes: int
    positive: int
    part: Part


@dataclass(frozen=True)
class Stop:
    """When a final fit stops and how much of the tuning it keeps, as found on the folds before."""

    epochs: int
    alpha: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One epoch, counted from 1: the mean loss of its rows, macro-F1 on the validation rows (None
    without), the head's last learning rate.
    """

    epoch: int
    loss: float
    macro_f1: float | None
    lr: float


@dataclass(frozen=True)
class Trained:
    """A finished training: the merged state of what was trained, the epoch it comes from (from 1),
    all epochs, the share of tuned weights if mixtures were tried, and the seconds.
    """

    state: State
    epoch: int
    history: list[Epoch]
    alpha: float | None
    seconds: float


def train(
    network: Network,
    data: TrainingData,
    recipe: Recipe,
    *,
    stop: Stop | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    notify: Notify = lambda _: None,
) -> Trained:
    """Train a network, which holds the kept state afterwards, in eval mode.

    With `checkpoints` a state is kept a minute after the one before, and a run goes on from the
    last one. `on_epoch` is called for every epoch, for those before too. With `precision` "bf16"
    networks train, and are rated, under autocast; their weights stay in fp32.

    Raises:
        InputError: a loss that is no number (step and images are named), too little memory,
            checkpoints of other settings or that cannot be written.
    """
    import torch

    initial = network.state(whole=False) if recipe.interpolate.alphas else {}
    if device == "cpu":
        keep_freed_memory()
    # The thread that pins memory starts a context on the current GPU. Gradients are computed in
    # threads of torch's, so how fp32 is multiplied is set around the whole training.
    # Dropout and stochastic depth draw from the global generators, which others use as well.
    kind, gpus = device.partition(":")[0], [] if device == "cpu" else [torch.device(device)]
    with torch.random.fork_rng(devices=gpus, device_type=kind), computing_on(device):
        torch.manual_seed(int(seeded("train", recipe.seed).integers(2**62)))
        trainer = Trainer(network.to(device), data, recipe, stop, device, precision, notify)
        if checkpoints is not None:
            trainer.resume(checkpoints.load())
        if trainer.history:
            notify(f"{data.part.name}: goes on after epoch {len(trainer.history)}")
        for epoch in trainer.history:
            on_epoch(epoch)
        batches = training_batches(
            data.inputs, trainer.sampler(), workers=workers, pin=kind == "cuda", notify=notify
        )
        with closing(batches), CheckpointWriter(checkpoints) as writer:
            while not trainer.is_over():
                epoch = trainer.train_epoch(batches)
                writer.offer(epoch.epoch, trainer.state_dict)
                on_epoch(epoch)
    kept = trainer.state() if trainer.best is None else trainer.best
    network.load_state(kept)
    alpha = None
    if recipe.interpolate.alphas:
        alpha, mixture = trainer.interpolate(initial, kept)
        network.load_state(mixture)
    kept_epoch = trainer.best_epoch or len(trainer.history)
    state = network.eval().merged_state()
    return Trained(state, kept_epoch, trainer.history, alpha, trainer.seconds)


class Trainer:
    """A network in training, with all that changes along the way.

    `best` is the state of the best epoch by what the recipe monitors, None without one yet.
    """

    def __init__(
        self,
        network: Network,
        data: TrainingData,
        recipe: Recipe,
        stop: Stop | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        notify: Notify = lambda _: None,
    ) -> None:
        import torch

        self.network, self.data, self.recipe, self.stop = network, data, recipe, stop
        self.history: list[Epoch] = []
        self.best: State | None = None
        self.best_epoch = 0
        self._best_score: float | None = None
        self.seconds = 0.0
        self._device, self._precision, self._notify = device, precision, notify
        self._passes = ForwardPasses(device, precision)
        self._losses_at_once = _LOSSES_AT_ONCE[device.partition(":")[0]]
        # On the device once; a copy from ordinary memory in every step would wait for it.
        self._y = torch.from_numpy(data.labels.astype(np.int64)).to(device)
        self.epochs = recipe.schedule.epochs if stop is None else stop.epochs
        self._steps = self.sampler().steps
        self._optimizer = make_optimizer(network.body, network.head, recipe.optimizer)
        self._set_rates = make_learning_rates(self._optimizer, recipe.schedule, self._steps)
        self._average = make_average(
            network.module, recipe.ema, recipe.schedule.epochs * self._steps
        )
        trained_labels = data.labels[data.part.train]
        self._loss = make_loss(recipe.loss, trained_labels, data.classes, data.positive, device)

    def sampler(self) -> BatchSampler:
        """Return the batches of all epochs that are left."""
        return BatchSampler(
            self.data.part.train,
            self.data.labels[self.data.part.train],
            sampler=self.recipe.rows.sampler,
            batch_size=self.recipe.optimizer.batch_size,
            seed=self.recipe.seed,
            epochs=range(len(self.history), self.epochs),
        )

    def is_over(self) -> bool:
        """Say whether there is no further epoch."""
        done, patience = len(self.history), self.recipe.schedule.patience
        impatient = self.stop is None and patience is not None
        return done >= self.epochs or (impatient and done - self.best_epoch >= (patience or 0))

    def train_epoch(self, batches: Iterator[Batch]) -> Epoch:
        """Train on the batches of one epoch, rate it, and keep its state if it is the best."""
        import torch

        started, number = time.monotonic(), len(self.history)
        self.network.train()
        trained: list[list[int]] = []
        losses: list[float] = []
        waiting: list[torch.Tensor] = []
        lr = 0.0
        for step, (draws, inputs) in enumerate(islice(batches, self._steps)):
            lr = self._set_rates(number * self._steps + step)
            trained.append([draw.row for draw in draws])
            with memory_for(
                f"with batches of {self.recipe.optimizer.batch_size} on {self._device}",
                _MEMORY_REMEDY,
            ):
                waiting.append(self.train_step(trained[-1], inputs, number, step))
            if len(waiting) == self._losses_at_once or step + 1 == self._steps:
                losses += self._check_losses(waiting, trained, number)
                waiting.clear()
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            what = f"the weights are no numbers after step {(number + 1) * self._steps}"
            raise self._diverged(what, trained[-1])
        score = None
        if self.stop is None and len(self.data.part.validation):
            with memory_for(f"rating epoch {number + 1} on {self._device}", _MEMORY_REMEDY):
                score = self.validate(self._averaged())
        sizes = [len(rows) for rows in trained]
        mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        epoch = Epoch(number + 1, mean, score, lr)
        self.history.append(epoch)
        self._keep_best(epoch)
        self.seconds += time.monotonic() - started
        return epoch

    def train_step(
        self, rows: list[int], inputs: "torch.Tensor", epoch: int, step: int
    ) -> "torch.Tensor":
        """Take one step on a batch of rows; return its loss, which stays on the device."""
        import torch

        recipe = self.recipe
        share = mixup_share(recipe.augment.mixup, recipe.seed, epoch, step)
        # Memory is pinned for CUDA only: elsewhere such a copy may read what is freed.
        pinned = self._device.startswith("cuda")
        inputs = inputs.to(self._device, non_blocking=pinned)
        inputs = mix(as_floats(inputs, self.network.preprocess), share)
        places = torch.tensor(rows)
        places = places.pin_memory() if pinned else places
        y = self._y[places.to(self._device, non_blocking=pinned)]
        targets = soft_targets(y, self.data.classes, recipe.loss.label_smoothing, share)
        self._optimizer.zero_grad()
        loss = self._backward(inputs, targets)
        if recipe.optimizer.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(
                self.network.parameters(), recipe.optimizer.clip_grad_norm
            )
        self._optimizer.step()
        if self._average is not None:
            self._average.update(self.network.module)
        return loss

    def _backward(self, inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Add up the gradients of a batch, `micro_batch` rows at a time; return its loss.

        Every piece is divided by what the whole batch would be, so the pieces' sum is its loss.
        """
        import torch

        pieces = ceil(len(inputs) / (self.recipe.optimizer.micro_batch or len(inputs)))
        losses = []
        # Even ones: of nine rows in passes of eight, BatchNorm would learn from a single one.
        split = zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
        for some, wanted in split:
            with computing_at(self._device, self._precision), _rows_for_norms():
                logits = self.network(some)
            loss = self._loss(logits.float(), wanted, whole=targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def validate(self, network: Network) -> float:
        """Return macro-F1 of a network on the validation rows, through the centre view alone."""
        before = self._passes.size
        score = rate(network, self.data, self.recipe, self._passes)
        if self._passes.size < before:
            self._notify(
                f"{self.data.part.name}: out of memory while rating: {self._passes.size} rows at a "
                "time from now on"
            )
        return score

    def interpolate(self, initial: State, tuned: State) -> tuple[float, State]:
        """Return the best mixture of initial and tuned weights, after its share of the latter.

        A final fit takes the share that was chosen on the folds before: it holds no row out.
        """

        def settle(state: State) -> State:
            self.network.load_state(state)
            update_batch_norms(
                self.network,
                self.data.inputs,
                self.data.part.train,
                inference.centre_of(view_set(self.recipe.predict.views)),
                self._passes,
            )
            return self.network.state(whole=False)

        if self.stop is not None:
            alpha = 1.0 if self.stop.alpha is None else self.stop.alpha
            return alpha, mixture_of(initial, tuned, alpha, settle)

        def score(state: State) -> float:
            self.network.load_state(state)
            return self.validate(self.network)

        return choose_mixture(initial, tuned, self.recipe.interpolate.alphas, score, settle)

    def state(self) -> State:
        """Return the weights that would predict: the average's where there is one."""
        return self._averaged().state(whole=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a checkpoint, of the trained tensors only.

        Learning rates and batches follow from the number of epochs, so nothing is kept of them.
        """
        return {
            "weights": self.network.state(whole=False),
            "average": None if self._average is None else self._averaged().state(whole=False),
            "optimizer": self._optimizer.state_dict(),
            "random": random_states(self._device),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": self._best_score,
            "seconds": self.seconds,
        }

    def resume(self, state: State | None) -> None:
        """Go on from what `state_dict` gave; None: from the start."""
        if state is None:
            return
        self.network.load_state(state["weights"], "the checkpoint")
        if self._average is not None:
            self._averaged().load_state(state["average"], "the checkpoint")
        self._optimizer.load_state_dict(state["optimizer"])
        set_random_states(state["random"], self._device)
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._best_score, self.seconds = state["best_score"], state["seconds"]

    def _averaged(self) -> Network:
        """Return the network that predicts: with the average's weights where there is one."""
        if self._average is None:
            return self.network
        return replace(self.network, module=self._average.module)

    def _keep_best(self, epoch: Epoch) -> None:
        monitor = self.recipe.schedule.monitor
        if self.stop is not None or monitor == "none":
            return
        score = epoch.macro_f1 if monitor == "macro-f1" else -epoch.loss
        if score is not None and (self._best_score is None or score > self._best_score):
            self.best, self.best_epoch, self._best_score = self.state(), epoch.epoch, score

    def _check_losses(
        self, waiting: list["torch.Tensor"], trained: list[list[int]], epoch: int
    ) -> list[float]:
        """Return the losses of the last steps, fetched from the device together."""
        import torch

        values: list[float] = torch.stack(waiting).tolist()
        for at, loss in enumerate(values, len(trained) - len(values)):
            if not np.isfinite(loss):
                step = epoch * self._steps + at + 1
                raise self._diverged(
                    f"the loss of step {step} (epoch {epoch + 1}) is {loss}", trained[at]
                )
        return values

    def _diverged(self, what: str, rows: list[int]) -> InputError:
        images = first_few(map(str, self.data.ids[rows]), 8)
        return InputError(
            f"{self.data.part.name}: {what}, with the images {images}: lower the learning rates, "
            "or give optimizer.clip_grad_norm, by --set, which trains another system; the last "
            "state before is kept"
        )


@contextmanager
def _rows_for_norms() -> Iterator[None]:
    """Say in one line that BatchNorm has one number per channel, of which it learns nothing."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "BatchNorm learns nothing from a single image of this size: by --set give "
            "optimizer.batch_size, and optimizer.micro_batch where it is set, at least 2, or a "
            "larger model.size"
        ) from None


def rate(network: Network, data: TrainingData, recipe: Recipe, passes: ForwardPasses) -> float:
    """Return macro-F1 of a network on the validation rows, through the centre view alone."""
    rows = data.part.validation
    centre = inference.centre_of(view_set(recipe.predict.views))
    logits = inference.logits_of(network.eval(), data.inputs, rows, [centre], passes)
    decision = np.nan_to_num(logits[:, 0]).argmax(-1)
    return macro_f1(data.labels[rows], decision, data.classes)
