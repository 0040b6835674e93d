"""The command rank, from the user's side: which images come first, in which order, and why."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stripes import answer_of, done, run

from archiveprobe.api.task import open_task
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.store import Writer
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.rank import candidates

# Embeddings of six numbers are often alike.
EVERY = ("--all-duplicates",)


@pytest.fixture
def answers(archive, tmp_path) -> Path:
    """What ridge says of the rows to predict, as a table."""
    done("predict", archive.folder, "--system", "ridge-hog", "-o", tmp_path / "answers.parquet")
    return tmp_path / "answers.parquet"


def column(file: Path, name: str) -> list[Any]:
    return pq.read_table(file)[name].to_pylist()


def ids(report: dict[str, Any]) -> list[str]:
    return [image["id"] for image in report["images"]]


def units(archive: Any, names: list[str]) -> np.ndarray:
    task = open_task(archive.folder)
    place = {id_: at for at, id_ in enumerate(task.rows().id)}
    found = task.embeddings("hog")[[place[name] for name in names]].astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("label", ["destroyed", "intact"])
def test_the_likeliest_come_first(archive, answers, label: str) -> None:
    wanted = sorted((-p, at) for at, p in enumerate(column(answers, f"p_{label}")) if p is not None)
    names = column(answers, "id")
    report = answer_of("rank", archive.folder, answers, "--label", label, *EVERY, "--top", 7)
    assert ids(report) == [names[at] for _, at in wanted[:7]]
    assert [image["score"] for image in report["images"]] == [-p for p, _ in wanted[:7]]
    assert report["candidates"] == 22 and report["label"] == label


def test_the_rows_to_predict_are_ranked_without_a_file(archive, answers) -> None:
    named = answer_of("rank", archive.folder, "--system", "ridge-hog")
    told = done("rank", archive.folder, "--top", 3)
    assert "which is recommended; --system names another" in told.stderr
    assert ids(named) == ids(answer_of("rank", archive.folder, answers))


@pytest.mark.parametrize("label", ["destroyed", "intact"])
def test_the_least_certain_lie_nearest_to_the_threshold(archive, answers, label: str) -> None:
    threshold = load_run(archive.task, "ridge-hog").predictions().threshold
    p = np.array(column(answers, "p_destroyed"), float)
    order = np.argsort(np.abs(p - threshold))[:6]
    words = ("rank", archive.folder, "--system", "ridge-hog", "--by", "uncertain", *EVERY)
    report = answer_of(*words, "--label", label, "--top", 6)
    assert ids(report) == [column(answers, "id")[at] for at in order]
    np.testing.assert_allclose(
        [image["score"] for image in report["images"]], np.abs(p - threshold)[order], atol=1e-6
    )
    assert "ridge-hog decides at" in done(*words).stderr
    assert "0.5 is taken" in done("rank", archive.folder, answers, "--by", "uncertain").stderr


def test_of_three_labels_the_margin_to_the_next_counts(fitted, tmp_path) -> None:
    archive = fitted(labels=("intact", "damaged", "destroyed"))
    file = tmp_path / "a.csv"
    done("predict", archive.folder, "--system", "ridge-hog", "-o", file)
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    margins = {
        row["id"]: abs(
            float(row["p_damaged"]) - max(float(row["p_intact"]), float(row["p_destroyed"]))
        )
        for row in rows
    }
    words = ("rank", archive.folder, file, "--by", "uncertain", *EVERY, "--label", "damaged")
    assert ids(answer_of(*words, "--top", 5)) == sorted(margins, key=lambda id_: margins[id_])[:5]


def test_the_most_typical_lie_nearest_to_the_mean_of_their_class(archive, answers) -> None:
    labelled = [
        id_
        for at, id_ in enumerate(archive.ids[: archive.plan.known])
        if archive.truth[at] == "destroyed" and at not in archive.plan.broken
    ]
    mean = units(archive, labelled).mean(0)
    named = [
        id_
        for id_, label in zip(column(answers, "id"), column(answers, "label"), strict=True)
        if label == "destroyed"
    ]
    distance = ((units(archive, named) - mean) ** 2).sum(1)
    report = answer_of("rank", archive.folder, answers, "--by", "typical", *EVERY, "--top", 4)
    assert ids(report) == [named[at] for at in np.argsort(distance)[:4]]
    told = done("rank", archive.folder, answers, "--by", "typical").stderr
    assert f"the mean of {len(labelled)} labelled images of 'destroyed' by hog" in told


def test_like_lists_neighbours_without_the_image_itself(archive, answers) -> None:
    names = [id_ for id_ in archive.test_ids if id_ not in (archive.ids[75], archive.ids[80])]
    for name in (archive.ids[0], names[4]):
        others = [id_ for id_ in names if id_ != name]
        cosines = (units(archive, others) @ units(archive, [name]).T)[:, 0]
        order = [others[at] for at in np.argsort(-cosines)]
        words = ("rank", archive.folder, "--like", name, "--all-duplicates")
        report = answer_of(*words, "--top", 30)
        assert ids(report) == order
        assert report["score"] == "cosine" and report["backbone"] == "hog"
        assert ids(answer_of(*words, answers, "--top", 30)) == order


def test_near_duplicates_and_equal_files_are_one_line_with_a_count(archive, answers) -> None:
    table = pq.read_table(answers)
    # The likeliest as three equal files, and once more a little changed: a near-duplicate.
    best = int(np.nanargmax(np.array(column(answers, "p_destroyed"), float)))
    digest, near = column(answers, "digest")[best], "ab" * 32
    (cache,) = (archive.task.work / "cache").iterdir()
    stored = Reader(cache)
    row = stored.read([bytes.fromhex(digest)])[1][0]
    with Writer.open(cache, stored.fingerprint, stored.record.request) as writer:
        writer.add(bytes.fromhex(near), row.astype(np.float32) * 1.01 + 0.01)
    copies = table.take([best, best, best]).to_pylist()
    copies[2]["digest"] = near
    for at, copy in enumerate(copies):
        copy["id"] = f"copy-{at}.jpg"
    more = pa.concat_tables([table, pa.Table.from_pylist(copies, schema=table.schema)])
    pq.write_table(more, answers)
    first, second = answer_of("rank", archive.folder, answers, "--top", 2)["images"]
    assert (first["id"], first["copies"]) == (column(answers, "id")[best], 4)
    assert second["copies"] == 1 and second["score"] < first["score"]
    every = answer_of("rank", archive.folder, answers, "--top", 4, "--all-duplicates")["images"]
    assert [image["id"] for image in every][1:] == [f"copy-{at}.jpg" for at in range(3)]
    assert {image["copies"] for image in every} == {1}


@pytest.mark.parametrize("ending", ["csv", "parquet", "json", "xlsx"])
def test_the_list_is_written_in_any_form(archive, answers, tmp_path, ending: str) -> None:
    file = tmp_path / f"list.{ending}"
    shown = done("rank", archive.folder, answers, "--top", 3, "-o", file)
    assert shown.stdout == f"3 of 22 images by p_destroyed in {file}\n"
    from archiveprobe.task.tables.table import read_table

    rows = read_table(file).rows
    report = answer_of("rank", archive.folder, answers, "--top", 3)
    assert [row["id"] for row in rows] == ids(report)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["digest"] == report["images"][0]["digest"]


def test_in_the_folder_of_a_task_answers_alone_are_enough(
    archive, answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.folder)
    assert ids(answer_of("rank", answers)) == ids(answer_of("rank", ".", answers))


def test_answers_of_several_files_are_ranked_together(
    archive, answers, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In many blocks, too.
    monkeypatch.setattr(candidates, "_AT_ONCE", 3)
    table = pq.read_table(answers)
    pq.write_table(table.slice(0, 10), tmp_path / "a.parquet")
    pq.write_table(table.slice(10), tmp_path / "b.parquet")
    parts = (tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert ids(answer_of("rank", archive.folder, *parts)) == ids(
        answer_of("rank", archive.folder, answers)
    )


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--label", "destroid"], "did you mean 'destroyed'?"),
        (["--like", "073.jpeg"], "did you mean"),
        (["--text", "a collapsed bridge"], "hog of"),
        (["--text", " "], "--text is empty"),
        (["--like", "075.jpg"], "has no embedding by hog"),
        (["--backbone", "hogg"], "hog"),
        (["-o", "list.doc"], "'.doc' names no form of answers"),
    ],
)
def test_faults_are_one_line(archive, words: list[str], told: str) -> None:
    found = run("rank", archive.folder, "--system", "ridge-hog", *words)
    assert found.exit_code == 1 and found.stdout == ""
    assert found.stderr.splitlines()[-1].startswith("error: ") and told in found.stderr


@pytest.mark.proves("hostile")
def test_tables_that_are_no_answers_are_refused(archive, answers, tmp_path) -> None:
    table = pq.read_table(answers)
    pq.write_table(table.drop_columns(["p_intact"]), tmp_path / "short.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    bad = table.to_pylist()
    bad[0]["digest"] = "../x"
    pq.write_table(pa.Table.from_pylist(bad), tmp_path / "digest.parquet")
    words = [{**row, "p_intact": "likely"} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(words), tmp_path / "words.parquet")
    (tmp_path / "ids.csv").write_text("id,label\na,intact\n")
    for name, told in {
        "short.parquet": "lacks the columns p_intact",
        "text.parquet": "cannot read",
        "digest.parquet": "no SHA-256",
        "words.parquet": "words.parquet holds no answers",
        "ids.csv": "lacks the columns digest",
        "absent.csv": "no file",
    }.items():
        found = run("rank", archive.folder, tmp_path / name)
        assert found.exit_code == 1 and told in found.stderr, found.stderr
        assert len(found.stderr.splitlines()) == 1


def test_answers_without_embeddings_say_what_is_missing(archive, answers) -> None:
    rows = pq.read_table(answers).to_pylist()
    for at, row in enumerate(rows):
        row["digest"] = f"{at:064x}"
    pq.write_table(pa.Table.from_pylist(rows), answers)
    found = run("rank", archive.folder, answers, "--by", "typical")
    assert found.exit_code == 1 and "predict --keep-embeddings" in found.stderr
    # What needs no embeddings is ranked all the same.
    told = done("rank", archive.folder, answers)
    assert "22 of the first 22 images have no embedding by hog" in told.stderr


def test_options_exclude_each_other(archive) -> None:
    found = run("rank", archive.folder, "--text", "x", "--by", "typical")
    assert found.exit_code == 2 and "--text and --by exclude each other" in found.stderr


def test_the_cache_lists_its_near_duplicates(archive, tmp_path) -> None:
    (cache,) = (archive.task.work / "cache").iterdir()
    stored = Reader(cache)
    key = next(iter(stored.keys))
    row = stored.read([key])[1][0].astype(np.float32)
    with Writer.open(cache, stored.fingerprint, stored.record.request) as writer:
        writer.add(bytes.fromhex("cd" * 32), row * 1.01 + 0.005)
    file = tmp_path / "d.csv"
    words = ("cache", "duplicates", archive.folder, "--similarity", "0.99", "-o", file)
    report = answer_of(*words)
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    found = [row for row in rows if row["digest"] in (key.hex(), "cd" * 32)]
    # Images of an archive have no id in the task's table, and come after those that have.
    assert [bool(row["id"]) for row in found] == [True, False]
    assert len({row["group"] for row in found}) == 1 and float(found[1]["similarity"]) >= 0.99
    assert report["groups"] == len({row["group"] for row in rows}) and report["images"] == 94
    assert json.loads(json.dumps(report)) == report
    assert "groups of near-duplicates" in done(*words).stdout or report["groups"] == 1
