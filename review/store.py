"""A review on disk: work/review/<name>/, found or begun, with the log proved first.

log.jsonl                       the truth: see review/log.py
decisions.csv                   the decisions in it, for people
<sha256>-images.parquet         what is reviewed: see review/population.py
leases.json                     who looks at what right now; of no use later
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained, make_folder
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import clipped, first_few, number_of, shell_path
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.dataset import Dataset, Rows, load_dataset, rows_of
from archiveprobe.evaluate.system_names import SYSTEM_NAME, no_system, systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.predict.answers.log import finished_parts
from archiveprobe.predict.answers.read import open_record
from archiveprobe.predict.rank.candidates import Candidates, answers_in, rows_to_predict
from archiveprobe.predict.rank.scores import least_certain
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.review.decisions import DECISION, WITHDRAWAL, DecisionFile
from archiveprobe.review.log import FILE, Line, ReviewLog
from archiveprobe.review.population import (
    Population,
    collect,
    group_images,
    read_population,
    write_population,
)
from archiveprobe.review.state import DRAWN, OPENED, SHOWN, ReviewState
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.snapshot import digest_of_words

# More than where copies are only listed: here a strange pair means a wrong answer. On the built-in
# archive, 2 of 9 groups of hog hold both labels at 0.95, and none at 0.97 and above.
SIMILARITY = 0.98
_LONGEST_SEED = 16


@dataclass(frozen=True)
class Wish:
    """What a review shall be about; `source` is a folder of answers, None the rows to predict.

    A share `twice` of the images is shown to two reviewers; `similarity` is the cosine from which
    images are decided together, 1 for equal files only. `label` is what is looked for, None for the
    positive one.
    """

    system: str | None = None
    source: Path | None = None
    name: str | None = None
    twice: float = 0.0
    similarity: float | None = None
    label: str | None = None


class Review:
    """A review whose log was proved; `sync` takes in what other processes have added since.

    Raises:
        InputError: the log or the CSV of decisions was edited, or there is no such review.
    """

    def __init__(self, task: Task, name: str) -> None:
        self.task, self.name = task, name
        self.folder = review_folder(task, name)
        self.log = ReviewLog(self.folder)
        self.file = DecisionFile(self.log)
        self.state = ReviewState()
        self._seen = 0
        self.log.refresh()
        self.sync()
        self.file.check()

    @property
    def named(self) -> str:
        """Return how commands name the review: the task, and --name."""
        return f"{self.task.shell_path} --name {shell_path(self.name)}"

    def sync(self) -> ReviewState:
        """Bring the state up to the lines that the log has now. Raises InputError."""
        self.log.refresh()
        for line in self.log.lines[self._seen :]:
            fault = self.state.fault_of(line) or self._strange_image(line)
            if fault is not None:
                raise self.log.refusal(line.number, fault)
            self.state.add([line])
            self._seen += 1
        return self.state

    def _strange_image(self, line: Line) -> str | None:
        """Say that a line names an image that is not reviewed; None where all are."""
        if line.kind not in (DECISION, WITHDRAWAL, SHOWN, DRAWN):
            return None
        named = line.content["images"] if line.kind == DRAWN else [line.content["image"]]
        strange = np.flatnonzero(self.population.places(named) < 0)
        return f"{named[strange[0]]} is no image of the review" if len(strange) else None

    @cached_property
    def population(self) -> Population:
        """Read what is reviewed. Raises InputError: it is gone, or has changed."""
        return read_population(self.folder, self.state.opened["population"])

    @property
    def source(self) -> Path | None:
        """Return the folder of answers that is reviewed, None for the task's rows to predict."""
        source = self.state.opened["source"]
        return None if source is None else Path(source)

    def change(self) -> str | None:
        """Say what has changed of the images since the review was opened; None for nothing.

        Raises:
            InputError: the task or the answers cannot be read any more.
        """
        opened = self.state.opened
        if self.source is not None:
            now = _digest_of_answers(self.source)
            return None if now == opened["source_digest"] else f"{self.source} has other answers"
        dataset = load_dataset(self.task)
        if dataset.unlabelled.digest == opened["source_digest"]:
            return None
        if self._with_labelled().digest == opened["source_digest"]:
            return None
        now_there = {key.hex() for key in dataset.unlabelled.keys if key}
        then = {self.population.digest(at) for at in range(len(self.population))}
        counts = f"images gone: {len(then - now_there)}, new: {len(now_there - then)}"
        return f"the rows to predict of {self.task.file} have changed ({counts})"

    def _with_labelled(self) -> Rows:
        """Return the rows to predict, and those of its images that corrections label now."""
        state = read_state(self.task)
        is_reviewed = self.population.places([entry.digest or "" for entry in state.entries]) >= 0
        return rows_of(state.rows, state.entries).select(
            [
                at
                for at, row in enumerate(state.rows)
                if row.label is None or (row.table_label is None and is_reviewed[at])
            ]
        )

    def find_image(self, name: str) -> tuple[str, str]:
        """Return the SHA-256 and the id of an image that is named by one of them.

        Raises:
            InputError: the review has no such image.
        """
        if (place := int(self.population.places([name])[0])) >= 0:
            return name, self.population.name(place)
        names = [self.population.name(at) for at in range(len(self.population))]
        if name in names:
            return self.population.digest(names.index(name)), name
        # Equal files have the name of the first of them.
        entries = read_state(self.task).entries if self.source is None else []
        for entry in entries:
            if entry.id == name and self.population.places([entry.digest or ""])[0] >= 0:
                return entry.digest or "", name
            if entry.id == name and not entry.usable:
                raise InputError(
                    f"{clipped(name)} cannot be read, so nobody reviews it: work/manifest.csv says "
                    "why"
                )
        raise InputError(
            f"no image {clipped(name)} in the review {self.name}{nearest(name[:200], names)}: name "
            "it by its id or by the SHA-256 of its bytes"
        )

    def check_source(self) -> None:
        """Refuse to go on where the images are others than when the review was opened.

        Raises:
            InputError: what has changed.
        """
        change = self.change()
        if change is not None:
            raise InputError(
                f"{change} since the review {self.name} was opened: bring them back, or begin a "
                "new review with --name"
            )


