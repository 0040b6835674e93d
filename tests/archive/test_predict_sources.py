"""`predict --images` with every kind of source: the same images give the same answers."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from bucket_server import FaultyProxy, put, s3_server, use
from click.testing import CliRunner
from unit_archive import fit, picture, pictured_task

from archiveprobe.archive import store
from archiveprobe.cli import main

IMAGES = {f"{at // 3}/{at:02}.png": picture(100 + at) for at in range(7)}
IMAGES["2/broken.png"] = picture(3)[:300]
IMAGES["2/empty.jpg"] = b""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    fit(pictured_task(folder), "ridge")
    return folder


@pytest.fixture
def predict(task: Path, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, str]]:
    def predict(source: str | Path, *words: str) -> tuple[pd.DataFrame, str]:
        out = tmp_path / "answers.csv"
        command = ["predict", str(task), "--system", "ridge-hog", "--images", str(source)]
        result = CliRunner().invoke(
            main, [*command, "--workers", "0", "--device", "cpu", "-o", str(out), *words]
        )
        assert result.exit_code == 0, result.output
        table = pd.read_csv(out, dtype=str, keep_default_na=False)
        out.unlink()
        return table, result.stderr

    return predict


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return lay(tmp_path / "tree")


def lay(folder: Path) -> Path:
    for name, content in IMAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar_of(names: list[str], stream: io.BytesIO) -> bytes:
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(IMAGES[name])
            tar.addfile(member, io.BytesIO(IMAGES[name]))
    return stream.getvalue()


def by_digest(table: pd.DataFrame) -> dict[str, list[str]]:
    rows = table.drop(columns="id").itertuples(index=False)
    return {row[0]: list(row) for row in rows}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.mark.proves("images")
def test_each_local_source_gives_a_row_for_every_image_and_the_same_answers(
    tree: Path, tmp_path: Path, predict: Callable[..., tuple[pd.DataFrame, str]]
) -> None:
    expected, _ = predict(tree)
    assert list(expected["id"]) == sorted(IMAGES)
    assert dict(zip(expected["id"], expected["status"], strict=True))["2/broken.png"] == "truncated"
    backwards = sorted(IMAGES, reverse=True)
    (tmp_path / "list.txt").write_text("".join(f"tree/{name}\n" for name in backwards))
    table = arrow.table({"scan": [IMAGES[name] for name in backwards], "key": backwards})
    parquet.write_table(table, tmp_path / "scans.parquet")
    (tmp_path / "scans.tar").write_bytes(tar_of(backwards, io.BytesIO()))
    for at in range(3):
        names = [name for name in backwards if name.startswith(str(at))]
        (tmp_path / f"s{at}.tar").write_bytes(tar_of(names, io.BytesIO()))
    ids = {
        tmp_path / "list.txt": [f"tree/{name}" for name in backwards],
        tmp_path / "scans.parquet": backwards,
        tmp_path / "scans.tar": backwards,
        f"{tmp_path}/s{{0..2}}.tar": [
            f"s{at}.tar/{name}" for at in range(3) for name in backwards if name[0] == str(at)
        ],
    }
    for source, wanted in ids.items():
        found, _ = predict(source)
        assert list(found["id"]) == wanted
        assert by_digest(found) == by_digest(expected)


@pytest.mark.proves("store")
def test_the_same_images_in_a_bucket_give_the_same_answers(
    tree: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    predict: Callable[..., tuple[pd.DataFrame, str]],
) -> None:
    monkeypatch.setattr(store, "WAITS", ())
    use(monkeypatch, server)
    files = {f"tree/{name}": content for name, content in IMAGES.items()}
    put(server, {**files, "tars/all.tar": tar_of(list(IMAGES), io.BytesIO())})
    expected, _ = predict(tree)
    for source in ("s3://shelf/tree/", "s3://shelf/tars/all.tar"):
        found, _ = predict(source)
        assert sorted(found["id"]) == sorted(IMAGES)
        assert by_digest(found) == by_digest(expected)


@pytest.mark.proves("store")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_credentials_that_expire_stop_the_run_and_the_next_one_goes_on(
    task: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    put(server, {f"tree/{name}": content for name, content in IMAGES.items()})
    out = tmp_path / "answers"
    words = ["predict", str(task), "--system", "ridge-hog", "--images", "s3://shelf/tree/"]
    words += ["--workers", workers, "--device", "cpu", "-o", str(out)]
    with FaultyProxy(server) as proxy:
        use(monkeypatch, proxy.address)
        proxy.fault = lambda *request: (
            "refused" if any("tree/1/" in line for line in proxy.requests) else None
        )
        stopped = CliRunner().invoke(main, words)
        assert stopped.exit_code == 1, stopped.output
        assert stopped.stdout == ""
        last = stopped.stderr.splitlines()[-1]
        assert last.startswith("error: the store refuses 's3://shelf/tree/1/03.png'")
        assert "AWS_PROFILE" in last
        proxy.fault = lambda *_: None
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    rows = pd.concat(pd.read_parquet(file) for file in sorted(out.rglob("*.parquet"))
                     if "parts" in file.parts)  # fmt: skip
    assert sorted(rows["id"]) == sorted(IMAGES)


@pytest.mark.proves("images")
def test_a_tar_cut_short_gives_its_rows_and_says_so(
    tmp_path: Path, predict: Callable[..., tuple[pd.DataFrame, str]]
) -> None:
    names = [name for name in IMAGES if name.endswith("png") and "broken" not in name]
    whole = tar_of(names, io.BytesIO())
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        third = tar.getmember(names[2])
    (tmp_path / "cut.tar").write_bytes(whole[: third.offset_data + 100])
    found, said = predict(tmp_path / "cut.tar")
    assert list(found["id"]) == names[:3]
    assert list(found["status"]) == ["ok", "ok", "truncated"]
    assert "cut.tar: it is cut short" in said


@pytest.mark.parametrize(
    ("source", "message"),
    {
        "nothing": "no file or folder",
        "s3://no-such/x": "nothing at",
        "task.toml": "cells under 1 column names",
    }.items(),
)
def test_a_source_that_is_none_is_one_line(
    task: Path,
    tmp_path: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    message: str,
) -> None:
    use(monkeypatch, server)
    monkeypatch.chdir(task)
    out = tmp_path / "answers.csv"
    words = ["predict", ".", "--system", "ridge-hog", "--images", source, "-o", str(out)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert result.stdout == ""
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert message in last
    assert not out.exists()
