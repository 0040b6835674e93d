"""What a system says of a unit in memory is what it says of the same rows of the task."""

from collections.abc import Sequence

import numpy as np
import pytest

from archiveprobe.cache.store import Reader
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.unit_encoder import UnitEmbeddings
from archiveprobe.evaluate.choose_threshold import report_threshold
from archiveprobe.evaluate.dataset import Dataset, Rows, load_dataset
from archiveprobe.evaluate.system_names import systems
from archiveprobe.predict.content import UnitContent
from archiveprobe.predict.systems import load_system
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.decoding import Observation

TWO, THREE = ("intact", "destroyed"), ("intact", "damaged", "destroyed")


def content_of(dataset: Dataset, rows: Rows, *backbones: str) -> UnitContent:
    """Rows of the task's caches, as if they were a unit's."""
    images = [
        PreparedImage(key.hex() if key else "", Observation("ok" if key else "truncated"))
        for key in rows.keys
    ]
    embeddings = {}
    for name in backbones:
        (in_use,) = [c for c in dataset.snapshot.caches if c.asked["backbone"] == name]
        reader = Reader(dataset.task.work / "cache" / in_use.folder)
        present, found = reader.read(rows.keys)
        held = zip(rows.keys, found, present, strict=True)
        known = {key: row for key, row, is_there in held if is_there and key}
        embeddings[name] = UnitEmbeddings(reader.record, known, reader.failures)
    return UnitContent(
        images, Preparation(dataset.task.root, {}), embeddings, ForwardThreads("cpu")
    )


def agree(dataset: Dataset, *backbones: str, names: Sequence[str] = ()) -> None:
    """Every system of the task gives the same answers from memory."""
    for name in names or systems(dataset.task):
        system = load_system(dataset, name)
        for rows in (dataset.labelled, dataset.unlabelled):
            content = content_of(dataset, rows, *backbones)
            found, expected = system.answer(rows, content=content), system.answer(rows)
            np.testing.assert_array_equal(found.proba, expected.proba, name)
            np.testing.assert_array_equal(found.decision, expected.decision, name)


@pytest.mark.proves("answers")
@pytest.mark.parametrize("labels", [TWO, THREE], ids=len)
def test_probes_and_every_ensemble(fitted, labels) -> None:
    agree(load_dataset(fitted(labels=labels).task), "hog")


def test_images_without_an_embedding(archive) -> None:
    report_threshold(archive.task, "ridge-hog", rule="fixed 0.9")
    agree(load_dataset(archive.task), "hog", names=["ridge-hog", "lda-hog"])


@pytest.mark.parametrize("views", ["mean", "rows", "logits"])
def test_every_way_with_views(draw, views) -> None:
    archive = draw(known=45, test=9)
    archive.add_backbone("other", failed=(2, 50))
    features = (f"hog+other:{views}",)
    run_probes(archive.task, Options(probes=("logistic",), features=features, workers=1))
    agree(load_dataset(archive.task), "hog", "other")


@pytest.mark.parametrize("probe", ["knn", "svm", "lightgbm"])
def test_probes_that_are_not_linear(draw, probe) -> None:
    archive = draw(known=45, test=9)
    run_probes(archive.task, Options(probes=(probe,), workers=1))
    agree(load_dataset(archive.task), "hog")
