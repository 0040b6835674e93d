"""Learning curves for programs that draw them: TensorBoard, trackio, Weights & Biases.

Another one is an entry of TRACKERS.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line

if TYPE_CHECKING:
    from archiveprobe.base.progress import Notify
    from archiveprobe.finetune.train import Epoch


class Tracker(Protocol):
    """What takes the figures of a training."""

    def log(self, figures: dict[str, float], *, step: int) -> Any:
        """Take the figures of an epoch, which counts from 1."""

    def finish(self) -> Any:
        """End; nothing more comes."""


@dataclass(frozen=True)
class Training:
    """What is tracked: the part of a system on a task, its recipe, and the part's folder."""

    task: str
    system: str
    part: str
    recipe: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """Return the name of the run."""
        return f"{self.system}/{self.part}"


class _TensorBoard:
    def __init__(self, module: Any, training: Training) -> None:
        self._writer = module.SummaryWriter(str(training.folder / "events"))

    def log(self, figures: dict[str, float], *, step: int) -> None:
        for name, figure in figures.items():
            self._writer.add_scalar(name, figure, step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


def _start_trackio(module: Any, training: Training, **more: Any) -> Any:
    return module.init(
        project=training.task,
        name=training.name,
        group=training.system,
        config=dict(training.recipe),
        **more,
    )


def _start_wandb(module: Any, training: Training) -> Any:
    return _start_trackio(
        module,
        training,
        dir=str(training.folder),
        # Nothing leaves the machine unless the user has said so.
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings={"silent": True, "console": "off"},
    )


@dataclass(frozen=True)
class _Kind:
    module: str
    package: str
    start: Callable[[Any, Training], Tracker]


TRACKERS: Mapping[str, _Kind] = MappingProxyType(
    {
        "tensorboard": _Kind(
            "torch.utils.tensorboard", "'archiveprobe[tensorboard]'", _TensorBoard
        ),
        "trackio": _Kind("trackio", "trackio", _start_trackio),
        "wandb": _Kind("wandb", "'archiveprobe[tracking]'", _start_wandb),
    }
)


def check_trackers(names: Sequence[str]) -> None:
    """Check, before anything is trained, that these can be loaded.

    Raises:
        InputError: one is not installed; the message says what to install.
    """
    for name in names:
        _load(name)


@contextmanager
def tracking(
    names: Sequence[str], training: Training, notify: "Notify"
) -> Iterator[Callable[["Epoch"], None]]:
    """Yield a function that gives epochs to trackers.

    A tracker that fails later costs its curves, not the training: `notify` is told.

    Raises:
        InputError: one is not installed, or cannot start.
    """
    trackers: dict[str, Tracker] = {}

    def each(action: Callable[[Tracker], Any]) -> None:
        for name, tracker in list(trackers.items()):
            try:
                # Some print there, where the result belongs.
                with redirect_stdout(sys.stderr):
                    action(tracker)
            except Exception as error:
                del trackers[name]
                notify(f"{training.part}: {name} takes no more figures ({_reason(error)})")

    def draw(epoch: "Epoch") -> None:
        known = {"loss": epoch.loss, "lr": epoch.lr, "macro-F1": epoch.macro_f1}
        figures = {name: figure for name, figure in known.items() if figure is not None}
        each(lambda tracker: tracker.log(figures, step=epoch.epoch))

    try:
        for name in names:
            trackers[name] = _start(name, training)
        yield draw
    finally:
        each(lambda tracker: tracker.finish())


def _start(name: str, training: Training) -> Tracker:
    module = _load(name)
    try:
        with redirect_stdout(sys.stderr):
            return TRACKERS[name].start(module, training)
    except Exception as error:
        raise InputError(
            f"{name} cannot start for {training.name} ({_reason(error)}): correct that, or leave "
            f"out --track {name}"
        ) from None


def _load(name: str) -> Any:
    kind = TRACKERS[name]
    try:
        return import_module(kind.module)
    except ImportError:
        raise InputError(
            f"--track {name} needs a package that is not here: pip install {kind.package}"
        ) from None


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error, 200) or type(error).__name__
