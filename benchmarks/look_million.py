"""How fast the page is: 1,000,000 drawn rows through the server, and a file of 2,000 images.

The rows have three systems, a map, near-duplicate groups, hostile names here and there, and drawn
thumbnails. Everything is measured in Chromium, from the action until the tiles that are then in
sight are painted with their words. The server is a process of its own, whose memory is read at the
end. The file is written from a task whose thumbnails are there (`--task`, or a drawn archive).
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Figure, arguments, at_most, cores, load, report, timed
from PIL import Image

sys.path.insert(0, str(ROOT / "tests" / "support"))
from drawn_collection import drawn_collection

from archiveprobe.look.page import render_page
from archiveprobe.look.server.app import Answers, make_app
from archiveprobe.look.server.index import Index, write_index
from archiveprobe.look.server.serve import listen, serving
from archiveprobe.look.write import write_look
from archiveprobe.task.config import load_task

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_TOKEN = "x" * 43
_PICTURES = 200
_SECOND = 1.0
# Resolves when the list stands still and every tile in sight has its words and its image.
_PAINTED = """
const frame = () => new Promise((resolve) => requestAnimationFrame(() => resolve()));
const ready = () => {
  const tiles = [...document.querySelectorAll("#panel-images .gallery .tile")];
  return !listing.running && tiles.length > 0 && tiles.every((tile) =>
    tile.querySelector(".tile-open").textContent !== "…" &&
    [...tile.querySelectorAll("img")].every((image) => image.complete || !inSight(image)));
};
const inSight = (image) => {
  const { top, bottom } = image.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
};
const painted = async () => {
  do await frame(); while (!ready());
  await frame();
};
"""
_IMAGES = "store.set({ tab: 'images' })"
_ACTIONS = {
    "first images": _IMAGES,
    "filter by class": "changeFilter({ label: [1] })",
    "filter mistakes": "changeFilter({ outcome: 'wrong' })",
    "clear the filter": "clearFilter()",
    "sort by score": "store.set({ sort: { by: 'score', descending: true } })",
    "find a rare text": "changeFilter({ text: 'photo-0123' })",
    "find a text of every row": "changeFilter({ text: 'photo' })",
    "no text": "changeFilter({ text: null })",
    "step of the threshold": "store.set({ threshold: 0.37 })",
    "another system": "store.set({ system: 1, threshold: 0.5 })",
}


def serve_index(file: Path) -> None:
    """Serve an index with drawn thumbnails; print the port, then wait until stdin ends."""
    index = Index(file)
    pictures = [_picture(seed) for seed in range(_PICTURES)]
    answers = Answers(
        page=render_page("server", index.meta),
        thumbnail=lambda digest, _: pictures[int(digest[-6:], 16) % _PICTURES],
        preview=lambda digest, _: pictures[int(digest[-6:], 16) % _PICTURES],
        neighbours=lambda *_: (),
        search=lambda *_: np.zeros(len(index), np.float32),
        corrections=list,
        record=lambda *_: None,
    )
    with listen(0) as listener:
        port = listener.getsockname()[1]
        with serving(make_app(index, answers, token=_TOKEN, port=port), listener):
            print(port, flush=True)
            sys.stdin.read()


def _picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((192, 144), Image.Resampling.BICUBIC).save(out, "WEBP")
    return out.getvalue()


@contextmanager
def server(file: Path) -> Iterator[tuple[str, int]]:
    """Run the server of an index in a process; its address and process id."""
    words = [sys.executable, __file__, "--serve", str(file)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None
        yield f"http://127.0.0.1:{int(done.stdout.readline())}/{_TOKEN}/", done.pid


def memory(pid: int) -> tuple[float, float]:
    """Return the memory of a process now, and the most that it ever had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kept = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(kept["VmRSS"]) / 1024, int(kept["VmHWM"]) / 1024


