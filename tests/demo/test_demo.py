"""The built-in archive: fixed by its seed, written whole or not at all, as faulty as planned."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from archiveprobe.base.errors import InputError
from archiveprobe.cli import main
from archiveprobe.demo.archive import PLAN, write_demo
from archiveprobe.demo.draw import draw_scene
from archiveprobe.demo.encode import EDITS, ERROR_PAGE, FORMS, REPOSTS, UNREADABLE
from archiveprobe.demo.plan import LABELS, MINIMUM, NEGATIVE, POSITIVE, Row, make_plan
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import DecodedImage, Observation, decode
from archiveprobe.task.rows import read_rows

COUNT = 120


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "demo"
    write_demo(folder, count=COUNT)
    return folder


@pytest.fixture(scope="module")
def plan() -> list[Row]:
    return make_plan(COUNT, np.random.default_rng([0, PLAN]))


@pytest.fixture(scope="module")
def decoded(archive: Path, plan: list[Row]) -> dict[str, DecodedImage | Observation]:
    return {row.name: decode((archive / "images" / row.name).read_bytes()) for row in plan}


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(encoding="utf-8", newline="")))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def plain_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw noise instead of streets, which is fast."""

    def draw(_: bool, rng: np.random.Generator) -> Image.Image:
        return Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8))

    monkeypatch.setattr("archiveprobe.demo.archive.draw_scene", draw)


@pytest.mark.usefixtures("plain_scenes")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("once", 7), ("again", 7), ("other", 8)):
        write_demo(tmp_path / name, seed=seed, count=MINIMUM)
    once, again, other = (digests(tmp_path / name) for name in ("once", "again", "other"))
    assert once == again
    shared = set(once.values()) & set(other.values())
    assert shared == {once["task.toml"], hashlib.sha256(ERROR_PAGE).hexdigest()}


@pytest.mark.parametrize("destroyed", [False, True])
def test_the_same_stream_draws_the_same_scene(destroyed: bool) -> None:
    scenes = [draw_scene(destroyed, np.random.default_rng(seed)).tobytes() for seed in range(12)]
    again = [draw_scene(destroyed, np.random.default_rng(seed)).tobytes() for seed in range(12)]
    assert scenes == again
    assert len(set(scenes)) == 12


@pytest.mark.usefixtures("plain_scenes")
def test_the_summary_counts_what_was_written(tmp_path: Path) -> None:
    summary = write_demo(tmp_path / "demo", count=MINIMUM)
    assert summary.images == MINIMUM == sum(summary.labels.values()) == sum(summary.splits.values())
    assert (summary.reposts, summary.unreadable) == (8, 2)


@pytest.mark.usefixtures("plain_scenes")
def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "demo")])
    assert result.stdout == f"{tmp_path / 'demo' / 'task.toml'}\n"
    assert "400 images, of them 40 re-posts and 2 unreadable" in result.stderr
    assert f"archiveprobe embed {tmp_path / 'demo'}" in result.stderr


def test_the_default_counts_are_those_of_the_documents() -> None:
    """`make demo` ends with: 400 images, 394 embedded, 0 reused, 4 duplicates, 2 failed."""
    rows = make_plan(400, np.random.default_rng([0, PLAN]))
    assert len(rows) == 400
    assert sum(row.source is not None and not row.repost for row in rows) == 4
    assert sum(row.form in UNREADABLE for row in rows) == 2
    assert Counter(row.split for row in rows) == {"train": 280, "validation": 40, "test": 80}
    assert Counter(row.label for row in rows) == {NEGATIVE: 260, POSITIVE: 140}


@pytest.mark.parametrize("count", [MINIMUM, 77, 100, 251])
@pytest.mark.parametrize("seed", range(3))
def test_every_plan_holds_every_fault(count: int, seed: int) -> None:
    rows = make_plan(count, np.random.default_rng([seed, PLAN]))
    assert len({row.name for row in rows}) == len(rows) == count
    assert {row.form for row in rows} == set(FORMS)
    assert {row.edit for row in rows} == {"", *EDITS}
    assert {row.repost for row in rows} == {"", *REPOSTS}
    originals = [row for row in rows if row.source is None]
    wrong = Counter(row.label for row in originals if row.label != LABELS[row.destroyed])
    assert wrong[NEGATIVE] == wrong[POSITIVE] == max(1, round(count / 100))
    copies = [row for row in rows if row.source is not None]
    assert all(row.label == rows[row.source or 0].label for row in copies)
    # The leak, and an unreadable file on either side.
    assert any(row.split == "test" and rows[row.source or 0].split == "train" for row in copies)
    assert {row.split for row in rows if row.form in UNREADABLE} == {"train", "test"}
    for split in ("train", "test"):
        labels = [row.label for row in rows if row.split == split]
        assert labels.count(POSITIVE) / len(labels) == pytest.approx(0.35, abs=0.04)


def test_the_task_loads_and_its_table_names_every_file_once(archive: Path) -> None:
    rows = read_rows(load_task(archive))
    names = [row["image"] for row in table(archive / "labels.csv")]
    files = {name.removeprefix("images/") for name in digests(archive) if "images/" in name}
    assert len(rows) == len(names) == COUNT
    assert set(names) == files
    assert {row.label for row in rows if row.split == "test"} == {None}
    assert {row.label for row in rows if row.split != "test"} == set(LABELS)
    assert any(not name.isascii() for name in names)
    captions = [row["caption"] for row in table(archive / "labels.csv")]
    assert any("," in caption and '"' in caption for caption in captions)
    assert "" in captions


