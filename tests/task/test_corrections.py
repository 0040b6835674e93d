"""corrections.csv: read, merged, written whole, and nothing of it lost."""

import csv
import itertools
import multiprocessing
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.base.files import temporary_beside
from archiveprobe.task import corrections
from archiveprobe.task.config import load_task
from archiveprobe.task.corrections import (
    COLUMNS,
    DECISIONS,
    Correction,
    corrections_file,
    lay_over,
    plain_name,
    read_corrections,
    record_corrections,
)
from archiveprobe.task.find_images import UNSAFE_IN_IDS

WHEN = "2026-11-28T21:00:00Z"
NAMED = 'corrections = "fixes.csv"\n'
HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '=HYPERLINK("http://x")',
    'a","b\n"c',
    "\u202egpj.exe",
    "a;b\tc",
    "é/é",
    "x" * 1024,
    " 'quoted' ",
    "id",
]


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path)


def change(id_, label="destroyed", **more):
    return Correction(id_, label, "intact", **{"who": "Ana", "when": WHEN} | more)


def lines_of(task):
    with corrections_file(task).open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_what_is_recorded_is_read_back(task):
    assert read_corrections(task) == {}
    made = [change("b"), Correction("a", "intact", "intact", "keep", "Ana", WHEN)]
    made += [Correction("c", "", "", "unsure", "Ana", WHEN), change("d", "")]
    assert record_corrections(task, made) == 4
    assert list(read_corrections(task).values()) == made
    assert lines_of(task)[:3] == [
        ["id", "label", "old_label", "decision", "who", "when"],
        ["b", "destroyed", "intact", "change", "Ana", WHEN],
        ["a", "intact", "intact", "keep", "Ana", WHEN],
    ]


def test_hostile_ids_come_back_as_they_were(task):
    made = [change(id_, who=id_) for id_ in HOSTILE]
    record_corrections(task, made)
    assert [*read_corrections(task)] == HOSTILE
    for correction in read_corrections(task).values():
        assert correction.who == plain_name(correction.id)
        assert correction.who[:1] not in ("=", "+", "-", "@")
        assert "\u202e" not in correction.who
        assert len(correction.who) <= 100


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (change("a\0"), ("1 id with a NUL",)),
        (change(""), ("1 row without an id",)),
        (change("x" * 1025), ("1 id of more than 1024",)),
        (change("a\ud800"), ("cannot store", "surrogates")),
        (change("a", "destroid"), ("unknown labels in 1 row", "did you mean 'destroyed'")),
        (change("a", decision="skip"), ("unknown decision 'skip'", "keep, change, unsure")),
        (change("a", decision="keep"), ("'a'", "repeats that of the table")),
        (change("a", when="yesterday"), ("cannot store 'a'", "yesterday")),
        (change("a", when="2026-11-28T21:00:00"), ("cannot store 'a'", "no time zone")),
    ],
)
def test_what_no_file_can_hold_is_refused(task, fault_of, wrong, words):
    record_corrections(task, [change("b")])
    before = corrections_file(task).read_bytes()
    fault_of(lambda: record_corrections(task, [change("c"), wrong]), "corrections.csv", *words)
    assert corrections_file(task).read_bytes() == before


def test_times_are_in_utc_in_seconds(task):
    record_corrections(task, [change("a", when="2026-11-28T22:00:00.123+01:00"), change("b")])
    record_corrections(task, [change("c", when="")])
    times = [correction.when for correction in read_corrections(task).values()]
    assert times[:2] == [WHEN, WHEN]
    assert times[2] > WHEN[:4]
    assert len(times[2]) == len(WHEN)


@pytest.mark.proves("corrections")
def test_rows_and_columns_of_ones_own_stay(make_task, tmp_path):
    own = "id;note;label\nz;seen, twice;destroyed\ny;=1+1;\n"
    task = make_task(tmp_path, head=NAMED + 'name = "t"\nlabels = ["destroyed"]\n', fixes=own)
    record_corrections(task, [change("y"), change("x")])
    assert [*csv.reader(corrections_file(task).read_text("utf-8").splitlines(), delimiter=";")] == [
        ["id", "note", "label", *COLUMNS[2:]],
        ["z", "seen, twice", "destroyed", "", "", "", ""],
        ["y", "=1+1", "destroyed", "intact", "change", "Ana", WHEN],
        ["x", "", "destroyed", "intact", "change", "Ana", WHEN],
    ]
    assert record_corrections(task, [change("y")], remove=["z", "nobody"]) == 1
    assert [*read_corrections(task)] == ["y", "x"]


def test_an_encoding_of_excel_stays_readable_there(task):
    file = corrections_file(task)
    for content in ("id,label,who\né,intact,Zoë\n".encode("utf-16"), b"id,label\n\xe9,intact\n"):
        file.write_bytes(content)
        record_corrections(task, [change("b")])
        assert file.read_bytes().startswith(b"\xef\xbb\xbfid,label")
        record_corrections(task, [change("c")])
        assert file.read_bytes().startswith(b"\xef\xbb\xbfid,label")
        assert [*read_corrections(task)] == ["é", "b", "c"]


