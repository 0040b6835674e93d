"""The rows to predict against the labelled ones: told apart, alike, too few, none."""

import json

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe import audit_shift
from archiveprobe.probe.audit_shift import CAUTION, Shift, shift, shift_file


@pytest.fixture
def like(archive, draw, tmp_path):
    """A task whose rows to predict come from the same source."""
    pictures = draw(200)
    for one in pictures[::4]:
        one.label = None
    return archive(tmp_path, pictures)


def other_source(archive, draw, folder, **change):
    strangers = draw(60, [None], prefix="t", seed=5)
    for one in strangers:
        one.seen |= change
    return archive(folder, [*draw(150), *strangers])


def test_one_source_gives_no_warning(like):
    found = shift(load_dataset(like))
    assert found.low < 0.5 < found.high
    assert not found.seen
    assert found.warning is None
    assert found.caution == 1.0
    assert found.properties == ()


def test_another_source_is_told_by_its_files(archive, draw, tmp_path):
    found = shift(load_dataset(other_source(archive, draw, tmp_path, bytes=5_000, format="WEBP")))
    assert found.auc > 0.95
    assert found.files > 0.95
    assert {one.name for one in found.properties[:3]} >= {"bytes", "format WEBP"}
    bytes_ = next(one for one in found.properties if one.name == "bytes")
    assert bytes_.to_predict == 5_000 < bytes_.labelled
    assert found.caution == CAUTION
    assert f"AUC {found.auc:.3f}" in found.warning
    assert "may not hold" in found.warning


def test_another_source_is_told_by_its_pictures(archive, draw, tmp_path):
    strangers = draw(60, [None], prefix="t", seed=5)
    for one in strangers:
        one.embedding[10:] += 1.5
    found = shift(load_dataset(archive(tmp_path, [*draw(150), *strangers])))
    assert found.auc > 0.95
    assert found.pictures > 0.95
    assert found.files < 0.75
    assert found.properties == ()


def test_copies_across_the_split_are_held_out_together(archive, draw, copy_of, tmp_path):
    """Else a classifier would know the side of a picture by the copy that it was trained on."""
    pictures = draw(100)
    own = [copy_of(pictures[0], f"own{at}.jpg", "intact", bits=1) for at in range(40)]
    task = archive(tmp_path, [*pictures, *own, *draw(100, [None], prefix="t", seed=3)])
    assert shift(load_dataset(task)).low < 0.6


def test_nothing_to_predict(archive, draw, tmp_path):
    found = shift(load_dataset(archive(tmp_path, draw(40))))
    assert found == Shift()
    assert found.record() == {
        "auc": None,
        "low": None,
        "high": None,
        "pictures": None,
        "files": None,
        "properties": [],
    }


def test_a_handful_to_predict_tells_nothing(archive, draw, tmp_path):
    task = archive(tmp_path, [*draw(60), *draw(5, [None], prefix="t", seed=1)])
    assert shift(load_dataset(task)) == Shift()


def test_no_observation_of_the_files(archive, draw, tmp_path):
    pictures = [*draw(60), *draw(30, [None], prefix="t", seed=1)]
    for one in pictures:
        one.seen = {}
    found = shift(load_dataset(archive(tmp_path, pictures)))
    assert found.files is None
    assert found.auc is not None


def count_measuring(monkeypatch):
    calls = []
    measure = audit_shift.measure_shift
    monkeypatch.setattr(
        audit_shift, "measure_shift", lambda *given: calls.append(1) or measure(*given)
    )
    return calls


def test_it_is_kept_until_the_rows_change(like, archive, draw, tmp_path, monkeypatch):
    calls = count_measuring(monkeypatch)
    first = shift(load_dataset(like))
    assert shift(load_dataset(like)) == first
    assert len(calls) == 1
    pictures = draw(200)
    for one in pictures[::5]:
        one.label = None
    (tmp_path / "work/folds.csv").unlink()
    shift(load_dataset(archive(tmp_path, pictures)))
    assert len(calls) == 2


@pytest.mark.parametrize("field", ["auc", "high"])
def test_what_was_changed_is_measured_again(like, field, monkeypatch):
    calls = count_measuring(monkeypatch)
    first = shift(load_dataset(like))
    content = json.loads(shift_file(like).read_text())
    content["shift"][field] = 0.99
    shift_file(like).write_text(json.dumps(content))
    assert shift(load_dataset(like)) == first
    shift_file(like).write_text("{")
    assert shift(load_dataset(like)) == first
    assert len(calls) == 3


def test_many_rows_are_sampled(like, monkeypatch):
    monkeypatch.setattr(audit_shift, "_MOST_ROWS", 30)
    seen = []
    embeddings = audit_shift.unit_embeddings
    monkeypatch.setattr(
        audit_shift, "unit_embeddings", lambda *given: seen.append(given[2]) or embeddings(*given)
    )
    assert shift(load_dataset(like)).auc is not None
    labelled = len(load_dataset(like))
    assert [int((seen[0] < labelled).sum()), int((seen[0] >= labelled).sum())] == [30, 30]
    assert len(np.unique(seen[0])) == 60
