"""Does the memory that embed needs grow with the archive, and how long does a large one take?

    .venv/bin/python benchmarks/memory_growth.py [--sizes 2000 20000] [--backbone hog]

Draws archives of small distinct JPEGs, every one labelled unless --labelled says how many are, and
runs the real `archiveprobe embed` on each, twice: the second run has nothing to do. A process's
peak is what its kernel recorded (VmHWM); "with decoders" adds the peaks of all its children.
Linux only. Takes about six minutes on two cores.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import COMMAND, ROOT, Figure, arguments, at_most, load, report
from drawn import small_image, write_task

LIMIT_MB = 50
_POLL_SECONDS = 0.2
# The process writes down its own peak as the last thing it does: a poll might come too early.
_WATCHED = (
    "import atexit, pathlib, sys; out = pathlib.Path(sys.argv.pop(1)); "
    "atexit.register(lambda: out.write_bytes(pathlib.Path('/proc/self/status').read_bytes())); "
)


class Peak(NamedTuple):
    """What one run took: MB of the process alone and with its children, and wall seconds."""

    alone: float
    with_decoders: float
    seconds: float


def main(words: list[str] | None = None) -> None:
    """Run both sizes and print the table."""
    parser = arguments(__doc__, "memory_growth")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--labelled", type=int, default=None)
    parser.add_argument("--backbone", default="hog", help='"tiny" is a small random network')
    options = parser.parse_args(words)
    if not Path("/proc/self/status").exists():
        sys.exit("skipped: this benchmark reads peaks from /proc, which Linux has")
    before = load()
    runs = {}
    for count in options.sizes:
        labelled = count if options.labelled is None else options.labelled
        with tempfile.TemporaryDirectory() as name:
            task = draw(Path(name), count, labelled, options.backbone)
            runs[count] = [watched(task), watched(task)]
    report(options.json, list(figures(runs)), before)


def draw(folder: Path, count: int, labelled: int, backbone: str) -> Path:
    """Return an archive of `count` distinct small images, the first `labelled` with a label."""
    images = folder / "images"
    images.mkdir()
    lines = ["image,label"]
    for number in range(count):
        name = f"{number:06}.jpg"
        (images / name).write_bytes(small_image(number))
        lines.append(f"{name},{('intact', 'destroyed')[number % 2] if number < labelled else ''}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    return write_task(folder, [backbone], "center", 'table = "labels.csv"')


def watched(task: Path) -> Peak:
    """Run embed as a user does, watching its memory."""
    status = task.parent / "status"
    command = [sys.executable, "-c", _WATCHED + COMMAND, str(status), "embed", str(task)]
    started = time.perf_counter()
    children: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, cwd=ROOT)
        while process.poll() is None:
            for child in descendants(process.pid):
                children[child] = max(children.get(child, 0.0), peak_of(f"/proc/{child}/status"))
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            sys.exit(f"embed {task} failed: {said.read()}")
    alone = peak_of(str(status))
    return Peak(alone, alone + sum(children.values()), seconds)


def descendants(pid: int) -> Iterator[int]:
    """Return the children of a process, and theirs; those that end meanwhile are left out."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(word) for word in listed.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from descendants(child)


def peak_of(status: str) -> float:
    """Return the peak resident size in a status file, in MB; 0 for a process that has gone."""
    try:
        lines = Path(status).read_text().splitlines()
    except OSError:
        return 0.0
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return kib[0] * 1024 / 1e6 if kib else 0.0


def figures(runs: dict[int, list[Peak]]) -> Iterator[Figure]:
    """Return the growth from the smallest to the largest archive, and every run by itself."""
    small, *_, large = sorted(runs)
    for at, which in enumerate(("first run", "run with nothing to do")):
        low, high = runs[small][at], runs[large][at]
        span = f"{which}, {small} to {large} images"
        yield growth(f"growth, {span}, process", high.alone - low.alone)
        yield growth(f"growth, {span}, with decoders", high.with_decoders - low.with_decoders)
        for count, peaks in runs.items():
            peak = peaks[at]
            yield Figure(f"peak, {which}, {count} images, process", round(peak.alone), "MB")
            yield Figure(f"time, {which}, {count} images", round(peak.seconds, 2), "s")


def growth(name: str, size: float) -> Figure:
    """Return a growth in MB, held to the target."""
    return at_most(name, round(size, 1), LIMIT_MB, "MB")


if __name__ == "__main__":
    main()