def test_nothing_is_written_where_nothing_changes(task):
    record_corrections(task, [change("a")])
    before = corrections_file(task).stat().st_ino
    assert record_corrections(task, [change("a")], remove=["b"]) == 0
    assert corrections_file(task).stat().st_ino == before


def test_the_last_of_several_for_an_id_stays(task):
    assert record_corrections(task, [change("a"), change("b"), change("a", "")]) == 2
    assert read_corrections(task)["a"].label == ""
    assert record_corrections(task, [change("a")], remove=["a"]) == 1
    assert read_corrections(task)["a"].label == "destroyed"


def test_what_another_program_wrote_in_between_is_merged(task):
    record_corrections(task, [change("a")])
    with corrections_file(task).open("a") as stream:
        stream.write(f"b,intact,destroyed,change,Bo,{WHEN},\r\n".replace(",\r", "\r"))
    record_corrections(task, [change("c")])
    assert [(c.id, c.who) for c in read_corrections(task).values()] == [
        ("a", "Ana"),
        ("b", "Bo"),
        ("c", "Ana"),
    ]


@pytest.mark.proves("corrections")
def test_what_an_editor_saves_meanwhile_is_merged(task, monkeypatch):
    record_corrections(task, [change("a")])
    real, saved = corrections._encoded, []

    def encoded(*given):
        if not saved:
            with corrections_file(task).open("a") as stream:
                saved.append(stream.write(f"b,intact,destroyed,change,Bo,{WHEN}\r\n"))
        return real(*given)

    monkeypatch.setattr(corrections, "_encoded", encoded)
    record_corrections(task, [change("c")])
    assert [*read_corrections(task)] == ["a", "b", "c"]


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'id,label\n"a,intact\n', ("line",)),
        (b"id,label\na,intact\na,destroyed\n", ("repeated id",)),
        (b"id,label\na,intact,more\n", ("line 2",)),
        (b"image,label\na,intact\n", ("no column 'id'", "call the columns of corrections id and")),
        (b"ID;Zustand\na;intact\n", ("it has ID, Zustand; call the columns of corrections id",)),
        (b"id,label,decision\na,broken,keep\n", ("unknown labels in 1 row: 'broken'", "line 2")),
        (b"id,label,decision\na,intact,kept it\n", ("unknown decisions", "line 2")),
        (b"PK\3\4 no zip", ("corrections.csv",)),
        (b'[{"id": "a", "label": "intact"}]', ("JSON", "save it as one")),
        (b"", ("is empty",)),
        (b"\xff\xfe\0", ("corrections.csv",)),
    ],
)
def test_a_damaged_file_is_refused_and_stays(task, fault_of, content, words):
    corrections_file(task).write_bytes(content)
    fault_of(lambda: record_corrections(task, [change("b")]), "corrections.csv", *words)
    assert corrections_file(task).read_bytes() == content
    assert not [*task.folder.glob(".tmp*")]


def test_what_a_killed_writer_left_goes_with_the_next_record(task, tmp_path, monkeypatch):
    class KilledError(BaseException):
        """Ends a writer at once."""

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("archiveprobe.base.files.os.replace", killed)
        patch.setattr("archiveprobe.base.files.discard", lambda _: None)
        with pytest.raises(KilledError):
            record_corrections(task, [change("a")])
    (left,) = tmp_path.glob(".tmp-*")
    strangers = [temporary_beside(tmp_path / "rows.parquet"), tmp_path / ".tmp-1-0a0b0c0d"]
    for stranger in strangers:
        stranger.write_bytes(b"of another program")
    record_corrections(task, [change("a")])
    assert not left.exists()
    assert all(stranger.exists() for stranger in strangers)


def test_labels_are_those_of_the_task_in_any_unicode_form(make_task, tmp_path):
    head = 'name = "t"\nlabels = ["zerstört", "heil"]\n'
    nfd = unicodedata.normalize("NFD", "zerstört")
    rows = f"id,label,old_label,decision\na,{nfd},{nfd},keep\nb,heil,{nfd},change\n"
    task = make_task(tmp_path, head=head, corrections=rows)
    made = read_corrections(task)
    assert (made["a"].label, made["a"].old_label, made["b"].old_label) == ("zerstört",) * 3
    _, counts = lay_over(task, [("a", "zerstört", False), ("b", "zerstört", False)])
    assert counts.remarks() == ["corrections.csv: 1 label changed, 1 kept"]


EDITED = "id,label,old_label,decision\n"


@pytest.mark.parametrize(
    ("row", "table", "is_said"),
    [
        ("a,destroyed,intact,keep", "intact", True),
        ("a,destroyed,intact,unsure", "intact", True),
        ("a,,intact,keep", "intact", True),
        ("a,Intact,intact,keep", "intact", False),
        # What another table says now, the row agrees with.
        ("a,destroyed,intact,keep", "destroyed", False),
        ("a,intact,intact,keep", "destroyed", False),
        ("a,,,unsure", "intact", False),
        # A label that the task has had, and has no more.
        ("a,ruined,ruined,keep", "intact", False),
    ],
)
def test_a_row_to_keep_with_another_label_is_said(make_task, tmp_path, row, table, is_said):
    task = make_task(tmp_path, corrections=f"{EDITED}{row}\n")
    _, counts = lay_over(task, [("a", table, False)])
    assert counts.changed == 0
    assert counts.contradictory == counts.record()["contradictory"] == is_said
    said = [remark for remark in counts.remarks() if "another label, which" in remark]
    assert said == is_said * [
        "corrections.csv: 1 row to keep or unsure has another label, which is not used ('a'): "
        "write change in the column decision to use it"
    ]


