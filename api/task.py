"""A task in a notebook: its rows, embeddings and systems as DataFrames and arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.api.arguments import check_name, check_resources, path_of, place_of
from archiveprobe.api.state import Pinned, pin, warn
from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import resolve, text_tower
from archiveprobe.embed.view_sets import place_of_view
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.system_names import systems
from archiveprobe.task import config
from archiveprobe.task.config import load_task
from archiveprobe.task.rows import locate
from archiveprobe.task.texts import is_text_cache, text_cache

if TYPE_CHECKING:
    import pandas as pd

    from archiveprobe.evaluate.system_store import Run


def open_task(place: str | Path = ".", *, partial: bool = False) -> "Task":
    """Open the task in a folder, or of a task.toml; by default in the current folder.

    With `partial`, rows that wait for `embed` are left out, and a warning says how many.

    Raises:
        InputError: there is no task.toml, or one with a fault.

    >>> task = ap.open("my/photographs")
    >>> task.labels
    ('not_destruction', 'destruction')
    >>> ap.open("my/fotographs")
    Traceback (most recent call last):
    ...
    archiveprobe.base.errors.InputError: no task file at ...fotographs: name a task.toml, or make \
one with `archiveprobe init DIR`
    """
    return Task(load_task(path_of("place", place)), partial=partial)


class Task:
    """A task as it lies on disk, from `ap.open`.

    Every method reads task.toml and the state of the task anew, so that what changed meanwhile is
    seen. Every DataFrame names that state, its snapshot, in `.attrs["snapshot"]`; where it is
    another one than that of the answer before, a warning says so, since rows may have moved.

    >>> task.rows().attrs["snapshot"] == task.oof("greedy").attrs["snapshot"]
    True
    """

    def __init__(self, settings: config.Task, *, partial: bool = False) -> None:
        self._settings = settings
        self._partial = partial
        self._digest: str | None = None

    def __repr__(self) -> str:
        return f"Task({str(self.file)!r})"

    @property
    def file(self) -> Path:
        """Return the path of task.toml."""
        return self._settings.file

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels, in the order of every column `p_<label>`."""
        self._settings = load_task(self.file)
        return self._settings.labels

    def rows(self, *, repeat: int = 0) -> "pd.DataFrame":
        """Return one row per row of the table, in its order.

        id, path (below the root of the images), label (categorical, missing in rows to predict),
        split, text, group and fold (of labelled rows, in one `repeat` of the folds), digest of the
        image, and what `embed` saw of it: status, detail, bytes, width and height in pixels,
        format, and so on.

        Raises:
            InputError: nothing is embedded yet, rows wait for `embed`, or a file is damaged.

        >>> rows = task.rows()
        >>> rows[["id", "label", "fold", "status"]].tail(2)
                                        id            label  fold status
        98         agency/street-view-0073.jpg      destruction     3     ok
        99  telegram/photo_2023-11-05_0005.jpg  not_destruction     1     ok
        >>> rows[rows.status != "ok"].status.tolist()
        ['html_not_image', 'truncated']
        """
        from archiveprobe.api.frames import rows_frame

        pinned = self._pin()
        return self._named(rows_frame(pinned, repeat), pinned)

    def files(self) -> list[Path]:
        """Return the file of every row, in the order of `rows()`; some may be missing.

        Raises:
            InputError: as `rows`.

        >>> task.files()[0].is_file()
        True
        """
        return [locate(self._settings.root, row.path) for row in self._pin().rows]

    def embeddings(self, backbone: str, view: str | None = "mean") -> np.ndarray:
        """Return the embeddings of a backbone, in the order of `rows()`.

        Args:
            backbone: a name in `embed.backbones` of task.toml; "<name>-text" are the captions.
            view: "mean" averages the views of an image; the name of a view, such as "center" or
                "crop-first-mirrored", takes that one; None (or "all") takes every view.

        Returns:
            (n, width) float32, or (n, views, width) for all views; unnormalised, as the backbone
            gives them. Rows of images that cannot be read are NaN.

        Raises:
            InputError: nothing is embedded through that backbone, or not to its end; no such view.

        >>> task.embeddings("hog").shape, task.embeddings("hog", view=None).shape
        ((100, 1860), (100, 2, 1860))
        >>> task.embeddings("hog", view="mirrored")
        Traceback (most recent call last):
        ...
        archiveprobe.base.errors.InputError: unknown view 'mirrored' (did you mean \
'center-mirrored'?): hog has center, center-mirrored, and their mean
        """
        from archiveprobe.probe.features import read_matrix

        pinned = self._pin()
        check_name("backbone", backbone, self._settings.embed.backbones)
        if view is not None:
            check_name("view", view)
        if is_text_cache(backbone):
            image = backbone.removesuffix(text_cache(""))
            if text_tower(resolve(image, self._settings)) is None:
                raise InputError(f"{image} embeds no captions: only backbones of open_clip do")
        rows, partial = pinned.keyed, pinned.partial is not None
        keys = rows.captions if is_text_cache(backbone) else rows.keys
        reader = open_in_use(self._settings, pinned.snapshot, backbone, keys=keys, partial=partial)
        if reader.fingerprint.get("random_weights"):
            warn(f"{backbone}: RANDOM WEIGHTS, for trials only")
        if view == "mean":
            return read_matrix(reader, rows, backbone, view, self._settings)[:, 0]
        matrix = read_matrix(reader, rows, backbone, "rows", self._settings)
        if view in (None, "all"):
            return matrix
        return matrix[:, place_of_view(view, reader.fingerprint["views"], backbone)]

    def leaderboard(self) -> "pd.DataFrame":
        """Return the stored systems that are up to date, the highest macro-F1 first.

        system, features, macro_f1 with its 95 % interval [low, high], accuracy, threshold, and so
        on. `.attrs` has what else `archiveprobe leaderboard --json` gives: the recommended system
        as "best" (None where all are at chance), the "reason", the "majority" to beat, and as
        "model_selection" the score to expect of picking. A warning names what is left out.

        Raises:
            InputError: no system is there that is up to date.

        >>> board = task.leaderboard()
        >>> board[["system", "macro_f1"]].round(1)
              system  macro_f1
        0    lda-hog       0.8
        1  ridge-hog       0.8
        2     greedy       0.8
        3    knn-hog       0.8
        >>> board.attrs["best"]
        'ridge-hog'
        """
        from archiveprobe.api.frames import board_frame
        from archiveprobe.evaluate.ensemble import rank_stored
        from archiveprobe.probe.run import data_warnings

        pinned, dataset = self._pin_labelled()
        board = rank_stored(dataset, data_warnings)
        for remark in board.warnings:
            # That rows wait is said already.
            if pinned.partial is None or not remark.startswith(pinned.partial):
                warn(remark)
        return self._named(board_frame(board), pinned)

    def compare(self, a: str, b: str) -> "pd.DataFrame":
        """Return macro-F1 and accuracy of two systems, and how surely they differ.

        metric, a, b, difference (a less b), its 95 % interval [low, high] and p, its two-sided
        p-value: the same out-of-fold rows, resampled in pairs. `.attrs` has what else
        `archiveprobe compare --json` gives: whether the difference may be "noise", and of how many
        "rows" "only_a_right", "only_b_right", "both_right" and "none_right".

        Raises:
            InputError: no such system, one that is out of date, or one name twice.

        >>> found = task.compare("ridge-hog", "knn-hog")
        >>> found[["metric", "a", "b"]].round(1)
             metric    a    b
        0  macro_f1  0.8  0.8
        1  accuracy  0.8  0.8
        >>> found.attrs["noise"]
        True
        """
        from archiveprobe.api.frames import compared_frame
        from archiveprobe.evaluate.compare import compare_stored

        self._check_system(a)
        self._check_system(b)
        pinned, dataset = self._pin_labelled()
        return self._named(compared_frame(compare_stored(dataset, a, b)), pinned)

    def oof(self, system: str, *, repeat: int | None = None) -> "pd.DataFrame":
        """Return what a system says of every labelled row, without having seen its fold.

        id, label, fold, decision, `p_<label>` (NaN where the image cannot be read) and correct.
        Probabilities are means over the repeats of the folds and the decision is that of most
        repeats, with the fold of the first; or all of it is that of one `repeat`, counted from 0.

        Raises:
            InputError: no such system, it is out of date, or no such repeat.

        >>> oof = task.oof("greedy")
        >>> missed = oof[~oof.correct & (oof.label == "destruction")]
        >>> missed.sort_values("p_destruction").id.head(1).item()
        'agency/street-view-0022.jpg'
        """
        from archiveprobe.api.frames import oof_frame

        self._check_system(system)
        pinned, dataset = self._pin_labelled()
        stored = self._run(dataset, system).predictions()
        return self._named(oof_frame(stored, repeat), pinned, system=system)

    def predict(
        self,
        system: str,
        folder: str | Path | None = None,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> "pd.DataFrame":
        """Answer for the rows to predict, or for every image of `folder`.

        `folder` may also be a list or table of files, or tars, here or in an object store: what
        `predict --images` takes. id (below the folder, for new images), digest, status, label and
        `p_<label>`; label and probabilities are missing where the status says why there is no
        image. New images are embedded as those that the system was trained on. For millions of
        them let the command `predict` write a folder, which `answers` reads.

        Raises:
            InputError: no such system, it is out of date, there is nothing to predict, or this
                machine would embed otherwise than the one that the system was trained on.

        >>> answers = task.predict("ridge-hog")
        >>> answers.label.value_counts().to_dict()
        {'not_destruction': 12, 'destruction': 7}
        >>> new = task.predict("ridge-hog", "my/photographs/images/agency")
        >>> new[["id", "status", "label"]].head(2)
                             id status            label
        0  street-view-0012.jpg     ok  not_destruction
        1  street-view-0014.jpg     ok  not_destruction
        """
        from archiveprobe.api.frames import answers_frame, whole_frame
        from archiveprobe.archive.source import open_source
        from archiveprobe.predict.archive import How
        from archiveprobe.predict.archive_table import answers_of
        from archiveprobe.predict.images import answer_images
        from archiveprobe.predict.systems import Resources

        self._check_system(system)
        check_resources(device, batch_size, workers)
        if folder is None:
            pinned, dataset = self._pin_labelled()
            answers = answer_images(dataset, system, Resources(device, workers))
            return self._named(answers_frame(answers), pinned, system=system)
        source = open_source(place_of("folder", folder), notify=warn)
        pinned, _ = self._pin_labelled()
        how = How(device=device, batch_size=batch_size, workers=workers)
        with answers_of(self._settings, system, source, how, notify=lambda _: None) as done:
            frame = whole_frame(done.file)
        return self._named(frame, pinned, system=system)

    def answers(self, folder: str | Path) -> Iterator["pd.DataFrame"]:
        """Yield the answers in a folder that `predict -o FOLDER` has written, part by part.

        The columns of `predict`, and spread (the standard deviation of the positive label's
        probability over the views), backbone and system (digests). Parts come in the order of the
        images; each is proved by its digest, and some 65,000 rows of a large one come at once. A
        folder that is not finished gives what is there.

        Raises:
            InputError: it is no folder of answers, or a part is damaged.

        >>> for rows in task.answers("my/answers"):
        ...     print(rows[["id", "status", "label"]].head(2))
                             id status            label
        0  street-view-0012.jpg     ok  not_destruction
        1  street-view-0014.jpg     ok  not_destruction
        """
        from archiveprobe.api.frames import part_frames

        return part_frames(path_of("folder", folder, "a folder of answers"))

    def thresholds(self, system: str) -> "pd.DataFrame":
        """Return macro-F1, precision and recall of the positive label at every threshold.

        threshold, macro_f1, precision (NaN where nothing is decided positive) and recall, on
        out-of-fold probabilities. `.attrs` has what else `archiveprobe threshold --json` gives: the
        "threshold" in use, [low, high] where else it might lie, the "macro_f1" to expect with its
        "interval", and so on.

        Raises:
            InputError: no such system, it is out of date, or it has no threshold.

        >>> curve = task.thresholds("greedy")
        >>> curve[curve.recall >= 0.95].tail(1).round(1)
            threshold  macro_f1  precision  recall
        26        0.2       0.7        0.5     1.0
        >>> round(curve.attrs["threshold"], 1)
        0.4
        """
        from archiveprobe.api.frames import curve_frame
        from archiveprobe.evaluate.choose_threshold import report_threshold

        self._check_system(system)
        pinned, _ = self._pin_labelled()
        report = report_threshold(self._settings, system, partial=self._partial)
        return self._named(curve_frame(report), pinned)

    def _pin(self) -> Pinned:
        self._settings = load_task(self.file)
        pinned = pin(self._settings, partial=self._partial)
        if self._digest not in (None, pinned.digest):
            warn(
                f"{self.file} or its work has changed since the last answer: this one is about "
                f"another snapshot, {pinned.digest[:16]}"
            )
        self._digest = pinned.digest
        return pinned

    def _pin_labelled(self) -> tuple[Pinned, Dataset]:
        pinned = self._pin()
        if pinned.dataset is None:
            raise InputError(pinned.fault)
        return pinned, pinned.dataset

    def _check_system(self, system: object) -> None:
        """Refuse what is no name, as the best system where all are at chance."""
        check_name("system", system, systems(self._settings))

    def _run(self, dataset: Dataset, system: str) -> "Run":
        """Load a system that is up to date."""
        from archiveprobe.evaluate.system_status import check_up_to_date
        from archiveprobe.evaluate.system_store import load_run

        run = load_run(self._settings, system)
        check_up_to_date(run, dataset)
        return run

    def _named(self, frame: "pd.DataFrame", pinned: Pinned, **more: Any) -> "pd.DataFrame":
        """Name the snapshot that a frame is about."""
        frame.attrs |= {"snapshot": pinned.digest, **more}
        if pinned.partial is not None:
            frame.attrs["partial"] = pinned.partial
        return frame
