from collections import Counter, defaultdict

import numpy as np
import pytest

from archiveprobe.task.decoding import Observation, digest
from archiveprobe.task.folds import ensure_folds, folds_file
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row


def spread(labels, folds_of_rows, folds):
    """For every label the number of rows in the fullest fold less that in the emptiest."""
    counts = Counter(zip(labels, folds_of_rows, strict=True))
    per_label = {label: [counts[label, fold] for fold in range(folds)] for label in set(labels)}
    return {label: max(row) - min(row) for label, row in per_label.items()}


FOLDS = "[folds]\ncount = 3\nrepeats = 2\n"


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path, FOLDS)


def item(number, label=None, *, phash=None, content=None, group=None):
    """A row and its entry; the hash of number n is far from that of every other."""
    name = f"p{number:03}"
    label = label or ("destroyed" if number % 3 == 0 else "intact")
    value = int(np.random.default_rng(number).integers(2**63)) if phash is None else phash
    key = digest((name if content is None else content).encode())
    row = Row(name, name, label, None, group)
    return row, Entry(name, name, key, Observation("ok", phash=f"{value:016x}"))


def ensure(task, items):
    rows, entries = zip(*items, strict=True)
    return ensure_folds(task, rows, entries)


def places(table):
    return {name: placed.folds for name, placed in table.placed.items()}


def test_written_once(task):
    items = [item(number) for number in range(12)]
    first = ensure(task, items)
    content = folds_file(task).read_bytes()
    stamp = folds_file(task).stat().st_mtime_ns
    assert ensure(task, items) == first
    assert folds_file(task).read_bytes() == content
    assert folds_file(task).stat().st_mtime_ns == stamp
    folds_file(task).unlink()
    assert ensure(task, items) == first
    assert folds_file(task).read_bytes() == content
    assert set(first.placed) == {row.id for row, _ in items}
    assert {fold for placed in first.placed.values() for fold in placed.folds} == {0, 1, 2}


def test_folds_with_the_older_name_of_a_column_stay(task):
    items = [item(number) for number in range(12)]
    first = ensure(task, items)
    file = folds_file(task)
    file.write_bytes(file.read_bytes().replace(b",settings,", b",cut,"))
    assert ensure(task, items) == first


def test_rows_to_predict_are_not_placed(task):
    items = [item(number) for number in range(12)]
    blind = [(row._replace(id=f"t{row.id}", label=None), entry) for row, entry in items]
    assert set(ensure(task, items + blind).placed) == {row.id for row, _ in items}
    assert set(ensure(task, blind[:6] + items).placed) == {row.id for row, _ in items}


def test_order_of_repeats_and_odd_ids(task):
    odd = ["a\nb", "c\rd", 'e"f', "g,h", " i ", "001", "بيت", "\U0001f3da", "NA"]
    items = [
        (row._replace(id=name), entry)
        for name, (row, entry) in zip(odd, map(item, range(len(odd))), strict=True)
    ]
    table = ensure(task, items)
    assert ensure(task, items) == table
    assert list(table.placed) == odd


def test_new_rows_move_no_old_ones(task):
    items = [item(number) for number in range(12)]
    old = places(ensure(task, items))
    grown = [item(number) for number in range(100, 112)]
    table = ensure(task, grown + items)
    assert {name: folds for name, folds in places(table).items() if name in old} == old
    assert set(table.placed) == {row.id for row, _ in items + grown}
    labels = [row.label for row, _ in items + grown]
    for repeat in range(2):
        now = [table.placed[row.id].folds[repeat] for row, _ in items + grown]
        assert max(spread(labels, now, 3).values()) <= 1
    assert ensure(task, items) == table


def test_removed_rows_keep_their_place(task):
    items = [item(number) for number in range(12)]
    first = ensure(task, items)
    assert ensure(task, items[:7]) == first
    assert places(ensure(task, [*items[1:], item(50)]))["p000"] == first.placed["p000"].folds


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("comes_first", [False, True])
def test_new_copy_joins_its_original(task, number, comes_first):
    items = [item(at) for at in range(12)]
    first = ensure(task, items)
    near = int(items[number][1].observed.phash, 16) ^ 0b1011
    copies = [item(500, phash=near), item(501, phash=near ^ 0b100)]
    table = ensure(task, copies + items if comes_first else items + copies)
    for name in ("p500", "p501"):
        assert table.placed[name].folds == first.placed[f"p{number:03}"].folds
        assert table.placed[name].group == first.placed[f"p{number:03}"].group
    assert table.spanning == 0


@pytest.mark.parametrize("group", ["near-duplicates", "none"])
def test_renamed_files_join_their_old_places(make_task, tmp_path, group):
    task = make_task(tmp_path, f'{FOLDS}group = "{group}"\n')
    items = [item(at) for at in range(12)]
    old = places(ensure(task, items))
    names = dict(zip(sorted(old), sorted(old, reverse=True), strict=True))
    renamed = [
        (row._replace(id=f"new {names[row.id]}"), entry._replace(id=f"new {names[row.id]}"))
        for row, entry in items
    ]
    now = places(ensure(task, renamed))
    assert {name: now[f"new {names[name]}"] for name in old} == old


def test_corrections_move_nothing(task):
    items = [item(number) for number in range(12)]
    first = ensure(task, items)
    content = folds_file(task).read_bytes()
    flip = {"intact": "destroyed", "destroyed": "intact"}
    flipped = [(row._replace(label=flip[row.label]), entry) for row, entry in items]
    assert ensure(task, flipped) == first
    assert folds_file(task).read_bytes() == content