def test_ids_of_rows_that_were_not_used_are_named(make_task, tmp_path):
    edited = "".join(f"e{at},destroyed,intact,keep\n" for at in range(5))
    gone = "".join(f"gone {at},destroyed,intact,change\n" for at in range(4))
    task = make_task(tmp_path, corrections=f"{EDITED}{edited}{gone}")
    _, counts = lay_over(task, [(f"e{at}", "intact", False) for at in range(5)])
    assert counts.remarks() == [
        "corrections.csv: 5 kept, 4 of rows that the table lacks, left out ('gone 0', 'gone 1', "
        "'gone 2' and 1 more)",
        "corrections.csv: 5 rows to keep or unsure have another label, which is not used ('e0', "
        "'e1', 'e2' and 2 more): write change in the column decision to use it",
    ]


def test_a_file_of_the_task_is_never_replaced(make_task, tmp_path, fault_of):
    head = 'corrections = "labels.csv"\nname = "t"\nlabels = ["intact", "destroyed"]\n'
    table = '[images]\ntable = "labels.csv"\nid = "id"\n'
    task = make_task(tmp_path, table, head=head, labels="id,label\na,intact\n")
    fault_of(lambda: record_corrections(task, [change("a")]), "another file of the task")
    assert (tmp_path / "labels.csv").read_text() == "id,label\na,intact\n"


def test_a_table_of_that_name_is_no_file_of_corrections(make_task, tmp_path, fault_of):
    table = '[images]\ntable = "corrections.csv"\nid = "id"\n'
    task = make_task(tmp_path, table, corrections="id,label\na,intact\n")
    assert read_corrections(task) == {}
    fault_of(lambda: record_corrections(task, [change("a")]), "another file of the task")
    assert (tmp_path / "corrections.csv").read_text() == "id,label\na,intact\n"


def test_corrections_can_be_turned_off(make_task, tmp_path, fault_of):
    head = 'corrections = ""\nname = "t"\nlabels = ["intact", "destroyed"]\n'
    task = make_task(tmp_path, head=head, corrections="id,label\na,intact\n")
    assert read_corrections(task) == {}
    fault_of(lambda: record_corrections(task, [change("a")]), 'corrections = ""', "task.toml")


def test_a_link_leads_to_the_file_that_is_written(task, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.csv"
    corrections_file(task).symlink_to(real)
    real.write_text("id,label\na,intact\n")
    record_corrections(task, [change("b")])
    assert corrections_file(task).is_symlink()
    assert real.read_text().count("\n") == 3


def _record_some(folder, who):
    task = load_task(folder)
    for number in range(15):
        record_corrections(task, [change(f"{who}{number}", who=who), change("both", who=who)])
        if number % 3 == 0:
            record_corrections(task, [], remove=[f"{who}{number}"])


@pytest.mark.proves("corrections")
def test_two_processes_at_a_time_lose_nothing(task):
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=_record_some, args=(task.folder, who)) for who in "ABC"]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert {maker.exitcode for maker in makers} == {0}
    made = {f"{who}{number}" for who in "ABC" for number in range(15) if number % 3}
    assert {*read_corrections(task)} == made | {"both"}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
IDS = st.one_of(st.sampled_from(HOSTILE), TEXT).filter(
    lambda text: text.strip() and not UNSAFE_IN_IDS.search(text)
)
LABELS = st.sampled_from(["intact", "destroyed", ""])


@st.composite
def any_corrections(draw):
    decision, label = draw(st.sampled_from(DECISIONS)), draw(LABELS)
    old = draw(LABELS) if decision == "change" else label
    when = draw(st.datetimes().map(lambda time: time.strftime("2026-%m-%dT%H:%M:%SZ")))
    return Correction(draw(IDS), label, old, decision, draw(TEXT), when)


@pytest.mark.proves("corrections")
@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(any_corrections(), max_size=5), max_size=4))
def test_reading_gives_what_was_written_the_last_for_each_id(tmp_path_factory, make_task, batches):
    task = make_task(tmp_path_factory.mktemp("laws"))
    for batch in batches:
        record_corrections(task, batch)
    wanted = {}
    for correction in itertools.chain(*batches):
        wanted[correction.id] = replace(correction, who=plain_name(correction.who))
    assert read_corrections(task) == wanted
    assert record_corrections(task, [*wanted.values()]) == 0
    one = make_task(tmp_path_factory.mktemp("laws"))
    record_corrections(one, [*itertools.chain(*batches)])
    assert read_corrections(one) == wanted
    assert [*read_corrections(one)] == [*wanted]
    record_corrections(one, [], remove=[*wanted])
    assert read_corrections(one) == {}
