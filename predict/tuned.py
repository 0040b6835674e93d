"""A stored fine-tuned system: what it answered after training, or its networks on pictures."""

import numpy as np

from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.device import default_device
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.system_store import Run
from archiveprobe.finetune.answer import TunedSystem, load_tuned
from archiveprobe.predict.system import Means, Question, Source

_ELSEWHERE, _HERE = 2e-2, 1e-4
"""How far probabilities lie apart at most: on another kind of device, or from tokens in half
precision; and on the same kind, where batches of another size round otherwise."""
_FEW = 64


def tuned_source(dataset: Dataset, run: Run, means: Means) -> Source:
    """What a stored fine-tuned system answers from.

    Raises:
        InputError: its recipe is of another version.
        KeyError, TypeError, ValueError: the record or the model is none of such a system.
    """
    system, record = load_tuned(dataset.task, run.record), run.record
    arrays = run.arrays()
    known, vote = arrays["logits"], arrays.get("answer")
    place = {id_: at for at, id_ in enumerate(run.predictions().test_ids.tolist())}
    same = record["to_predict"] == dataset.unlabelled.digest and len(known) == len(place)
    device = means.device or default_device()

    def logits(asked: Question) -> tuple[np.ndarray, np.ndarray | None]:
        ids = asked.rows.ids.tolist()
        here = asked.archive.work == dataset.task.work
        if not asked.afresh and same and here and all(id_ in place for id_ in ids):
            rows = np.array([place[id_] for id_ in ids], np.intp)
            return known[rows], None if vote is None else vote[rows]
        return _looked_at(system, asked, means, device)

    alike = _kind(record["device"]) == _kind(device) and not record["from_cache"]
    return Source(logits, {}, _HERE if alike else _ELSEWHERE)


def _looked_at(
    system: TunedSystem, asked: Question, means: Means, device: str
) -> tuple[np.ndarray, np.ndarray | None]:
    files = [
        (entry.path, entry.digest) if entry.usable else ("", "") for entry in asked.rows.entries
    ]
    distinct = len({key for _, key in files if key})
    workers = means.workers
    if distinct <= _FEW:
        workers = 0
    elif workers is None:
        workers = default_workers()
    work = system.task.work / "finetune"
    with means.progress(system.recipe.name, distinct) as advance:
        return system.logits(
            asked.archive.root, files, work, device=device, workers=workers, advance=advance
        )


def _kind(device: str) -> str:
    return device.partition(":")[0]