def test_near_duplicates_share_a_fold(task):
    hashes = [int(item(number)[1].observed.phash, 16) for number in range(10)]
    items = [item(at, phash=hashes[at // 3] ^ (1 << at % 3)) for at in range(30)]
    groups = defaultdict(set)
    for placed in ensure(task, items).placed.values():
        groups[placed.group].add(placed.folds)
    assert len(groups) == 10
    assert all(len(folds) == 1 for folds in groups.values())


def test_a_group_that_joins_two_folds_is_counted(task):
    items = [item(0, phash=0), item(1, phash=0xFFF)] + [item(number) for number in range(2, 14)]
    first = ensure(task, items)
    if first.placed["p000"].folds == first.placed["p001"].folds:
        pytest.fail("choose other rows: these two must lie in different folds")
    table = ensure(task, [*items, item(500, phash=0x3F)])
    assert table.spanning == 1
    assert table.placed["p500"].folds == first.placed["p000"].folds


def test_groups_by_column(make_task, tmp_path):
    task = make_task(tmp_path, FOLDS + 'group = "scene"\n')
    items = [item(number, phash=0, group=f"s{number % 5}") for number in range(20)]
    table = ensure(task, items)
    homes = {(placed.group, placed.folds) for placed in table.placed.values()}
    assert len(homes) == 5
    more = ensure(task, [item(30, phash=0, group="s2"), *items])
    assert more.placed["p030"].folds == table.placed["p002"].folds
    for scene in range(
        5
    ):  # the placed rows of a scene are gone: its new row joins them all the same
        others = [(row, entry) for row, entry in items if row.group != f"s{scene}"]
        name = f"p{60 + scene:03}"
        late = ensure(task, [*others, item(60 + scene, phash=0, group=f"s{scene}")])
        assert late.placed[name].folds == table.placed[f"p{scene:03}"].folds
    alone = [item(number, phash=0, group="") for number in range(40, 49)]
    folds = places(ensure(task, items + alone))
    assert len({folds[row.id] for row, _ in alone}) > 1


def test_no_groups(make_task, tmp_path):
    task = make_task(tmp_path, FOLDS + 'group = "none"\n')
    table = ensure(task, [item(number, phash=0) for number in range(12)])
    assert len({placed.folds for placed in table.placed.values()}) > 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count = 3", "count = 4"),
        ("repeats = 2", "repeats = 3"),
        ("repeats = 2", "repeats = 1"),
        ("seed = 0", "seed = 1"),
        ("group = near-duplicates", "group = none"),
    ],
)
def test_other_settings_are_refused(task, make_task, tmp_path, fault_of, old, new):
    items = [item(number) for number in range(12)]
    ensure(task, items)
    content = folds_file(task).read_bytes()
    settings = {"count": 3, "repeats": 2, "seed": 0, "group": '"near-duplicates"'}
    key, _, value = new.partition(" = ")
    settings[key] = f'"{value}"' if key == "group" else value
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    other = make_task(tmp_path, f"[folds]\n{lines}")
    words = (f"folds.csv was written with {old}, but", f"task.toml says {new}: set it back")
    message = fault_of(lambda: ensure(other, items), *words)
    assert "no folds yet" not in message
    assert folds_file(task).read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:0],
        lambda content: content.splitlines(keepends=True)[0],
        lambda content: content[: len(content) * 2 // 3],
        lambda content: content[:-30],
        lambda content: content.replace(b"id,", b"name,", 1),
        lambda content: content.replace(b"repeat1", b"repeat9"),
        lambda content: content + content.splitlines(keepends=True)[-1],
        lambda content: content.replace(b"p003", b'"p003'),
        lambda content: content.replace(b"p003", b"p003,p003", 1),
        lambda content: content.replace(b"p003", b"\xff"),
        lambda content: content.replace(b",p000,", b",p000,9", 1),
        lambda content: content.replace(b",p000,", b",p000,x", 1),
        lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
        lambda content: b"".join(content.splitlines(keepends=True)[:3]),
        lambda content: b"".join(np.array(content.splitlines(keepends=True))[[0, *range(2, 13)]]),
        lambda content: content.replace(b",0,", b",1,", 1),
        lambda content: content.replace(b"p003", b"p300"),
        lambda content: content.replace(b"3 folds", b"three folds"),
        lambda content: content.replace(b"seed 0", b"seed 1").replace(b"seed 1", b"seed 0", 1),
        lambda content: content.replace(b",check", b",cheque"),
    ],
    ids=range(20),
)
def test_damage_is_told(task, fault_of, damage):
    items = [item(number) for number in range(1, 12)] + [item(0)]
    ensure(task, items)
    file = folds_file(task)
    content = file.read_bytes()
    broken = damage(content)
    assert broken != content
    file.write_bytes(broken)
    fault_of(lambda: ensure(task, items), "folds.csv")
    assert file.read_bytes() == broken


def test_too_few_rows(task, fault_of):
    fault_of(lambda: ensure(task, [item(0), item(1)]), "2 labelled rows", "3 folds", "task.toml")


def test_one_class(task, fault_of):
    items = [item(number, "intact") for number in range(12)]
    fault_of(lambda: ensure(task, items), "two classes", "'intact'", "task.toml")
    blind = [(row._replace(label=None), entry) for row, entry in items]
    fault_of(lambda: ensure(task, blind), "two classes", "none")


def test_fewer_groups_than_folds(task, fault_of):
    items = [item(number, phash=0) for number in range(12)]
    fault_of(lambda: ensure(task, items), "1 group", "3 folds", 'group = "none"')
    assert not folds_file(task).exists()
