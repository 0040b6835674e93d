"""The head of the CLIP paper on frozen embeddings: trained by torch, run by numpy."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.base import Probe, standardiser


class Mlp(Probe):
    """A perceptron with one hidden layer, its settings those of the paper.

    y = Dropout(0.3)(W2 Dropout(0.5)(ReLU(W1 f + b1)) + b2), focal loss with alpha 0.75 on the
    `positive` class (a class's place among the sorted ones, the last by default; no alpha for
    several classes) and gamma 2, AdamW, batches of 32, gradients clipped to norm 1, at most 30
    epochs, stopped after 5 without a lower training loss, the best epoch kept (Hegazy and Ragab,
    "NU_Hallucinators at NakbaArchiveClassifier Shared Task", 2026, sections 3.3 and 3.5). The paper
    feeds embeddings as they are; `standardise` scales their columns first.
    """

    name = "mlp"
    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "w1_", "b1_", "w2_", "b2_")
    mean_: np.ndarray
    scale_: np.ndarray
    w1_: np.ndarray
    b1_: np.ndarray
    w2_: np.ndarray
    b2_: np.ndarray

    def __init__(
        self,
        hidden: int = 256,
        dropout: tuple[float, float] = (0.5, 0.3),
        alpha: float = 0.75,
        gamma: float = 2.0,
        positive: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        batch: int = 32,
        epochs: int = 30,
        patience: int = 5,
        clip: float = 1.0,
        standardise: bool = False,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.alpha = alpha
        self.gamma = gamma
        self.positive = positive
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch = batch
        self.epochs = epochs
        self.patience = patience
        self.clip = clip
        self.standardise = standardise
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """A single one."""
        return [{}]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        width = x.shape[1]
        plain = np.zeros(width), np.ones(width)
        self.mean_, self.scale_ = standardiser(x) if self.standardise else plain
        rows = ((x - self.mean_) / self.scale_).astype(np.float32)
        with _one_thread():
            layers = _Training(self, rows, y).run()
        self.w1_, self.b1_, self.w2_, self.b2_ = (layer.detach().numpy() for layer in layers)

    def class_weights(self) -> np.ndarray:
        """Alpha of every class (K,), float32."""
        if self.n_classes_ > 2:
            return np.ones(self.n_classes_, np.float32)
        result = np.full(2, 1 - self.alpha, np.float32)
        result[-1 if self.positive is None else self.positive] = self.alpha
        return result

    def _logits(self, x: np.ndarray) -> np.ndarray:
        rows = (x - self.mean_) / self.scale_
        inner = np.maximum(rows @ self.w1_.T.astype(np.float64) + self.b1_, 0)
        result: np.ndarray = inner @ self.w2_.T.astype(np.float64) + self.b2_
        return result[None]

    def _width(self) -> int:
        return int(self.w1_.shape[1])


class _Training:
    """One run of training; all its chance comes from one generator of its own."""

    def __init__(self, settings: Mlp, rows: np.ndarray, y: np.ndarray) -> None:
        import torch

        self._settings = settings
        self._rows = torch.from_numpy(rows)
        self._targets = torch.from_numpy(y.astype(np.int64))
        self._alpha = torch.from_numpy(settings.class_weights())
        self._chance = torch.Generator().manual_seed(settings.seed)
        wide, inner, out = rows.shape[1], settings.hidden, settings.n_classes_
        self._layers = [
            self._uniform((inner, wide), wide),
            self._uniform((inner,), wide),
            self._uniform((out, inner), inner),
            self._uniform((out,), inner),
        ]
        self._optimiser = torch.optim.AdamW(
            self._layers, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def run(self) -> list[Any]:
        """Train to the end; the layers of the epoch with the lowest training loss."""
        best, lowest, waited = self._copy(), float("inf"), 0
        for _ in range(self._settings.epochs):
            loss = self._epoch()
            waited += 1
            if loss < lowest:
                best, lowest, waited = self._copy(), loss, 0
            if waited >= self._settings.patience:
                break
        return best

    def _uniform(self, shape: tuple[int, ...], inputs: int) -> Any:
        """A layer as torch.nn.Linear starts it, from our own generator."""
        import torch

        bound = inputs**-0.5
        drawn = torch.rand(shape, generator=self._chance) * (2 * bound) - bound
        return drawn.requires_grad_()

    def _copy(self) -> list[Any]:
        return [layer.detach().clone() for layer in self._layers]

    def _epoch(self) -> float:
        """One pass over all rows; their mean loss while training."""
        import torch

        total = 0.0
        order = torch.randperm(len(self._rows), generator=self._chance)
        for rows in torch.split(order, self._settings.batch):
            loss = self._loss(self._forward(self._rows[rows]), self._targets[rows])
            self._optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._layers, self._settings.clip)
            self._optimiser.step()
            total += float(loss.detach()) * len(rows)
        return total / len(self._rows)

    def _forward(self, rows: Any) -> Any:
        import torch

        w1, b1, w2, b2 = self._layers
        first, second = self._settings.dropout
        inner = self._drop(torch.relu(torch.addmm(b1, rows, w1.T)), first)
        return self._drop(torch.addmm(b2, inner, w2.T), second)

    def _drop(self, values: Any, share: float) -> Any:
        """Dropout; torch's own would draw from the generator of the whole process."""
        import torch

        kept = torch.rand(values.shape, generator=self._chance) >= share
        return values * kept / (1 - share)

    def _loss(self, logits: Any, targets: Any) -> Any:
        """Focal loss (Lin et al., 2017): alpha (1 - p)^gamma times -log p of the true class."""
        log_p = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
        easy = (1 - log_p.exp()) ** self._settings.gamma
        return -(self._alpha[targets] * easy * log_p).mean()


_LOCK = threading.Lock()
_INSIDE = 0
_THREADS = 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: batches this small only wait for each other.

    Folds may train side by side, so the last one out puts the number back.
    """
    import torch

    global _INSIDE, _THREADS
    with _LOCK:
        if _INSIDE == 0:
            _THREADS = torch.get_num_threads()
        _INSIDE += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE -= 1
        torch.set_num_threads(_THREADS)
