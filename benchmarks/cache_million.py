"""What a cache of millions of rows costs: memory, time a row, finding keys, and going on.

    .venv/bin/python benchmarks/cache_million.py [--rows N] [--folder DIR]

Rows of 512 float16 go through the writer as a run of embed hands them over, with a backbone that
costs nothing: 4,096 drawn rows, again and again under new keys. Costs a row are in processor time,
which other work on the machine changes least. The writer is killed (SIGKILL) with a quarter of a
percent of the rows still to come; opening the cache again is the resume. Finding keys includes
opening the cache in a new process. 10,000,000 rows take 11 GB of disk.
"""

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, arguments, at_least, at_most, exactly, load, report

from archiveprobe.cache.store import Reader, Writer

WIDTH, DISTINCT = 512, 4096
FIRST = 100_000
ASKED = 10_000
FINGERPRINT = {"backbone": "drawn"}
SHARD_ROWS = 8192
GIGABYTE = 1000.0


def main(words: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = arguments(__doc__, "cache_million")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the cache is made, and removed again")
    options = parser.parse_args(words)
    before = load()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        figures = measure(Path(place) / "drawn-0123456789abcdef", options.rows)
    report(options.json, figures, before)


def measure(folder: Path, rows: int) -> list[Figure]:
    """Write, kill, go on, look up."""
    written = in_process(write, folder, rows, killed=True)
    costs = {int(count): seconds for count, seconds in written["costs"]}
    first, last = min(costs), max(costs)
    resumed = in_process(write, folder, rows)
    found = in_process(find, folder, rows)
    memory = max(part["megabytes"] for part in (written, resumed, found))
    early, late = 1e6 * costs[first] / first, 1e6 * costs[last] / last
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return [
        Figure("rows", rows),
        Figure("size", round(size / 1e9, 2), "GB"),
        Figure(f"cost a row, first {first:,}", round(early, 1), "us"),
        Figure(f"cost a row, {last:,}", round(late, 1), "us"),
        at_most("growth of the cost a row", round(late / early, 2), 1.3, "x"),
        at_most("memory", round(memory), GIGABYTE, "MB"),
        at_most("killed run resumes", round(resumed["opened"], 2), 10, "s"),
        at_least("rows after the kill", resumed["rows_before"], last - SHARD_ROWS),
        exactly("rows in the end", found["rows"], rows),
        at_most(f"{ASKED:,} keys found", round(found["seconds"], 2), 1, "s"),
        Figure("processor time of that", round(found["processor"], 2), "s"),
        exactly("right answers", found["right"], ASKED),
    ]


def in_process(action: Callable[..., None], *values: Any, **options: Any) -> dict[str, Any]:
    """Run `action` in a process of its own, and return what it has written down."""
    with tempfile.NamedTemporaryFile(mode="r") as file:
        fork = multiprocessing.get_context("spawn")
        process = fork.Process(target=action, args=(Path(file.name), *values), kwargs=options)
        process.start()
        process.join()
        return dict(json.loads(file.read()))


def note(file: Path, **values: Any) -> None:
    """Write figures down, with the largest memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    file.write_text(json.dumps({**values, "megabytes": peak}))


def key(number: int) -> bytes:
    """Return the key of a row."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def write(file: Path, folder: Path, rows: int, killed: bool = False) -> None:
    """Write the rows that are missing; `killed` before the last of them are committed."""
    drawn = np.random.default_rng(0).standard_normal((DISTINCT, 1, WIDTH)).astype(np.float32)
    started = time.perf_counter()
    with Writer.open(folder, FINGERPRINT, {}) as writer:
        opened, before = time.perf_counter() - started, len(writer.keys)
        costs, begun = [], time.process_time()
        first = max(0, before // DISTINCT * DISTINCT - DISTINCT)
        for number in range(first, rows):
            if killed and number in (min(FIRST, rows // 2), rows - rows // 400):
                costs.append((number, time.process_time() - begun))
                note(file, costs=costs, opened=opened, rows_before=before)
                if len(costs) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            writer.add(key(number), drawn[number % DISTINCT])
    note(file, costs=costs, opened=opened, rows_before=before)


def find(file: Path, folder: Path, rows: int) -> None:
    """Look for keys, of which about half are there."""
    asked = np.random.default_rng(1).integers(0, 2 * rows, ASKED).tolist()
    keys = list(map(key, asked))
    started, begun = time.perf_counter(), time.process_time()
    reader = Reader(folder)
    there = reader.keys.holds(keys)
    seconds, processor = time.perf_counter() - started, time.process_time() - begun
    right = int((there == (np.array(asked) < rows)).sum())
    note(file, rows=len(reader.keys), seconds=seconds, processor=processor, right=right)


if __name__ == "__main__":
    main()
