"""The finetune command: parts trained, put together into a system, written down and compared."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import NAME, Lock
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import shell_path
from archiveprobe.embed.device import check_device
from archiveprobe.evaluate.combine import METHODS
from archiveprobe.evaluate.corrected_labels import leaderboard_of
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.leaderboard import SELECTION, Leaderboard
from archiveprobe.evaluate.system_status import FROM_CACHE, load_current
from archiveprobe.evaluate.system_store import check_name
from archiveprobe.finetune.recipe_file import load_recipe, override
from archiveprobe.finetune.recipe_run import Options, RecipeRun
from archiveprobe.finetune.report import KIND, Line, keep_system, line_of, write_answers
from archiveprobe.finetune.side_by_side import devices_asked, train_side_by_side
from archiveprobe.finetune.split import FULL, MERGED, SPLIT, folds_asked, name_of_fold
from archiveprobe.finetune.tracking import check_trackers
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task

__all__ = ["Finetuned", "Options", "run_finetune"]


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
        """Return the form of `--json`."""
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
            settings that have changed, training that fails, a recipe with a system's name, a full
            disk, or another process that trains this system.
    """
    started = time.monotonic()
    recipe, overrides = override(load_recipe(options.recipe), options.overrides)
    dataset = load_dataset(task)
    devices = devices_asked(options)
    if devices:
        options = replace(options, device=devices[0])
    run = RecipeRun(dataset, recipe, options, notify=notify, progress=progress)
    check_device(run.device)
    check_trackers(options.track)
    _check_system(run)
    with run_lock(run.folder), run:
        names = _parts_asked(run, options)
        if devices:
            waiting = run.untrained_folds(names)
            ways: dict[str, Any] = {"notify": notify, "progress": progress}
            train_side_by_side(task.file, recipe, options, waiting, devices, **ways)
        done = [run.part(name) for name in names]
        folds, networks = run.finished_folds(), run.answering()
        lines = [line_of(dataset, recipe, part) for part in done]
        last = done[-1]
        board, answers = None, None
        notes: list[str] = []
        if len(folds) == dataset.folds and last.name != SPLIT:
            launch = {"recipe": options.recipe, "set": overrides}
            how = {**run.fits.computing, "from_cache": options.from_cache, "launch": launch}
            how["answers_in"] = options.precision
            about = (dataset, recipe, run.system, run.fits.backbone.name, how)
            keep_system(*about, folds, networks, notes.append)
            systems, left_out = load_current(dataset, ("probe", KIND))
            warnings, caution = data_warnings(dataset, notify)
            board = leaderboard_of(
                dataset,
                systems,
                seconds=time.monotonic() - started,
                warnings=[*left_out, *warnings],
                caution=caution,
            )
        elif last.name in (SPLIT, MERGED):
            answers = write_answers(dataset, recipe, last)
        if board is None:
            notes += dataset.corrections.remarks()
        if answers is not None:
            given = f"{task.shell_path} --answers {shell_path(answers)}"
            words = f"archiveprobe submit {given} -o submission.csv"
            notes.append(f"in the template's form: {words}")
        if last.name == SPLIT and recipe.rows.selection == "held-out":
            notes.append(
                "the validation rows chose the epoch, so their figure is optimistic; run --fold "
                "all for out-of-fold predictions, a threshold, and a line on the leaderboard"
            )
        elif board is None and last.name in (SPLIT, MERGED):
            notes.append(
                "every labelled row is trained on, so there is no figure: run --fold all for one"
            )
        elif board is None:
            notes.append("no system yet: --fold all trains the folds that are missing")
    return Finetuned(run.system, lines, board, answers, notes, time.monotonic() - started)


def _parts_asked(run: RecipeRun, options: Options) -> list[str]:
    """Return the names of the parts to train, in this order."""
    names: list[str] = []
    if options.fold is not None:
        names += map(name_of_fold, folds_asked(options.fold, run.dataset))
    if options.full:
        run.check_folds(names)
        names.append(FULL)
    return names or [MERGED if run.recipe.rows.merged else SPLIT]


def _check_system(run: RecipeRun) -> None:
    """Check what would fail after hours: the system's name, and a threshold among many labels.

    Raises:
        InputError: the name is no plain folder name, another system's, or one that means something
            else; a fixed threshold has more than two labels to decide between.
    """
    task, recipe = run.dataset.task, run.recipe
    if recipe.name.endswith(FROM_CACHE) or run.system in (SELECTION, *METHODS):
        raise InputError(
            f"a recipe cannot be called {recipe.name!r}, which has another meaning: rename its file"
        )
    check_name(task, run.system, KIND)
    labels = len(run.dataset.classes)
    if recipe.predict.threshold is not None and labels > 2:
        raise InputError(
            f"predict.threshold of recipe {recipe.name} decides between two labels, and "
            f"{task.file} has {labels}: add --set predict.threshold=none"
        )


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Let one process train a system in its folder, without what killed ones left there.

    Raises:
        InputError: another process trains it, which is named; or the folder cannot be written.
    """
    with files.explained(f"write to {folder}"):
        files.make_folder(folder)
    with Lock(folder, "the run"):
        with files.explained(f"tidy {folder}"):
            for temporary in sorted(folder.rglob(f"{files.TEMPORARY}*")):
                files.remove(temporary)
        try:
            yield
        finally:
            # Where nothing was trained the folder goes. Whoever opened the lock meanwhile sees it.
            with suppress(OSError):
                if [path.name for path in folder.iterdir()] == [NAME]:
                    files.remove(folder / NAME)
                    files.remove_folder(folder)
