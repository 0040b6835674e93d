"""Learning curves while they grow, as events that TensorBoard draws."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.lesson import Epoch


@contextmanager
def curves(folder: Path | None) -> Iterator[Callable[[Epoch], None]]:
    """A function that writes epochs as events into a folder; without a folder it does nothing.

    Raises:
        InputError: tensorboard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield lambda _: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs a package that is not here: "
            "pip install -c constraints.txt -e '.[tensorboard]'"
        ) from None
    try:
        writer = SummaryWriter(str(folder))
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}: make room, run again") from None

    def draw(epoch: Epoch) -> None:
        writer.add_scalar("loss", epoch.loss, epoch.epoch)
        writer.add_scalar("rate", epoch.rate, epoch.epoch)
        if epoch.macro_f1 is not None:
            writer.add_scalar("macro-F1", epoch.macro_f1, epoch.epoch)
        writer.flush()

    try:
        yield draw
    finally:
        writer.close()
