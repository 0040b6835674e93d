"""Rank images: which of them are listed, by what, and how that is told."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import number_of
from archiveprobe.embed.words import check_comparable, tower_of, vector_of_words
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.ensemble import rank_stored
from archiveprobe.evaluate.near_duplicates import find_near_duplicates
from archiveprobe.evaluate.system_names import no_system, systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.answers.read import open_record
from archiveprobe.predict.columns import probability_columns
from archiveprobe.predict.rank import scores
from archiveprobe.predict.rank.best import Best, Ranked
from archiveprobe.predict.rank.candidates import Candidates, answers_in, rows_to_predict
from archiveprobe.predict.rank.listing import TYPICAL, UNCERTAIN, Ranking, Wish
from archiveprobe.predict.rank.scores import Embeddings, Scores
from archiveprobe.predict.tables import answer_target, write_answers
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.manifest import read_manifest

SIMILARITY = 0.95
# Near-duplicates are looked for among so many times the images that are listed.
_POOL = 10
_LARGEST_POOL = 50_000


def rank(
    task: Task,
    answers: Sequence[Path] = (),
    wish: Wish | None = None,
    *,
    file: Path | None = None,
    notify: Notify = lambda _: None,
) -> Ranking:
    """List the images of the task's rows to predict, or of answers of an archive, that come first.

    Memory holds the images listed, and a block of the others. Near-duplicates are one line with a
    count, as far as equal bytes or embeddings tell. With `file` the list is written there.

    Raises:
        InputError: no such label, system, image or answers; embeddings are missing; or the file
            cannot be written.
    """
    wish = wish or Wish()
    target = None if file is None else answer_target(task, file, spreadsheet_safe=False)
    dataset = load_dataset(task)
    asked = _Asked(dataset, answers, wish, notify)
    pool = max(wish.top, min(_POOL * wish.top, _LARGEST_POOL))
    kept = wish.top if wish.all_duplicates else pool
    best = Best(kept, collapse=not wish.all_duplicates)
    candidates = 0
    for block in asked.blocks():
        values = asked.scores(block)
        candidates += int(np.isfinite(values).sum())
        best.add(block, values)
    asked.check(candidates)
    images = best.ranked()
    if not wish.all_duplicates:
        images = asked.collapse(images)
    done = Ranking(
        score=asked.score,
        label=asked.label,
        backbone=asked.embeddings.backbone if asked.embeddings else None,
        classes=dataset.classes,
        images=[asked.shown(image) for image in images[: wish.top]],
        candidates=candidates,
        snapshot=dataset.snapshot_digest,
        notes=asked.notes,
        file=file,
    )
    if target is not None:
        target = target.in_form(None, None, ["score", *probability_columns(dataset.classes)])
        write_answers(target, *done.cells())
    return done


class _Asked:
    """What a wish comes to for one dataset: blocks of candidates, their scores, and their names."""

    def __init__(
        self, dataset: Dataset, answers: Sequence[Path], wish: Wish, notify: Notify
    ) -> None:
        self._dataset, self._answers, self._wish, self._notify = dataset, answers, wish, notify
        self.notes: list[str] = []
        self.embeddings: Embeddings | None = None
        similar = wish.text is not None or wish.like is not None
        self._system = self._find_system(needed=not similar or wish.label is not None)
        self.label = self._find_label(similar)
        self._like: bytes | None = None
        self.score, self._scores = self._choose()

    def blocks(self) -> Iterator[Candidates]:
        """Yield the candidates."""
        if self._answers:
            return answers_in(self._dataset.task, self._answers)
        return rows_to_predict(self._dataset, self._system)

    def scores(self, block: Candidates) -> np.ndarray:
        """Score a block; the image that others are to be like is not among them."""
        values = self._scores(block)
        if self._like is not None:
            values = np.where([key == self._like for key in block.keys], np.nan, values)
        if self.score == "cosine" and self.label is not None:
            values = np.where([each == self.label for each in block.labels], values, np.nan)
        return values

    def check(self, candidates: int) -> None:
        """Refuse an empty list. Raises InputError."""
        if candidates:
            return
        if self.embeddings is None:
            raise InputError("no image of these has an answer: nothing can be ranked")
        raise InputError(
            f"no image to rank has an embedding by {self.embeddings.backbone} in the task's cache: "
            "answer the archive again with `predict --keep-embeddings`, or name another --backbone"
        )

    def shown(self, image: Ranked) -> Ranked:
        """Give a margin as the distance that it is; the smallest comes first."""
        return replace(image, score=-image.score) if self.score == "margin" else image

    def collapse(self, images: list[Ranked]) -> list[Ranked]:
        """Put near-duplicates together, each group at the place of its highest image."""
        embeddings = self.embeddings or self._any_embeddings()
        if embeddings is None or not images:
            self.notes.append("only equal files are put together: there are no embeddings")
            return images
        keys = [bytes.fromhex(image.digest) if image.digest else None for image in images]
        units = embeddings.units(keys)
        lacking = int((~np.isfinite(units).all(1)).sum())
        if lacking:
            self.notes.append(
                f"{lacking} of the first {len(images)} images have no embedding by "
                f"{embeddings.backbone}: only files equal to them are put together"
            )
        first = find_near_duplicates(units, SIMILARITY).first
        groups: dict[int, Ranked] = {}
        for at, image in enumerate(images):
            place = int(first[at]) if first[at] >= 0 else at
            if place in groups:
                earlier = groups[place]
                groups[place] = replace(earlier, copies=earlier.copies + image.copies)
            else:
                groups[place] = image
        return list(groups.values())

    def _any_embeddings(self) -> Embeddings | None:
        for name in self._backbones():
            try:
                return Embeddings.open(self._dataset, name)
            except InputError:
                continue
        return None

    def _backbones(self) -> list[str]:
        return (
            [self._wish.backbone] if self._wish.backbone else [*self._dataset.task.embed.backbones]
        )

    def _find_system(self, *, needed: bool) -> str | None:
        """Find whose answers count: named, of the answers' record, or the recommended system."""
        wish, task = self._wish, self._dataset.task
        if wish.system is not None:
            if wish.system not in systems(task):
                raise no_system(task, wish.system)
            return wish.system
        if self._answers:
            names = {open_record(place).system for place in self._answers if place.is_dir()}
            return names.pop() if len(names) == 1 else None
        if not needed:
            return None
        board = rank_stored(self._dataset, data_warnings)
        if board.best is None:
            raise InputError(f"no system is recommended ({board.reason}): name one with --system")
        self._notify(
            f"the answers are those of {board.best}, which is recommended; --system names another"
        )
        return board.best

    def _find_label(self, similar: bool) -> str | None:
        wish, classes = self._wish, self._dataset.classes
        if wish.label is None:
            return None if similar else classes[self._dataset.positive]
        if wish.label not in classes:
            raise InputError(
                f"no label {wish.label!r} in {self._dataset.task.file}"
                f"{nearest(wish.label, classes)}: the labels are {', '.join(classes)}"
            )
        return wish.label

    def _choose(self) -> tuple[str, Scores]:
        wish, dataset = self._wish, self._dataset
        if wish.text is not None or wish.like is not None:
            vector = self._like_vector() if wish.like is not None else self._text_vector()
            assert self.embeddings is not None
            return "cosine", scores.alike(self.embeddings, vector)
        label = dataset.classes.index(str(self.label))
        if wish.by == TYPICAL:
            self.embeddings = self._open(self._backbones()[0])
            typical, count = scores.most_typical(dataset, label, self.embeddings)
            self.notes.append(
                f"typical is what lies near the mean of {number_of(count, 'labelled image')} of "
                f"{self.label!r} by {self.embeddings.backbone}, and is answered so"
            )
            return "cosine", typical
        if wish.by == UNCERTAIN:
            return "margin", scores.least_certain(label, self._threshold(label))
        return f"p_{self.label}", scores.likeliest(label)

    def _threshold(self, label: int) -> float | None:
        """Return the threshold of the label's probability, None where the likeliest label counts.

        Of two labels the threshold t of the positive one is 1 - t of the other.
        """
        dataset = self._dataset
        if len(dataset.classes) > 2:
            return None
        if self._system is None or self._system not in systems(dataset.task):
            self.notes.append(
                "whose answers these are is not known: 0.5 is taken for the threshold"
            )
            return None
        stored = load_run(dataset.task, self._system).predictions()
        if np.isnan(stored.threshold):
            return None
        self.notes.append(f"{self._system} decides at {stored.threshold:.3g}")
        return float(stored.threshold if label == stored.positive else 1 - stored.threshold)

    def _open(self, backbone: str) -> Embeddings:
        return Embeddings.open(self._dataset, backbone)

    def _text_vector(self) -> np.ndarray:
        dataset, words = self._dataset, str(self._wish.text)
        if not words.strip():
            raise InputError("--text is empty: write what the images shall show")
        names = [name for name in self._backbones() if tower_of(dataset.task, name) is not None]
        if not names:
            raise InputError(
                f"{' and '.join(self._backbones())} of {dataset.task.file} cannot embed words: add "
                'a CLIP, such as "clip-vit-b32", to embed.backbones and run embed'
            )
        self.embeddings = self._open(names[0])
        vector = vector_of_words(dataset.task, dataset.snapshot, names[0], words, {})
        shape = self.embeddings.reader.row_shape or (1,)
        check_comparable(names[0], vector, int(np.prod(shape[1:])))
        return vector

    def _like_vector(self) -> np.ndarray:
        """Find the image that others are to be like, among the task's rows or the answers."""
        dataset, name = self._dataset, str(self._wish.like)
        self.embeddings = self._open(self._backbones()[0])
        digests = {entry.id: entry.digest for entry in read_manifest(dataset.task)}
        digest = digests.get(name) or self._digest_in_answers(name)
        if digest is None:
            raise InputError(
                f"no image {name!r} among the rows of {dataset.task.file} or these answers"
                f"{nearest(name, digests)}: write its id as it stands there"
            )
        key = bytes.fromhex(digest) if digest else None
        vector: np.ndarray = self.embeddings.units([key])[0]
        if key is None or not np.isfinite(vector).all():
            raise InputError(
                f"{name!r} has no embedding by {self.embeddings.backbone} in the task's cache: "
                "name an image that was embedded, as `predict --keep-embeddings` does with archives"
            )
        self._like = key
        return vector

    def _digest_in_answers(self, name: str) -> str | None:
        for block in answers_in(self._dataset.task, self._answers):
            for id_, digest in zip(block.ids, block.digests, strict=True):
                if id_ == name:
                    return digest
        return None