def test_test_labels_lie_in_a_file_of_their_own(archive: Path, plan: list[Row]) -> None:
    asked = [row["image"] for row in table(archive / "labels.csv") if row["split"] == "test"]
    truth = table(archive / "test_labels.csv")
    sample = table(archive / "sample_submission.csv")
    assert [row["image"] for row in truth] == asked == [row["image"] for row in sample]
    labels = {row.name: row.label for row in plan}
    assert all(row["label"] == labels[row["image"]] for row in truth)
    assert {row["label"] for row in sample} == {NEGATIVE}


def test_every_file_decodes_as_planned(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation], archive: Path
) -> None:
    statuses = {"truncated": "truncated", "html": "html_not_image"}
    modes = {"alpha": "RGBA", "palette": "P", "grey16": "I;16"}
    for row in plan:
        result = decoded[row.name]
        if row.form in UNREADABLE:
            assert isinstance(result, Observation)
            assert result.status == statuses[row.form]
            continue
        assert isinstance(result, DecodedImage), row
        assert result.observation.status == "ok"
        if row.form.startswith("exif"):
            assert result.observation.orientation == int(row.form[-1])
        if row.form == "gif":
            assert (result.observation.frames or 0) > 1
        if row.form in modes:
            with Image.open(archive / "images" / row.name) as image:
                assert image.mode == modes[row.form]
        if row.form in ("alpha", "palette"):
            # Transparent corners come out white.
            assert result.pixels.getpixel((0, 0)) == (255, 255, 255)


def test_copies_are_equal_in_bytes_and_re_posts_in_sight(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation], archive: Path
) -> None:
    distances = []
    for row in (row for row in plan if row.source is not None):
        original = plan[row.source or 0]
        files = [(archive / "images" / name).read_bytes() for name in (row.name, original.name)]
        assert (files[0] == files[1]) == (not row.repost)
        first, second = decoded[row.name], decoded[original.name]
        assert isinstance(first, DecodedImage)
        assert isinstance(second, DecodedImage)
        hashes = [int(item.observation.phash, 16) for item in (first, second)]
        distances.append((hashes[0] ^ hashes[1]).bit_count())
    # Of 64 bits; unrelated images differ in about 32.
    assert np.mean(np.array(distances) <= 10) > 0.75


def test_only_destroyed_places_look_destroyed_and_no_property_gives_the_label_away(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation]
) -> None:
    readable = [row for row in plan if isinstance(decoded[row.name], DecodedImage)]
    truth = np.array([row.destroyed for row in readable])
    images = [item for row in readable if isinstance(item := decoded[row.name], DecodedImage)]
    notes = [image.observation for image in images]
    colour = np.array([(note.red, note.green, note.blue) for note in notes], float)
    size = np.array([(note.bytes, note.width, note.height) for note in notes], float)
    assert macro_f1(colour, truth) < 0.65
    assert macro_f1(size, truth) < 0.65
    thumbs = [image.thumbnail.convert("L").resize((64, 64)) for image in images]
    edges = np.abs(np.diff(np.asarray([np.asarray(thumb, float) for thumb in thumbs]), axis=2))
    cells = edges[:, :, :60].reshape(len(edges), 8, 8, 6, 10).mean(axis=(2, 4))
    assert 0.6 < macro_f1(cells.reshape(len(cells), -1), truth) < 0.98


def macro_f1(matrix: np.ndarray, truth: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced"))
    return float(f1_score(truth, cross_val_predict(model, matrix, truth), average="macro"))


def test_test_images_are_compressed_more(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation]
) -> None:
    density: dict[str, list[float]] = {"train": [], "test": []}
    for row in plan:
        item = decoded[row.name]
        if row.form == "jpeg" and row.split in density and isinstance(item, DecodedImage):
            note = item.observation
            density[row.split].append((note.bytes or 0) / ((note.width or 1) * (note.height or 1)))
    assert np.median(density["test"]) < 0.8 * np.median(density["train"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full", "not an empty folder"),
        ("file", "not an empty folder"),
        ("file/below", "cannot write the demo archive"),
        ("n" * 300, "cannot write the demo archive"),
        (".", "current folder"),
    ],
)
def test_a_hostile_target_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        write_demo(Path() if name == "." else tmp_path / name, count=MINIMUM)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("plain_scenes")
def test_an_empty_folder_is_filled_and_a_link_to_it_followed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write_demo(tmp_path / "link", count=MINIMUM)
    assert (tmp_path / "empty" / "task.toml").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link"]


@pytest.mark.parametrize(("given", "word"), [({"count": 10}, "count"), ({"seed": -1}, "seed")])
def test_impossible_numbers_are_refused(tmp_path: Path, given: dict[str, int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        write_demo(tmp_path / "demo", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("plain_scenes")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("archiveprobe.demo.archive._write_tables", fail)
    with pytest.raises((KeyboardInterrupt, InputError)):
        write_demo(tmp_path / "demo", count=MINIMUM)
    assert not list(tmp_path.iterdir())