def processor_seconds() -> float:
    """Return the processor time so far of all that this process has started and still runs."""
    parents, spent = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        # Others may end meanwhile.
        with suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            pid = int(file.parent.name)
            parents[pid], spent[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / 100
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(spent[pid] for pid in own - {os.getpid()})


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; ends the benchmark where there is none."""
    found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if found is None:
        sys.exit(f"no browser: install one of {', '.join(_CHROMIUM)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def timed_action(page: Any, what: str, action: str) -> Iterator[Figure]:
    """Yield the wall seconds of an action of the page, and its processor time in all processes."""
    spent = processor_seconds()
    script = f"async () => {{ {_PAINTED} const begin = performance.now(); {action};"
    took = page.evaluate(f"{script} await painted(); return performance.now() - begin; }}") / 1000
    yield at_most(what, round(took, 2), _SECOND, "s")
    yield Figure(f"{what}: processor time", round(processor_seconds() - spent, 2), "s")


def timed_opening(page: Any, what: str, address: str, limit: float) -> Iterator[Figure]:
    """Yield the wall seconds from the address to the first tab, and its processor time."""
    spent = processor_seconds()
    begin = time.perf_counter()
    page.goto(address)
    page.wait_for_function("document.querySelector('[role=tabpanel]:not([hidden]) *')")
    yield at_most(what, round(time.perf_counter() - begin, 2), limit, "s")
    yield Figure(f"{what}: processor time", round(processor_seconds() - spent, 2), "s")


def measure_server(folder: Path, rows: int) -> Iterator[Figure]:
    """Yield the figures of a server with `rows` rows."""
    name = f"{rows:,} rows"
    drawn = [drawn_collection(rows, systems=3, neighbours=0)]
    file, took = timed(lambda: write_index(folder, "a" * 64, drawn.pop()))
    yield Figure(f"{name}: index written", round(took, 1), "s")
    yield Figure(f"{name}: index", round(file.stat().st_size / 1e6), "MB")
    with server(file) as (address, pid), chromium() as page:
        yield from timed_opening(page, f"{name}: first screen", address, _SECOND)
        for what, action in _ACTIONS.items():
            yield from timed_action(page, f"{name}: {what}", action)
        yield Figure(f"{name}: tiles in the document", page.locator(".tile").count())
        now, most = memory(pid)
        yield at_most(f"{name}: memory of the server at most", round(most), 1000, "MB")
        yield Figure(f"{name}: memory of the server now", round(now), "MB")


def measure_file(folder: Path, task_file: Path | None, images: int) -> Iterator[Figure]:
    """Yield the figures of the page file of a task."""
    task = load_task(task_file or _drawn_task(folder / "task", images))
    file = folder / "page.html"
    done, took = timed(lambda: write_look(task, file))
    name = f"file of {done.rows:,} images"
    yield at_most(f"{name}: written", round(took, 1), 20.0, "s")
    yield at_most(f"{name}: size", round(file.stat().st_size / 1e6, 1), 40.0, "MB")
    with chromium() as page:
        yield from timed_opening(page, f"{name}: usable", file.as_uri(), 2.0)
        yield from timed_action(page, f"{name}: first images", _IMAGES)


def _drawn_task(folder: Path, images: int) -> Path:
    from archiveprobe.demo.archive import write_demo
    from archiveprobe.embed.run import Options as EmbedOptions
    from archiveprobe.embed.run import embed
    from archiveprobe.probe.run import Options, run_probes

    write_demo(folder, count=images)
    task = load_task(folder)
    embed(task, EmbedOptions(workers=cores()))
    run_probes(task, Options(probes=("ridge",), workers=1))
    return task.file


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = arguments(__doc__, "look_million")
    parser.add_argument("--rows", type=int, default=1_000_000, help="0: no server")
    parser.add_argument("--images", type=int, default=2_000, help="0: no file")
    parser.add_argument("--task", type=Path, help="task of the file, with its thumbnails")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    settings: argparse.Namespace = parser.parse_args(words)
    if settings.serve is not None:
        serve_index(settings.serve)
        return
    before, figures = load(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if settings.rows:
            figures += measure_server(folder / "look", settings.rows)
        if settings.images:
            figures += measure_file(folder, settings.task, settings.images)
    report(settings.json, figures, before)


if __name__ == "__main__":
    main()
