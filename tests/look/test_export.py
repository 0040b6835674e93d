"""export: every row for DuckDB and pandas, same rows in the same order, same numbers to the bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from pyarrow import parquet
from stripes import done, draw_stripes, run, write_csv

import archiveprobe as ap
from archiveprobe.look.embeddings.maps import pca_map
from archiveprobe.predict import file_forms

HOSTILE = (
    "=1+1.png",
    "+cmd|' /C calc'!A0.png",
    'a "quoted", name.png',
    "two\nlines\r\nand more.png",
    "\u202egnp.exe.png",
    "<script>alert(1)</script>.png".replace("/", "\u2044"),
    "دمار مختلط mixed.png",
    "/".join(["x" * 200] * 5) + ".png",
    "007.png",
    " edge .png",
)
TASK = """
name = "odd"
labels = ["across", "down, \\"so\\" LONG"]
[images]
table = "labels.csv"
split = "split"
[folds]
count = 3
repeats = 2
group = "none"
[embed]
backbones = ["hog"]
views = "flip"
"""
LABELS = ("across", 'down, "so" ' + "\u062f" * 5_000)
P = [f"p_{label}" for label in LABELS]
COUNT, LABELLED = 40, 30


def name_of(number: int) -> str:
    return f"{number}/{HOSTILE[number % len(HOSTILE)]}"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of hostile names, ten to predict; two cannot be read."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "task.toml").write_text(TASK.replace("LONG", "\u062f" * 5_000), "utf-8")
    rows = [["image", "label", "split"]]
    for number in range(COUNT):
        name = name_of(number)
        draw_stripes(folder / "images" / name, number + 2 * (number % 3 == 0))
        label = LABELS[number % 2 if number % 7 else 1 - number % 2]
        known = number < LABELLED
        rows.append([name, label if known else "", "train" if known else "test"])
    for number in (4, 35):
        (folder / "images" / name_of(number)).write_text("<!doctype html>")
    write_csv(folder / "labels.csv", rows)
    done("embed", folder)
    return folder


@pytest.fixture(scope="module")
def probed(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed") / "odd"
    shutil.copytree(embedded, folder)
    done("probe", folder, "--probe", "ridge", "--probe", "knn")
    return folder


@pytest.fixture(scope="module")
def written(probed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("out")

    def written(ending: str) -> Path:
        """The rows by ridge-hog in a file of that ending."""
        file = folder / f"rows{ending}"
        if not file.exists():
            done("export", probed, "--system", "ridge-hog", "-o", file)
        return file

    return written


def expected(folder: Path) -> dict[str, Any]:
    """What the file has to hold, by the ways that a notebook takes."""
    task = ap.open(folder)
    oof, answers = task.oof("ridge-hog").set_index("id"), task.predict("ridge-hog").set_index("id")
    rows, embedding = task.rows(), task.embeddings("hog")
    said = pd.concat([oof[P], answers[P]]).loc[rows.id]
    return {
        "rows": rows,
        "proba": said.to_numpy(),
        "answer": [
            oof.decision[id_] if id_ in oof.index else answers.label[id_] for id_ in rows.id
        ],
        "embedding": embedding,
        "places": pca_map(embedding),
    }


def same_bits(found: Any, wanted: np.ndarray) -> bool:
    numbers = np.asarray(found, wanted.dtype)
    missing = np.isnan(wanted)
    return bool((np.isnan(numbers) == missing).all()) and np.array_equal(
        numbers[~missing].tobytes(), wanted[~missing].tobytes()
    )


def texts(column: Any) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in column]


def check_frame(frame: pd.DataFrame, folder: Path) -> None:
    want = expected(folder)
    rows = want["rows"]
    assert list(frame.id) == [name_of(number) for number in range(COUNT)] == list(rows.id)
    for name in ("path", "label", "split", "status"):
        assert texts(frame[name]) == texts(rows[name])
    for name in ("fold", "group"):
        assert texts(frame[name].astype("Int64")) == texts(rows[name])
    assert texts(frame.answer) == texts(want["answer"])
    for at, name in enumerate(P):
        assert same_bits(frame[name], want["proba"][:, at])
    for at, name in enumerate("xy"):
        assert same_bits(frame[name], want["places"][:, at])
    known = [number < LABELLED for number in range(COUNT)]
    assert [source == "out-of-fold" for source in frame.source] == known
    assert [source == "predicted" for source in frame.source] == [
        not labelled and number != 35 for number, labelled in enumerate(known)
    ]


def test_pandas_reads_the_same_rows_and_numbers(probed: Path, written) -> None:
    frame = pd.read_parquet(written(".parquet"))
    check_frame(frame, probed)
    embedding = expected(probed)["embedding"]
    for found, wanted in zip(frame.embedding, embedding, strict=True):
        if np.isfinite(wanted).all():
            assert found.dtype == np.float32 and found.tobytes() == wanted.tobytes()
        else:
            assert found is None
    assert frame.embedding.isna().sum() == 2


def test_duckdb_reads_the_same_rows_and_numbers(probed: Path, written) -> None:
    file = str(written(".parquet"))
    frame = duckdb.execute("select * from read_parquet(?)", [file]).df()
    check_frame(frame, probed)
    embedding = expected(probed)["embedding"]
    lists = duckdb.execute("select embedding from read_parquet(?)", [file]).fetchall()
    for (found,), wanted in zip(lists, embedding, strict=True):
        if np.isfinite(wanted).all():
            assert np.array(found, np.float32).tobytes() == wanted.tobytes()
        else:
            assert found is None
    nearest = duckdb.execute(
        "with known as materialized (select id, embedding::float[] as embedding from "
        "read_parquet($1) where embedding is not null) select b.id from known a, known b "
        "where a.id = $2 and b.id <> $2 "
        "order by list_cosine_similarity(a.embedding, b.embedding) desc limit 1",
        [file, name_of(1)],
    ).fetchone()
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    likeness = np.nan_to_num(unit @ unit[1], nan=-1)
    likeness[1] = -1
    assert nearest == (name_of(int(likeness.argmax())),)


def test_the_way_through_pandas_into_duckdb_loses_nothing(
    probed: Path, written, tmp_path: Path
) -> None:
    """Embedding Atlas reads with pandas, writes Parquet again, and shows that through DuckDB."""
    frame = pd.read_parquet(written(".parquet"))
    frame.to_parquet(tmp_path / "shown.parquet")
    file = [str(tmp_path / "shown.parquet")]
    check_frame(duckdb.execute("select * from read_parquet(?)", file).df(), probed)
    [lists] = duckdb.execute("select list(embedding) from read_parquet(?)", file).fetchall()[0]
    for found, wanted in zip(lists, expected(probed)["embedding"], strict=True):
        assert (found is None) == np.isnan(wanted).all()
        assert found is None or same_bits(found, wanted)


def test_what_it_is_about_is_in_the_metadata(probed: Path, written) -> None:
    file = written(".parquet")
    digest = ap.open(probed).rows().attrs["snapshot"]
    found = parquet.read_schema(file).metadata
    assert found[b"snapshot"].decode() == digest
    pairs = duckdb.execute(
        "select decode(key), decode(value) from parquet_kv_metadata(?)", [str(file)]
    ).fetchall()
    about = {"task": "odd", "system": "ridge-hog", "backbone": "hog", "view": "mean"}
    assert about.items() <= dict(pairs).items()


def test_thumbnails_lie_where_the_file_says(probed: Path, written) -> None:
    frame = pd.read_parquet(written(".parquet"))
    for place, status in zip(frame.thumbnail, frame.status, strict=True):
        if status == "ok":
            assert place.startswith("work/thumbs/") and (probed / place).is_file()
        else:
            assert pd.isna(place)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".tsv": lambda file: pd.read_csv(file, sep="\t"),
    ".xlsx": pd.read_excel,
    ".json": lambda file: pd.DataFrame(json.loads(file.read_text("utf-8"))),
    ".jsonl": lambda file: pd.DataFrame(map(json.loads, file.read_text("utf-8").split("\n")[:-1])),
}


@pytest.mark.parametrize("ending", READERS)
def test_other_forms_have_the_same_but_no_embeddings(probed: Path, written, ending: str) -> None:
    if ending == ".xlsx":
        # XML has no carriage return: the table says so.
        found = run("export", probed, "--system", "ridge-hog", "-o", probed.parent / "x.xlsx")
        assert found.exit_code == 1 and "write a .csv" in found.stderr
        return
    frame = READERS[ending](written(ending))
    frame["source"] = frame.source.fillna("")
    check_frame(frame, probed)
    assert "embedding" not in frame
    again = done("export", probed, "--system", "ridge-hog", "-o", written(ending))
    assert "no embeddings and no snapshot in " + ending in again.stderr


def test_duckdb_reads_the_csv(probed: Path, written) -> None:
    rows = duckdb.execute(
        "select id, x from read_csv(?, quote='\"', escape='\"', delim=',', header=true, "
        "all_varchar=true, new_line='\\n', parallel=false, strict_mode=false)",
        [str(written(".csv"))],
    ).fetchall()
    assert [id_ for id_, _ in rows] == [name_of(number) for number in range(COUNT)]
    places = expected(probed)["places"][:, 0]
    assert same_bits([np.nan if x is None else float(x) for _, x in rows], places)


def test_the_recommended_system_answers_where_none_is_named(probed: Path, tmp_path: Path) -> None:
    best = json.loads(done("leaderboard", probed, "--json").stdout)["best"]
    found = done("export", probed, "-o", tmp_path / "r.parquet")
    if best is None:
        assert "no columns of answers, as no system is recommended" in found.stderr
    else:
        assert f"the answers are those of {best}, which is recommended" in found.stderr
        assert parquet.read_schema(tmp_path / "r.parquet").metadata[b"system"].decode() == best


def columns_without_answers(found: Result, file: Path) -> None:
    assert "no columns of answers: no" in found.stderr
    frame = pd.read_parquet(file)
    assert not {"answer", "source", *P} & set(frame.columns)
    assert frame.x.notna().sum() == frame.embedding.notna().sum() == COUNT - 2


def test_without_systems_the_columns_are_left_out_aloud(embedded: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.parquet"
    columns_without_answers(done("export", embedded, "-o", file), file)
    frame = pd.read_parquet(file)
    assert frame.fold.notna().sum() == LABELLED


def test_an_archive_without_labels_is_exported_too(embedded: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "bare", tmp_path / "r.parquet"
    shutil.copytree(embedded, folder)
    write_csv(
        folder / "labels.csv",
        [["image", "label", "split"], *([name_of(number), "", ""] for number in range(COUNT))],
    )
    done("embed", folder)
    columns_without_answers(done("export", folder, "-o", file), file)
    assert pd.read_parquet(file).fold.isna().all()
    found = run("export", folder, "--system", "ridge-hog", "-o", file)
    assert found.exit_code == 1 and found.stderr.count("\n") == 1


def test_a_view_can_be_chosen(probed: Path, tmp_path: Path) -> None:
    words = ("export", probed, "--system", "knn-hog", "-o", tmp_path / "r.parquet", "--view")
    done(*words, "center-mirrored")
    found = pd.read_parquet(tmp_path / "r.parquet").embedding
    wanted = ap.open(probed).embeddings("hog", view="center-mirrored")
    assert found[0].tobytes() == wanted[0].tobytes()
    fault = run(*words, "mirrored")
    assert fault.exit_code == 1 and "did you mean 'center-mirrored'?" in fault.stderr


def test_what_is_the_tasks_own_stays(probed: Path, tmp_path: Path, monkeypatch) -> None:
    before = (probed / "labels.csv").read_bytes()
    for name, what in (("labels.csv", "the table of the task"), ("work/r.parquet", "work")):
        found = run("export", probed, "-o", probed / name)
        assert found.exit_code == 1 and not found.stdout and what in found.stderr
    assert (probed / "labels.csv").read_bytes() == before

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(file_forms, "import_module", refuse)
    found = run("export", probed, "--system", "knn-hog", "-o", tmp_path / "r.parquet")
    assert found.exit_code == 1 and "pip install 'archiveprobe[tables]'" in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_leaves_the_old_file(probed: Path, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "r.parquet"
    file.write_bytes(b"old")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", refuse)
    found = run("export", probed, "--system", "knn-hog", "-o", file)
    assert found.exit_code == 1 and "No space left on device" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]
    assert file.read_bytes() == b"old"