def review_folder(task: Task, name: str) -> Path:
    """Return where a review lies. Raises InputError: it cannot have that name."""
    if not SYSTEM_NAME.fullmatch(name):
        raise InputError(
            f"{clipped(name)} cannot name a review: use letters from A to Z, digits and ._+=,@- "
            "(at most 200)"
        )
    return task.work / "review" / name


def reviews(task: Task) -> list[str]:
    """Return the names of the reviews of a task."""
    return sorted(file.parent.name for file in (task.work / "review").glob(f"*/{FILE}"))


def find_review(task: Task, name: str | None = None) -> Review:
    """Open the review of a name, or the only one there is.

    Raises:
        InputError: there is none, or there are several; see also `Review`.
    """
    known = reviews(task)
    begin = f"`archiveprobe review {task.shell_path} --system SYSTEM` begins one"
    if name is None and len(known) > 1:
        listed = first_few(known, 9)
        raise InputError(f"{task.file} has several reviews: name one of {listed} with --name")
    if not known or (name is not None and name not in known):
        which = "" if name is None else f" {clipped(name)}{nearest(name[:200], known)}"
        raise InputError(f"no review{which} in {task.work / 'review'}: {begin}")
    review = Review(task, name or known[0])
    if not review.state.opened:
        raise InputError(f"{review.log.file} is empty: begin a review with `archiveprobe review`")
    return review


