"""How fast an archive is listed and indexed, in which memory, and how fast it is read.

    .venv/bin/python benchmarks/archive_sources.py [--files N] [--members N] [--rows N]

Draws a tree of tiny files, 100 to a folder, a tar of as many members as asked for, and a list, a
CSV and a Parquet table of paths, of which only the first file is there. Each is opened and indexed
in a process of its own; "memory" is what its peak adds to what the imports had taken (Linux). Then
every 64th image of the tree and of the tar is read, by the references of the index.
"""

import io
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from common import Figure, arguments, at_most, load, report

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.source import open_source

MEMORY_LIMIT = 150
_MB = 1024 * 1024
_PER_FOLDER = 100
_CONTENT = b"\xff\xd8\xff tiny"


class Cost(NamedTuple):
    """What listing took: images, wall and processor seconds, MB of memory, MB on disk, reads/s."""

    images: int
    seconds: float
    processor: float
    memory: float
    disk: float
    reads: float


def main(words: list[str] | None = None) -> None:
    """Draw the sources, measure each, and print the table."""
    parser = arguments(__doc__, "archive_sources")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=500_000)
    options = parser.parse_args(words)
    before = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {
            "folder tree": draw_tree(folder / "tree", options.files),
            "tar": draw_tar(folder / "members.tar", options.members),
            **draw_tables(folder, options.rows),
        }
        costs = {
            kind: alone(source, folder / f"{kind}.parquet") for kind, source in sources.items()
        }
    report(
        options.json, [figure for kind in costs for figure in figures(kind, costs[kind])], before
    )


def draw_tree(folder: Path, count: int) -> Path:
    """Write `count` files, 100 to a folder."""
    for at in range(count):
        file = folder / f"{at // _PER_FOLDER:05}" / f"photograph-{at:08}.jpg"
        if at % _PER_FOLDER == 0:
            file.parent.mkdir(parents=True)
        file.write_bytes(_CONTENT)
    return folder


def draw_tar(file: Path, count: int) -> Path:
    """Write a tar of `count` members and as many companions."""
    with tarfile.open(file, "w") as tar:
        for at in range(count):
            for ending in ("jpg", "json"):
                member = tarfile.TarInfo(f"photograph-{at:08}.{ending}")
                member.size = len(_CONTENT)
                tar.addfile(member, io.BytesIO(_CONTENT))
    return file


def draw_tables(folder: Path, count: int) -> dict[str, Path]:
    """Write a list, a CSV and a Parquet table of `count` paths."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    (folder / "photograph-00000000.jpg").write_bytes(_CONTENT)
    paths = [f"photograph-{at:08}.jpg" for at in range(count)]
    (folder / "list.txt").write_text("\n".join(paths))
    (folder / "table.csv").write_text("path,year\n" + "".join(f"{path},1948\n" for path in paths))
    parquet.write_table(arrow.table({"path": paths}), folder / "table.pq")
    return {
        "list": folder / "list.txt",
        "CSV": folder / "table.csv",
        "Parquet": folder / "table.pq",
    }


def alone(source: Path, index: Path) -> Cost:
    """Measure one source in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, source, index).result()


def measure(place: Path, file: Path) -> Cost:
    """Index a source and read some of its images."""
    import pyarrow.parquet  # noqa: F401

    start, begin, before = time.perf_counter(), time.process_time(), _peak()
    source = open_source(str(place))
    index = write_index(source, file, 64)
    seconds, processor = time.perf_counter() - start, time.process_time() - begin
    memory, disk = _peak() - before, file.stat().st_size / _MB
    reads = 0.0 if place.is_file() and place.suffix != ".tar" else _reads(place, index)
    return Cost(index.images, seconds, processor, memory, disk, reads)


def _reads(place: Path, index: Index) -> float:
    source = open_source(str(place))
    chosen = [index.unit(number).references[0] for number in range(index.units)]
    start = time.perf_counter()
    for reference in chosen:
        source.read(reference)
    return len(chosen) / (time.perf_counter() - start)


def _peak() -> float:
    # ru_maxrss would be that of the parent, which drew it all.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def figures(kind: str, cost: Cost) -> list[Figure]:
    """Return the figures of one source."""
    found = [
        Figure(f"{kind}: images", cost.images),
        Figure(f"{kind}: listed and indexed", round(cost.images / cost.seconds), "images/s"),
        Figure(f"{kind}: of processor time", round(cost.images / cost.processor), "images/s"),
        at_most(f"{kind}: memory", round(cost.memory, 1), MEMORY_LIMIT, "MB"),
        Figure(f"{kind}: index", round(cost.disk * _MB / cost.images, 1), "bytes/image"),
    ]
    return [*found, Figure(f"{kind}: read", round(cost.reads), "/s")] if cost.reads else found


if __name__ == "__main__":
    main()
