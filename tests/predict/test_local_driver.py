"""Units of an archive, answered by processes of this machine."""

from pathlib import Path

import numpy as np
import pytest
from unit_archive import Run, fit, pictured_task

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.predict.systems import load_system
from archiveprobe.task.config import Task


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = pictured_task(tmp_path_factory.mktemp("pictured") / "task")
    fit(task)
    return task


def test_the_tasks_own_images_have_the_answers_of_its_own_rows(task: Task, tmp_path: Path) -> None:
    dataset = load_dataset(task)
    system = load_system(dataset, "ridge-hog")
    found = {row["id"]: row for row in Run(task, task.root, tmp_path).drive().rows()}
    assert len(found) == len(dataset.rows)
    for some in (dataset.labelled, dataset.unlabelled):
        expected = system.answer(some)
        for id_, p, decision in zip(some.ids, expected.proba, expected.decision, strict=True):
            row = found[str(id_)]
            assert (row["status"], row["label"]) == ("ok", dataset.classes[decision])
            np.testing.assert_allclose([row["p_bright"], row["p_dark"]], p, atol=1e-12)