def open_review(
    task: Task,
    wish: Wish,
    *,
    begin: bool = True,
    check: bool = True,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Review:
    """Go on with a review, or, with `begin`, begin it.

    Without `check` one whose images have changed is opened, too: `notify` is told.

    Raises:
        InputError: nothing is said of what to review, the review of that name is about something
            else, its images have changed, or it cannot be written.
    """
    if wish.system is None and wish.source is None:
        review = find_review(task, wish.name)
    else:
        wish = _completed(task, wish)
        review = Review(task, str(wish.name))
        if not review.state.opened:
            if not begin:
                find_review(task, wish.name)
            _begin(review, wish, notify, progress)
            return review
    _check_same(review, wish)
    if check:
        review.check_source()
    elif (change := review.change()) is not None:
        notify(f"{change} since the review was opened")
    opened = review.state.opened
    if system_digest(task, opened["system"]) != opened["system_digest"]:
        notify(f"{opened['system']} was trained again since: the scores are those of before")
    return review


def _completed(task: Task, wish: Wish) -> Wish:
    """Take the system from the answers where it is not named, and the name from both."""
    if wish.source is not None:
        of_answers = open_record(wish.source).system
        if wish.system not in (None, of_answers):
            raise InputError(
                f"{wish.source} holds answers of {of_answers}, not of {wish.system}: leave "
                "--system out"
            )
        wish = replace(wish, system=of_answers, source=wish.source.resolve())
    if wish.system not in systems(task):
        raise no_system(task, str(wish.system))
    name = wish.name or (wish.system if wish.source is None else wish.source.name)
    return replace(wish, name=name)


def _check_same(review: Review, wish: Wish) -> None:
    opened = review.state.opened
    source = None if wish.source is None else str(wish.source)
    asked: dict[str, Any] = {
        "twice": wish.twice or None,
        "similarity": wish.similarity,
        "label": wish.label,
    }
    if wish.system is not None:
        asked |= {"system": wish.system, "source": source}
    for name, value in asked.items():
        now = opened["positive" if name == "label" else name]
        if value != now and (value is not None or name == "source"):
            raise InputError(
                f"the review {review.name} has {name} {now}, not {value}: begin another one with "
                "--name"
            )


def _begin(review: Review, wish: Wish, notify: Notify, progress: Progress) -> None:
    task, system = review.task, str(wish.system)
    dataset = load_dataset(task)
    label = _label(dataset, wish.label)
    population, outside = _images(dataset, system, wish.source, label)
    similarity = SIMILARITY if wish.similarity is None else wish.similarity
    if outside:
        notify(f"{number_of(outside, 'image')} cannot be read, and will not be reviewed")
    with explained(f"write {review.folder}"):
        make_folder(review.folder)
    grouped = _grouped(dataset, review.folder, population, similarity, notify, progress)
    digest = write_population(review.folder, grouped)
    source = wish.source
    content = {
        "task": task.name,
        "system": system,
        "system_digest": system_digest(task, system),
        "source": None if source is None else str(source),
        "source_digest": (
            dataset.unlabelled.digest if source is None else _digest_of_answers(source)
        ),
        "snapshot": dataset.snapshot_digest,
        "population": digest,
        "images": len(grouped),
        "groups": len(np.unique(grouped.groups)),
        "outside": outside,
        "classes": list(dataset.classes),
        "positive": dataset.classes[label],
        "threshold": _threshold(dataset, system, label),
        "similarity": similarity,
        "twice": wish.twice,
        # Drawn anew, so that nobody can know which images are shown twice.
        "seed": secrets.token_hex(_LONGEST_SEED),
        "version": version("archiveprobe"),
    }
    with review.log.locked():
        if review.sync().opened:
            raise InputError(f"another process has begun the review {review.name}: run again")
        review.log.append(OPENED, [content])
        review.sync()


def _label(dataset: Dataset, name: str | None) -> int:
    """Return the place of the label that is looked for among those of the task."""
    if name is None:
        return dataset.positive
    if name not in dataset.classes:
        raise InputError(
            f"no label {clipped(name)} in {dataset.task.file}"
            f"{nearest(name[:200], dataset.classes)}: the labels are {', '.join(dataset.classes)}"
        )
    return list(dataset.classes).index(name)


def _images(
    dataset: Dataset, system: str, source: Path | None, label: int
) -> tuple[Population, int]:
    if source is None and not len(dataset.unlabelled):
        raise InputError(
            f"nothing to review in {dataset.task.place}: every row has a label; name a folder of "
            "answers with --source, which `predict --images` writes"
        )
    blocks: Iterable[Candidates] = (
        rows_to_predict(dataset, system) if source is None else answers_in(dataset.task, [source])
    )
    margin = least_certain(label, _threshold(dataset, system, label))
    population, outside = collect(blocks, label, margin)
    if not len(population):
        raise InputError("no image of these has an answer: there is nothing to review")
    return population, outside


def _threshold(dataset: Dataset, system: str, label: int) -> float | None:
    """Return the threshold of the label's probability: 1 - t of the other one of two labels."""
    threshold = float(load_run(dataset.task, system).predictions().threshold)
    if np.isnan(threshold) or len(dataset.classes) > 2:
        return None
    return threshold if label == dataset.positive else 1 - threshold


def _grouped(
    dataset: Dataset,
    folder: Path,
    population: Population,
    similarity: float,
    notify: Notify,
    progress: Progress,
) -> Population:
    """Put near-duplicates together by the embeddings of the task's first backbone."""
    if similarity == 1:
        return population
    name = dataset.task.embed.backbones[0]
    try:
        reader = open_in_use(dataset.task, dataset.snapshot, name, partial=True)
        reader.keep_shard = True
        groups = group_images(population, reader, similarity, folder, progress)
    except InputError as error:
        notify(f"near-duplicates are reviewed one by one: {error}")
        return population
    return replace(population, groups=groups)


def _digest_of_answers(folder: Path) -> str:
    """Digest what a folder of answers says: whose answers, to which images, and how many."""
    record = open_record(folder)
    rows = sum(part.rows for part in finished_parts(folder))
    identity: dict[str, Any] = dict(record.source)
    words = [f"{key} {identity[key]}" for key in sorted(identity)]
    return digest_of_words(record.index, record.system_digest, str(rows), *words)
