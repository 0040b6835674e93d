"""Archives in an object store: a real S3-compatible server on loopback, and what may go wrong."""

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from bucket_server import FaultyProxy, forget, put, s3_server, use

from archiveprobe.archive import store
from archiveprobe.archive.bucket import BucketSource
from archiveprobe.archive.index import write_index
from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.archive.source import Source, open_source
from archiveprobe.base.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n"
FILES = {
    "images/b/2.jpg": b"two",
    "images/a.png": PNG + b"a",
    "images/a/1.jpg": b"one" * 1000,
    "images/empty.jpg": b"",
    "images/no ending + ü": PNG,
    "images/notes.txt": b"notes",
    "images/.hidden/x.jpg": b"x",
    "images/": b"",
}
IMAGES = {
    name.removeprefix("images/"): content
    for name, content in sorted(FILES.items())
    if "hidden" not in name and not name.endswith(("/", ".txt"))
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def shelf(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, server)
    monkeypatch.setattr(store, "WAITS", (0.01, 0.02))
    put(server, FILES)
    return server


@pytest.fixture
def proxy(shelf: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(shelf) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        forget()
        yield proxy


def contents(source: Source) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for reference in source.references(notify=lambda _: None):
        try:
            found[reference.id] = source.read(reference)
        except UnreadableError as fault:
            found[reference.id] = fault.status
    return found


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_a_prefix_is_listed_as_a_folder_is(shelf: str) -> None:
    url = "s3://shelf/images/"
    said: list[str] = []
    source = open_source(url, notify=said.append)
    references = list(source.references(notify=said.append))
    assert [reference.id for reference in references] == sorted(IMAGES)
    assert contents(pickle.loads(pickle.dumps(source))) == IMAGES  # noqa: S301
    assert said == [
        f"{url}: ignored 1 file that is no image: .txt (1)",
        f"{url}: taken for images in spite of unknown endings: 1 file",
    ]


def test_a_prefix_of_many_pages_is_listed_whole(
    shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = store._ask

    def small_pages(root: str, filesystem: object, where: dict[str, object]) -> object:
        return asked(root, filesystem, {**where, "MaxKeys": 2})

    monkeypatch.setattr(store, "_ask", small_pages)
    assert contents(open_source("s3://shelf/images")) == IMAGES


def test_tars_lists_and_tables_in_a_bucket_are_read(shelf: str, tmp_path: Path) -> None:
    tars = {f"tars/{at}.tar": tar_of({f"{at}.jpg": b"%d" % at * 9000, "x.json": b""})
            for at in range(3)}  # fmt: skip
    table = arrow.table({"image": [b"first", None], "key": ["p", "q"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    texts = {"images/list.txt": b"a/1.jpg\ngone.jpg\n", "t.csv": b"n,path\n1,images/b/2.jpg\n"}
    put(shelf, {**FILES, **tars, **texts, "t.parquet": (tmp_path / "t.parquet").read_bytes()})
    members = {f"{at}.tar/{at}.jpg": b"%d" % at * 9000 for at in range(3)}
    assert contents(open_source("s3://shelf/tars/")) == members
    assert contents(open_source("s3://shelf/tars/*.tar")) == members
    assert contents(open_source("s3://shelf/tars/{0..2}.tar")) == members
    assert contents(open_source("s3://shelf/tars/1.tar")) == {"1.jpg": b"1" * 9000}
    assert contents(open_source("s3://shelf/images/list.txt")) == {
        "a/1.jpg": b"one" * 1000,
        "gone.jpg": "missing_file",
    }
    assert contents(open_source("s3://shelf/t.csv")) == {"images/b/2.jpg": b"two"}
    assert contents(open_source("s3://shelf/t.parquet")) == {"p": b"first", "q": "missing_file"}


def test_one_tar_on_a_web_server_is_read(shelf: str) -> None:
    put(shelf, {"a.tar": tar_of(IMAGES)}, acl="public-read")
    assert contents(open_source(f"{shelf}/shelf/a.tar")) == IMAGES


def test_a_local_table_names_files_in_a_bucket(shelf: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("s3://shelf/images/b/2.jpg\ns3://shelf/images/gone.jpg\n")
    assert contents(open_source(str(tmp_path / "list.txt"))) == {
        "s3://shelf/images/b/2.jpg": b"two",
        "s3://shelf/images/gone.jpg": "missing_file",
    }


def test_a_member_of_a_tar_is_read_by_its_range_alone(proxy: FaultyProxy) -> None:
    put(proxy.target, {"big.tar": tar_of({f"{at}.jpg": b"%d" % at * 5000 for at in range(9)})})
    source = open_source("s3://shelf/big.tar")
    references = list(source.references(notify=print))
    proxy.requests.clear()
    assert source.read(references[4]) == b"4" * 5000
    assert proxy.requests == ["GET /shelf/big.tar"]


@pytest.mark.proves("store")
@pytest.mark.parametrize("fault", ["503", "slow", "short", "dropped"])
def test_a_store_that_fails_for_a_moment_is_asked_again(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, fault: str, tmp_path: Path
) -> None:
    if fault == "slow":
        monkeypatch.setattr(store, "READ_SECONDS", 3)
    put(proxy.target, {**FILES, "a.tar": tar_of(IMAGES)})
    often = 9 if fault == "slow" else 3
    proxy.fault = lambda *request: fault if request[2] % often == 1 else None
    assert contents(open_source("s3://shelf/images")) == IMAGES
    assert contents(open_source("s3://shelf/a.tar")) == IMAGES
    index = write_index(open_source("s3://shelf/images"), tmp_path / "index", 64)
    assert index.images == len(IMAGES)


@pytest.mark.proves("store")
@pytest.mark.parametrize("fault", ["503", "short"])
def test_a_file_that_a_store_never_gives_costs_itself_only(proxy: FaultyProxy, fault: str) -> None:
    source = open_source("s3://shelf/images")
    proxy.fault = lambda _, path, __: fault if path.startswith("/shelf/images/b/") else None
    assert contents(source) == {**IMAGES, "b/2.jpg": "unreadable_file"}
    tries = [line for line in proxy.requests if "b/2.jpg" in line]
    assert 3 <= len(tries) <= 6


@pytest.mark.proves("store")
def test_a_missing_file_does_not_end_a_run_whose_store_fails_for_a_moment(
    proxy: FaultyProxy,
) -> None:
    source = open_source("s3://shelf/images")
    listings: list[str] = []

    def fault(_: str, path: str, __: int) -> str | None:
        listings.extend([path] if "list-type" in path else [])
        return "503" if "list-type" in path and len(listings) == 1 else None

    proxy.fault = fault
    with pytest.raises(UnreadableError, match="missing_file"):
        source.read(Reference("gone.jpg", "gone.jpg", 0, 5))
    assert len(listings) == 2


@pytest.mark.proves("store")
def test_a_store_that_goes_on_failing_stops_the_run_in_one_line(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    source = open_source("s3://shelf/images")
    references = list(source.references(notify=print))
    monkeypatch.setattr(store, "WAITS", (1, 2, 4))
    monkeypatch.setattr(store.time, "sleep", waited.append)
    proxy.fault = lambda *_: "503"
    with pytest.raises(InputError, match=r"the store fails at .*reduce your request rate.*4 tries"):
        source.read(references[0])
    assert waited == [1, 2, 4]
    with pytest.raises(InputError, match="the store fails at"):
        open_source("s3://shelf/images")


@pytest.mark.proves("store")
def test_without_credentials_one_line_says_which_to_give(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source("s3://shelf/images")
    references = list(source.references(notify=print))
    proxy.requests.clear()
    proxy.fault = lambda *_: "refused"
    for action in (lambda: source.read(references[1]), lambda: open_source("s3://shelf/images")):
        with pytest.raises(InputError, match=r"the store refuses .*AWS_ACCESS_KEY_ID.*same comm"):
            action()
    assert len(proxy.requests) <= 6
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget()
    with pytest.raises(InputError, match=r"the store refuses .*credentials.*AWS_PROFILE"):
        open_source("s3://shelf/other")


def test_a_public_bucket_needs_no_credentials(shelf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    put(shelf, FILES, acl="public-read")
    forget()
    # The variable FSSPEC_S3_ANON is read when fsspec is imported first.
    settings: dict[str, dict[str, object]] = {}
    fsspec.config.set_conf_env(settings, {"FSSPEC_S3_ANON": "true"})
    monkeypatch.setitem(fsspec.config.conf, "s3", settings["s3"])
    assert contents(open_source("s3://shelf/images")) == IMAGES


def test_one_file_that_is_refused_costs_itself_only(proxy: FaultyProxy) -> None:
    source = open_source("s3://shelf/images")
    proxy.fault = lambda _, path, __: "refused" if path.endswith("2.jpg") else None
    assert contents(source)["b/2.jpg"] == "unreadable_file"


def test_a_file_replaced_since_it_was_listed_is_read_as_it_is_now(shelf: str) -> None:
    source = open_source("s3://shelf/images")
    references = {ref.id: ref for ref in source.references(notify=print)}
    put(shelf, {"images/a.png": b"much longer than before", "images/a/1.jpg": b"short"})
    assert source.read(references["a.png"]) == b"much longer than before"
    assert source.read(references["a/1.jpg"]) == b"short"
    with pytest.raises(UnreadableError, match="missing_file"):
        source.read(references["b/2.jpg"])


@pytest.mark.parametrize(
    ("url", "message"),
    {
        "s3://shelf/nothing": "nothing at .*correct its name",
        "s3://no-such-bucket/x": "nothing at .*correct its name",
        "s3://shelf/{0,1}.tar": "which the braces name",
        "s3://shelf/*.tar": "no file at",
        "s3://shelf/images/a.png": "is one image",
        "gs://shelf/images": "needs a library for that store",
    }.items(),
)
def test_a_wrong_url_is_refused_in_one_line(shelf: str, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(url)


def test_a_bucket_that_is_gone_stops_the_run(shelf: str) -> None:
    source = open_source("s3://shelf/images")
    assert isinstance(source, BucketSource)
    references = list(source.references(notify=print))
    put(shelf, {}, bucket="another")
    with pytest.raises(InputError, match="the store fails at"):
        source.read(references[1])


def test_a_large_file_is_not_downloaded(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IMAGE_BYTES", 2000)
    source = open_source("s3://shelf/images")
    references = {ref.id: ref for ref in source.references(notify=print)}
    proxy.requests.clear()
    with pytest.raises(UnreadableError) as fault:
        source.read(references["a/1.jpg"])
    assert (fault.value.status, fault.value.size) == ("too_many_bytes", 3000)
    assert not proxy.requests
