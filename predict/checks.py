"""Checks of a system's answers before they are written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import IMAGE_BYTES, digest_of
from archiveprobe.base.wording import quote_few
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.predict.columns import TableAnswers
from archiveprobe.predict.systems import AGREEMENT, Answers, System
from archiveprobe.task.config import Task
from archiveprobe.task.rows import Row, locate

_LOOKED_AT = 12
_DRAWS = 20_000
_SAME = 1e-9


@dataclass(frozen=True)
class Share:
    """How often a label is answered, beside its share of the labelled rows.

    95 of 100 sets of as many rows, drawn like the labelled ones and answered by the same system,
    have a share in [low, high].
    """

    label: str
    share: float
    training: float
    low: float
    high: float

    @property
    def expected(self) -> bool:
        """Return whether the share lies in the range."""
        return self.low <= self.share <= self.high


@dataclass(frozen=True)
class SpotCheck:
    """Rows that were answered again, in another order: how many, and how their image was found.

    `by` is "images" where their files were read again, "manifest" where they are not here.
    """

    rows: int
    by: str


def shares(stored: Predictions, decision: np.ndarray) -> list[Share]:
    """Compare the positive label's share of decisions (m,), or every label's where K > 2."""
    k = len(stored.classes)
    which = [stored.positive] if k == 2 else range(k)
    return [_share(stored, decision, label) for label in which]


def _share(stored: Predictions, decision: np.ndarray, label: int) -> Share:
    """Held-out decisions tell what share to expect; near-duplicates count once, as one row."""
    groups = len(np.unique(stored.groups))
    hits = groups * float((stored.decision == label).mean())
    rng = np.random.default_rng(0)
    likely = rng.beta(hits + 0.5, groups - hits + 0.5, _DRAWS)
    drawn = rng.binomial(len(decision), likely) / max(len(decision), 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Share(
        str(stored.classes[label]),
        float((decision == label).mean()),
        float((stored.labels == label).mean()),
        float(low),
        float(high),
    )


def changed_answers(system: System, ids: Sequence[str], proba: np.ndarray) -> list[str]:
    """Find rows whose probabilities (m, K) are not those that the system stored for them.

    Raises:
        InputError: most of them: that is no change of an image, the system itself is not sound.
    """
    where = {str(id_): at for at, id_ in enumerate(system.stored.test_ids)}
    shared = [(at, where[id_]) for at, id_ in enumerate(ids) if id_ in where]
    if not shared:
        return []
    asked_at, stored_at = (np.array(side) for side in zip(*shared, strict=True))
    now, then = proba[asked_at], system.stored.test[stored_at]
    changed = [ids[at] for at in asked_at[~system.agree(now, then)]]
    if len(changed) > len(shared) / 2:
        raise InputError(
            f"{system.name} does not give its stored answers again for {len(changed)} of "
            f"{len(shared)} rows, the first is {changed[0]!r}: its model, its cache or the order "
            f"of its rows is not what it was: run `{system.again}`"
        )
    return changed


def check_reproduces(system: System, dataset: Dataset) -> None:
    """Hold a few of the system's answers against those it stored; nothing where it stored none.

    Raises:
        InputError: it gives others.
    """
    rows = dataset.unlabelled
    usable = [at for at, key in enumerate(rows.keys) if key][:_LOOKED_AT]
    if usable:
        sample = rows.select(usable)
        ids = sample.ids.tolist()
        here = all((system.task.root / entry.path).is_file() for entry in sample.entries)
        changed_answers(system, ids, system.answer(sample, afresh=here).proba)


def training_duplicates(dataset: Dataset, rows: Rows) -> list[str]:
    """Find rows to predict whose image, byte by byte, is that of a labelled row."""
    known = {key for key in dataset.labelled.keys if key}
    return [str(id_) for id_, key in zip(rows.ids, rows.keys, strict=True) if key in known]


def is_memorized(system: System, dataset: Dataset) -> bool:
    """Return whether held-out probabilities are those of a model that was trained on the same rows.

    No system that was held out gives them: its fold models differ from the final one.
    """
    readable = system.stored.readable
    usable = [at for at, key in enumerate(dataset.labelled.keys) if key and readable[at]]
    sample = usable[:: max(1, len(usable) // _LOOKED_AT)][:_LOOKED_AT]
    if not sample:
        return False
    now = system.answer(dataset.labelled.select(sample)).proba
    apart = np.abs(system.stored.oof[:, sample] - now).max((1, 2))
    return bool((apart < _SAME).any())


def check_images(dataset: Dataset, rows: Rows) -> tuple[list[int], bool]:
    """Look at the images of a few rows: the places of those rows, and whether all are here.

    The table says where an image lies, and the rows what it was.

    Raises:
        InputError: one is not what it was when it was embedded.
    """
    task, table = dataset.task, {row.id: row for row in dataset.rows}
    usable = sorted((str(id_), at) for at, id_ in enumerate(rows.ids) if rows.keys[at])
    order = np.random.default_rng(0).permutation(len(usable))[:_LOOKED_AT].tolist()
    found = {usable[at]: _content(task, table[usable[at][0]]) for at in order}
    altered = [id_ for (id_, at), key in found.items() if key not in (None, rows.keys[at])]
    if altered:
        raise InputError(
            f"{len(altered)} of {len(found)} images looked at have changed since they were "
            f"embedded: {quote_few(altered)}: run `archiveprobe embed {task.shell_path}`"
        )
    return [at for _, at in found], all(key is not None for key in found.values())


def spot_check(
    system: System,
    dataset: Dataset,
    rows: Rows,
    written: TableAnswers,
    answers: Answers,
    changed: Sequence[str],
) -> SpotCheck:
    """Answer a few rows again, found by the bytes of their images, and hold it against the file.

    `written` was read back from the file, in the order of `rows`, as are `answers`. Those that have
    `changed` since training have no stored answer.

    Raises:
        InputError: the file, or the system's stored answer, says something else.
    """
    saved = system.stored
    chosen, here = check_images(dataset, rows)
    ids = {at: str(rows.ids[at]) for at in chosen}
    stored = dict(zip(saved.test_ids.tolist(), saved.test, strict=True))
    again = system.answer(rows.select(chosen), afresh=here)
    for at, proba, decision in zip(chosen, again.proba, again.decision, strict=True):
        is_stored = ids[at] in stored and ids[at] not in changed
        before = stored[ids[at]] if is_stored else answers.proba[at]
        label, said = str(saved.classes[decision]), written.labels[at]
        # Computed elsewhere, a probability beside the threshold may come to lie on its other side.
        near_threshold = said == str(saved.classes[answers.decision[at]])
        sound = said in ("", label) or (
            near_threshold and bool(system.agree(proba, answers.proba[at]))
        )
        in_file = np.where(np.isnan(written.proba[at]), answers.proba[at], written.proba[at])
        # An embedding that could not be computed has no probabilities, but the file needs some.
        same_numbers = not answers.readable[at] or np.allclose(
            in_file, answers.proba[at], rtol=0, atol=AGREEMENT
        )
        if not (sound and same_numbers and system.agree(proba, before)):
            raise InputError(
                f"the file would say {_shown(said, in_file)} for {ids[at]!r}, but {system.name} "
                f"answers {_shown(label if said else '', proba)} for that image: rows are out of "
                f"order, so nothing was written: run `{system.again}`"
            )
    return SpotCheck(len(chosen), "images" if here else "manifest")


def _shown(label: str, proba: np.ndarray) -> str:
    return repr(label) if label else " and ".join(f"{value:.6f}" for value in proba)


def _content(task: Task, row: Row) -> bytes | None:
    """Digest a row's file as it is now; None where it is not here."""
    try:
        return bytes.fromhex(digest_of(locate(task.root, row.path), IMAGE_BYTES))
    except (OSError, ValueError):
        return None
