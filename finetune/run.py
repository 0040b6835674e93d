"""The fine-tuning stage: parts trained, put together into a system, written down and compared."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.progress import Progress, silent
from archiveprobe.embed.device import check_device, default_device
from archiveprobe.embed.job import Notify
from archiveprobe.embed.views import view_set
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.leaderboard import Leaderboard, leaderboard
from archiveprobe.evaluate.system_status import load_systems
from archiveprobe.finetune.alone import alone, check_system
from archiveprobe.finetune.material import How
from archiveprobe.finetune.recipe import load_recipe
from archiveprobe.finetune.report import Line, check_threshold, keep_system, line_of, write_answers
from archiveprobe.finetune.split import folds_asked
from archiveprobe.finetune.stage import FULL, MERGED, SPLIT, Stage
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task


@dataclass(frozen=True)
class Options:
    """What to train; `fold` is a number or "all", `full` the final fit on all labelled rows."""

    recipe: str
    fold: str | None = None
    full: bool = False
    from_cache: bool = False
    device: str | None = None
    workers: int | None = None
    precision: str = "fp32"
    tensorboard: bool = False


@dataclass(frozen=True)
class Finetuned:
    """What was trained: a line per part, the leaderboard if there is a system with out-of-fold
    predictions, else the file of answers for the rows to predict.
    """

    system: str
    parts: list[Line]
    board: Leaderboard | None
    answers: Path | None
    notes: list[str]
    seconds: float

    def record(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {
            "system": self.system,
            "parts": [line.record() for line in self.parts],
            "answers": None if self.answers is None else str(self.answers),
            "notes": self.notes,
            **({} if self.board is None else self.board.record()),
            "seconds": round(self.seconds, 3),
        }


def run_finetune(
    task: Task,
    options: Options,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Finetuned:
    """Train a recipe on a task; what is finished is left alone, what was killed goes on.

    Raises:
        InputError: an unknown recipe or fold, a network that cannot be built, too few rows,
            settings that have changed, or training that fails; a recipe with a system's name.
        InputError: the disk takes no more, or another process trains this system.
    """
    started = time.monotonic()
    dataset = load_dataset(task)
    recipe = load_recipe(options.recipe)
    device = options.device or default_device()
    check_device(device)
    how = How(device, options.workers, options.from_cache, options.precision, options.tensorboard)
    stage = Stage(dataset, recipe, how, notify=notify, progress=progress)
    check_system(task, recipe.name, stage.system)
    check_threshold(dataset, recipe)
    with alone(stage.folder):
        return _finetuned(stage, options, how, started, notify)


def _finetuned(
    stage: Stage, options: Options, how: How, started: float, notify: Notify
) -> Finetuned:
    dataset, recipe = stage.dataset, stage.recipe
    with stage:
        done = [stage.outcome(name) for name in _asked(stage, options)]
        folds, networks = stage.finished_folds(), stage.answering()
    views = view_set(recipe.predict.views)
    lines = [line_of(dataset, recipe, views, one) for one in done]
    board, answers, notes = None, None, []
    if len(folds) == dataset.folds and done[-1].part != SPLIT:
        made = {**how.computing, "from_cache": how.from_cache}
        keep_system(dataset, recipe, stage.system, stage.described, made, folds, networks)
        warnings, caution = data_warnings(dataset, notify)
        seconds = time.monotonic() - started
        board = leaderboard(
            load_systems(dataset), seconds=seconds, warnings=warnings, caution=caution
        )
    elif done[-1].part in (SPLIT, MERGED):
        answers = write_answers(dataset, recipe, views, done[-1])
    if answers is not None:
        words = f"archiveprobe submit {dataset.task.file} --answers {answers} -o submission.csv"
        notes.append(f"in the template's form: {words}")
    if done[-1].part == SPLIT:
        notes.append(
            "the validation rows chose the epoch, so their figure flatters; run --fold all for "
            "out-of-fold predictions, a threshold, and a line on the leaderboard"
        )
    elif done[-1].part == MERGED and board is None:
        notes.append("every labelled row is learnt, so there is no figure: run --fold all for one")
    elif board is None:
        notes.append("no system yet: --fold all trains the folds that are missing")
    return Finetuned(stage.system, lines, board, answers, notes, time.monotonic() - started)


def _asked(stage: Stage, options: Options) -> list[str]:
    """The names of the parts to train, in this order."""
    names: list[str] = []
    if options.fold is not None:
        names += [f"fold-{fold}" for fold in folds_asked(options.fold, stage.dataset)]
    if options.full:
        stage.check_folds(names)
        names.append(FULL)
    return names or [MERGED if stage.recipe.rows.merged else SPLIT]
