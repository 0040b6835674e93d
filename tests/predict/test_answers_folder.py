"""A folder of answers under faults: every image has one row, whoever is killed or damaged."""

import os
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_answers import answer, check_whole, make, opened, run

from archiveprobe.archive.units import Share
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.predict.answers import merge
from archiveprobe.predict.answers.folder import AnswersWriter
from archiveprobe.predict.answers.log import finished_parts
from archiveprobe.predict.answers.read import iterate_parts

IMAGES, UNITS = 7, 4


@pytest.fixture(autouse=True)
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two units make a large part; nothing waits for a disk."""
    monkeypatch.setattr(merge, "_GROUP_ROWS", 3)
    monkeypatch.setattr(
        merge.merge, "__kwdefaults__", {**merge.merge.__kwdefaults__, "part_rows": 4}
    )
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "out", IMAGES)
    return tmp_path / "out"


def seen_by_others(folder: Path) -> list[str]:
    """The ids that DuckDB finds in the parts."""
    if not list((folder / "parts").glob("*.parquet")):
        return []
    parts = duckdb.read_parquet(f"{folder}/parts/*.parquet")
    return [id_ for (id_,) in parts.project("id").fetchall()]


def ids_of(folder: Path) -> list[str]:
    return [id_ for table in iterate_parts(folder, ["id"]) for id_ in table["id"].to_pylist()]


class Stop:
    """Interrupts a run after some units."""

    def __init__(self, units: int) -> None:
        self.left = units

    def __call__(self, _: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_finished_folder(folder) -> None:
    record = run(folder)
    assert record.counts is not None
    assert record.counts.status == {"ok": 5, "missing_file": 2}
    assert record.counts.labels == {"intact": 5, "destroyed": 0}
    assert [part.file for part in finished_parts(folder)] == [
        "00000000-00000001.parquet",
        "00000002-00000003.parquet",
    ]
    names = {path.name for path in folder.iterdir()}
    assert names == {"LOCK", "answers.json", "index.parquet", "parts"}
    check_whole(folder)
    assert seen_by_others(folder) == ids_of(folder)


@pytest.mark.proves("archive")
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_shares_of_any_numbers_give_every_image_once(data, tmp_path_factory) -> None:
    """Stopped anywhere, in any order, also shares of different N in one folder."""
    folder = tmp_path_factory.mktemp("shares") / "out"
    make(folder, IMAGES)
    shares = st.integers(1, 3).flatmap(lambda n: st.builds(Share, st.integers(1, n), st.just(n)))
    for share in data.draw(st.lists(shares, max_size=5)):
        left = data.draw(st.integers(0, UNITS), label="units before it stops")

        with suppress(KeyboardInterrupt):
            run(folder, share, computed=Stop(left))
        found = ids_of(folder)
        assert found == sorted(set(found)) == seen_by_others(folder)
    run(folder)
    check_whole(folder)


def test_only_what_is_missing_is_answered(folder) -> None:
    first: list[int] = []
    run(folder, Share(1, 2), computed=first.append)
    assert first == [0, 2] and 0 < len(ids_of(folder)) < IMAGES
    second: list[int] = []
    run(folder, Share(2, 2), computed=second.append)
    assert second == [1, 3]
    check_whole(folder)
    third: list[int] = []
    run(folder, computed=third.append)
    assert third == []


@pytest.mark.proves("writers")
def test_one_share_started_twice(folder) -> None:
    index, record = opened(folder)
    with AnswersWriter(folder, index, record, Share(1, 2)):
        for share in (Share(1, 2), None):
            with pytest.raises(InputError, match=r"another process writes to the answers in .*pid"):
                run(folder, share)
        said: list[str] = []
        run(folder, Share(2, 2), said=said.append)
    run(folder, Share(1, 2))
    check_whole(folder)


def test_who_ends_while_others_write_leaves_the_merge_to_them(folder) -> None:
    index, record = opened(folder)
    said: list[str] = []
    with AnswersWriter(folder, index, record, Share(3, 3)):
        run(folder, Share(1, 2))
        run(folder, Share(2, 2), said=said.append)
        assert any("not merged yet" in text for text in said)
        assert len(finished_parts(folder)) == UNITS
    with Lock(folder):
        run(folder, Share(1, 3), said=said.append)
        assert "not merged yet" in said[-1]
    run(folder, Share(3, 3))
    check_whole(folder)


@pytest.mark.proves("damage")
@pytest.mark.parametrize("fault", ["flipped", "cut", "gone", "log torn", "log flipped"])
@pytest.mark.parametrize("merged", [False, True])
def test_what_is_damaged_is_answered_again(folder, fault, merged) -> None:
    if merged:
        run(folder)
    else:
        index, record = opened(folder)
        with AnswersWriter(folder, index, record, None) as writer:
            for unit in range(UNITS):
                writer.commit(answer(writer.parts, index.unit(unit)))
    part = folder / "parts" / finished_parts(folder)[1].file
    if fault == "gone":
        part.unlink()
    elif fault.startswith("log"):
        part = folder / "parts" / "_commits.jsonl"
    data = bytearray(part.read_bytes()) if part.exists() else bytearray()
    if fault in ("flipped", "log flipped"):
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    elif fault in ("cut", "log torn"):
        part.write_bytes(data[:-9])
    if not fault.startswith("log"):
        with pytest.raises(InputError, match="run the command that wrote it again"):
            ids_of(folder)
    run(folder)
    check_whole(folder)


def test_a_stray_part_is_never_read_twice(folder) -> None:
    index, _ = opened(folder)
    run(folder)
    answer(folder / "parts", index.unit(2))
    assert len(seen_by_others(folder)) == IMAGES + 2
    run(folder)
    assert seen_by_others(folder) == ids_of(folder)
    check_whole(folder)


def test_the_temporaries_of_other_shares_may_vanish_at_any_moment(folder) -> None:
    run(folder, Share(1, 2))
    # As one that is gone between the listing of its name and the look at its size.
    (folder / "parts" / ".tmp-other").symlink_to("gone")
    run(folder, Share(2, 2))
    check_whole(folder)


@pytest.mark.proves("archive")
def test_a_merge_that_was_killed_between_its_renames_reads_as_no_empty_folder(folder) -> None:
    run(folder)
    (folder / "parts").rename(folder / "replaced")
    (folder / "merged").mkdir()
    with pytest.raises(InputError, match="just being merged"):
        ids_of(folder)
