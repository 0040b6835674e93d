"""Which rows the ids of a form mean."""

import pytest

from archiveprobe.task.row_ids import find_rows
from archiveprobe.task.rows import Row


def table(*rows: Row) -> dict[str, Row]:
    return {row.id: row for row in rows}


ROWS = table(
    Row("train/1.jpg", "train/1.jpg", "intact"),
    Row("A-17", "scans/0017.jpg"),
    Row("A-18", "scans/0018.jpg"),
    Row("copy", "scans/0018.jpg"),
    Row("0019", "x/0019.jpg", "intact", split="test"),
)


@pytest.mark.parametrize(
    ("written", "row"),
    [
        ("train/1.jpg", "train/1.jpg"),  # letter by letter, also a labelled one
        ("1.jpg", None),
        ("a-17", "A-17"),
        ("17", "A-17"),
        ("scans/0017.jpg", "A-17"),
        ("0018.jpg", None),  # the image of two rows
        ("19", "0019"),
        ("0019.jpg", "0019"),
        ("elsewhere", None),
        ("", None),
    ],
)
def test_an_id_means_a_row_by_its_id_or_its_image(tmp_path, written, row) -> None:
    found = find_rows(tmp_path, [written], ROWS)
    assert found.rows.get(written) == row and not found.doubts


@pytest.mark.parametrize("ids", [["A-17", "a-17"], ["A-17", "17"], ["a-17", "17"], ["17", "017"]])
def test_two_ids_never_mean_one_row(tmp_path, ids) -> None:
    found = find_rows(tmp_path, ids, ROWS)
    assert len({*found.rows.values()}) == len(found.rows) < 2
    assert {*found.rows, *found.doubts} == {*ids}


def test_differences_are_counted(tmp_path) -> None:
    found = find_rows(tmp_path, ["17", "19"], ROWS)
    (said,) = found.remarks(tmp_path / "form.csv", 2)
    assert said.startswith("2 of 2 ids of form.csv name their row in another way: without zeros")
    assert "without its extension (1)" in said


def test_where_nothing_is_to_be_predicted_all_rows_may_be_meant(tmp_path) -> None:
    rows = table(Row("a/1.jpg", "a/1.jpg", "intact"), Row("a/2.jpg", "a/2.jpg", "intact"))
    assert find_rows(tmp_path, ["1"], rows).rows == {"1": "a/1.jpg"}
