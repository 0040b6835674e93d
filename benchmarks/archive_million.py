"""Rows in = rows out: tiny images, 5 % of them broken, on all drivers, with processes killed.

Every image is one of 200 drawn ones with a comment of its own, so that its digest is its own and
its answer is known. A run is killed with SIGKILL at random moments, in turn its driver and one of
its other processes, and started again until it ends. Then every row is compared with what its name
says: nothing may be missing, twice, or about another image. Beside it: what a plain DataLoader and
clip-retrieval's readers bring of the same images (`--clip-retrieval FOLDER`: into which it and
webdataset were installed with `pip install --no-deps --target`).
"""

import argparse
import hashlib
import io
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import COMMAND, Figure, arguments, at_least, exactly, load, report, run, timed
from PIL import Image

_BASES, _SIZE = 200, 32
_PER_FOLDER, _PER_TAR = 1_000, 10_000
# One in twenty is broken, in four ways.
_EVERY = 20
_PROBABILITY, _ROUNDING = "p_destruction", 1e-12
_PAUSE = 0.02


def base_images() -> list[bytes]:
    """Draw JPEGs that a classifier tells apart: noise of a few wave lengths."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(_BASES):
        coarse = rng.integers(0, 256, (rng.integers(2, 9), rng.integers(2, 9), 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(coarse).resize((_SIZE, _SIZE)).save(out, "JPEG", quality=90)
        images.append(out.getvalue())
    return images


def draw(count: int, bases: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Draw (name, bytes): the name says which drawn image it is, or that it is broken."""
    for at in range(count):
        base = at * 7 % _BASES
        comment = b"\xff\xfe\x00\x0a%08d" % at
        content = bases[base][:2] + comment + bases[base][2:]
        kind = f"b{base:03}"
        if at % _EVERY == 0:
            kind = "x"
            broken = [b"", content[: len(content) // 2], b"<html>404 %d</html>" % at, b"\xff\xd8"]
            content = broken[at // _EVERY % len(broken)]
        yield f"{at // _PER_FOLDER:04}/{at:07}-{kind}.jpg", content


def write_tree(images: Iterable[tuple[str, bytes]], folder: Path) -> None:
    """Write the images as files below a folder."""
    for name, content in images:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def write_tars(images: Iterable[tuple[str, bytes]], folder: Path) -> None:
    """Write the images into tars, in no order."""
    folder.mkdir()
    rng, part, number = random.Random(0), [], 0  # noqa: S311
    for image in images:
        part.append(image)
        if len(part) == _PER_TAR:
            _write_tar(part, folder / f"{number:04}.tar", rng)
            part, number = [], number + 1
    if part:
        _write_tar(part, folder / f"{number:04}.tar", rng)


def _write_tar(images: list[tuple[str, bytes]], file: Path, rng: random.Random) -> None:
    rng.shuffle(images)
    with tarfile.open(file, "w") as tar:
        for name, content in images:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


class Command:
    """`archiveprobe predict`, started again and again until it ends by itself."""

    def __init__(self, *words: str | Path) -> None:
        self._words = [sys.executable, "-c", COMMAND, "predict", *map(str, words)]
        self.kills: Counter[str] = Counter()

    def finish(self, kills: int, longest: float, rng: random.Random) -> None:
        """Run to the end, killing `kills` times, within `longest` seconds of each start.

        Raises:
            SystemExit: the command fails by itself.
        """
        left = kills
        while True:
            with tempfile.TemporaryFile() as errors:
                process = subprocess.Popen(
                    self._words, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
                )
                left = self._kill(process, left, longest, rng)
                code = process.wait()
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if code == 0:
                    return
                if code != -signal.SIGKILL and not left:
                    errors.seek(0)
                    sys.exit(f"{' '.join(self._words)}: {errors.read().decode()}")

    def _kill(
        self, process: "subprocess.Popen[bytes]", left: int, longest: float, rng: random.Random
    ) -> int:
        """Kill the driver or another process after a while; return how many kills are left."""
        while left and process.poll() is None:
            driver = left % 2 == 0
            end = time.monotonic() + rng.uniform(0, longest)
            others: list[int] = []
            while process.poll() is None and (time.monotonic() < end or not (driver or others)):
                time.sleep(_PAUSE)
                others = [] if driver else descendants(process.pid)
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid if driver else rng.choice(others), signal.SIGKILL)
                    self.kills["driver" if driver else "worker"] += 1
                    left -= 1
            if driver:
                break
        return left


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(folder.name))
    found, wanted = [], [pid]
    while wanted:
        children = parents.get(wanted.pop(), [])
        found += children
        wanted += children
    return found


def faults(out: Path, names: Mapping[str, str], known: Mapping[str, float]) -> Counter[str]:
    """Count what is wrong with the answers in a folder: `names` maps ids to digests."""
    wrong: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for row in _rows(out, ["id", "digest", "label", _PROBABILITY]):
        name = "/".join(row["id"].split("/")[-2:])
        seen[name] += 1
        wrong["another digest"] += names.get(name) != row["digest"]
        p, expected = row[_PROBABILITY], known.get(name.removesuffix(".jpg").rpartition("-")[2])
        if expected is None:
            wrong["a label for a broken image"] += row["label"] is not None
        else:
            # A product of matrices with more rows may round its last bit in another way.
            wrong["another answer"] += p is None or abs(p - expected) > _ROUNDING
    wrong["lost"] = len(names.keys() - seen.keys())
    wrong["twice"] = sum(count - 1 for count in seen.values())
    wrong["unknown"] = len(seen.keys() - names.keys())
    return +wrong


def content_digest(out: Path) -> str:
    """Return the SHA-256 of all answers, to the bit, in the order of their ids."""
    rows = sorted((row["id"], str(row["digest"]), str(row)) for row in _rows(out, None))
    return hashlib.sha256("\n".join(row[2] for row in rows).encode()).hexdigest()


def _rows(out: Path, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    for file in sorted((out / "parts").glob("*.parquet")):
        yield from pq.read_table(file, columns=columns).to_pylist()


def answers_of_bases(task: Path, bases: list[bytes], folder: Path) -> dict[str, float]:
    """Return the probability of every drawn image, asked for by itself."""
    write_tree(((f"0/b{at:03}.jpg", content) for at, content in enumerate(bases)), folder / "bases")
    run("predict", task, "--system", "ridge-hog", "--images", folder / "bases", "-o", folder / "b")
    rows = _rows(folder / "b", None)
    return {Path(row["id"]).stem: row[_PROBABILITY] for row in rows}


def peers(tree: Path, tars: Path, count: int, sources: Path | None) -> Iterator[Figure]:
    """Say how many images the readers of others bring."""
    import torch

    def tensor(image: Image.Image) -> Any:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy())

    files = sorted(tree.rglob("*.jpg"))

    class Plain(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, at: int) -> Any:
            return tensor(Image.open(files[at]))

    loader = torch.utils.data.DataLoader(Plain(), batch_size=64)
    yield Figure("lost by a plain DataLoader", count - _brought(lambda: map(len, loader)))
    if sources is None:
        return
    sys.path.insert(0, str(sources))
    readers = runpy.run_path(str(sources / "clip_retrieval" / "clip_inference" / "reader.py"))
    how: dict[str, Any] = {"enable_text": False, "batch_size": 64, "num_prepro_workers": 0}
    shards = [str(file) for file in sorted(tars.glob("*.tar"))]
    for name, reader, source in (
        ("files", readers["FilesReader"], str(tree)),
        ("webdataset", readers["WebdatasetReader"], shards),
    ):
        batches = _batches(reader, tensor, source, how)
        lost = count - _brought(lambda batches=batches: batches)
        yield Figure(f"lost by clip-retrieval's {name} reader", lost)


def _batches(
    reader: Callable[..., Any], tensor: Callable[..., Any], source: Any, how: Mapping[str, Any]
) -> Iterator[int]:
    for batch in reader(lambda keys: keys, tensor, None, source, **how):
        yield len(batch["image_tensor"])


def _brought(batches: Callable[[], Iterable[int]]) -> int:
    total = 0
    try:
        # They tell of every image that they leave out.
        with warnings.catch_warnings(action="ignore"), redirect_stdout(None):
            for size in batches():
                total += size
    except Exception as error:
        print(f"ended by {type(error).__name__}: {' '.join(str(error).split())[:100]}")
    return total


def measure(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Draw the images, run every driver over them, and check every row."""
    task = folder / "demo" / "task.toml"
    for words in (("demo", task.parent), ("embed", task), ("probe", task, "--probe", "ridge")):
        run(*words)
    bases = base_images()
    known = answers_of_bases(task, bases, folder)
    names = {
        name: hashlib.sha256(content).hexdigest() for name, content in draw(options.images, bases)
    }
    write_tree(draw(options.images, bases), folder / "tree")
    write_tars(draw(options.images, bases), folder / "tars")
    yield Figure("images", options.images)
    rng = random.Random(options.seed)  # noqa: S311
    digests = set()
    for driver in options.drivers:
        source, ways = _ways(driver)
        out = folder / f"answers-{driver}"
        kills: Counter[str] = Counter()
        for words in ways:
            command = Command(
                task, "--system", "ridge-hog", "--images", folder / source, "-o", out, *words
            )
            share = options.kills // len(ways)
            _, seconds = timed(
                lambda command=command, share=share: command.finish(share, options.longest, rng)
            )
            kills += command.kills
            name = " ".join((driver, *words))
            yield Figure(f"{name}: images/s with restarts", options.images / len(ways) / seconds)
        wrong = faults(out, names, known)
        yield at_least(f"{driver}: SIGKILLs of a driver", kills["driver"], options.kills // 2)
        yield Figure(f"{driver}: SIGKILLs of a worker", kills["worker"])
        yield exactly(f"{driver}: wrong rows ({dict(wrong)})", sum(wrong.values()), 0)
        if source == "tree":
            digests.add(content_digest(out))
        shutil.rmtree(out)
    yield exactly("different answers of the drivers, to the bit", max(0, len(digests) - 1), 0)
    if options.peers:
        yield from peers(folder / "tree", folder / "tars", options.images, options.clip_retrieval)


def _ways(driver: str) -> tuple[str, list[tuple[str, ...]]]:
    """Return the source of a driver and the further words of its commands."""
    if driver == "tars":
        return "tars", [()]
    if driver == "units":
        return "tree", [("--units", "1/2"), ("--units", "2/2")]
    return "tree", [("--engine", "ray")] if driver == "ray" else [()]


def main() -> None:
    """Parse the options, measure and report."""
    parser = arguments(__doc__, "archive_million")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds from start to kill")
    parser.add_argument("--drivers", nargs="*", default=["local", "units", "ray", "tars"])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--clip-retrieval", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to draw; default: a temporary folder")
    options = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report(options.json, list(measure(options, Path(folder))), before)


if __name__ == "__main__":
    main()
