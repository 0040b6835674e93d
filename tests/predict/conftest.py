"""Small archives with a cache of drawn embeddings, and systems fitted on them."""

import csv
import hashlib
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshots import write_snapshot

from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import Entry, write_manifest

TWO, THREE = ("intact", "destroyed"), ("intact", "damaged", "destroyed")
PROBES = ("ridge", "logistic", "lda")
WIDTH, VIEWS = 6, 2
EXTRA = """
[folds]
count = 3
repeats = 2
group = "none"
[embed]
backbones = ["hog"]
views = "center"
"""


@dataclass
class Plan:
    """What an archive holds: rows with a label, rows to predict, and how ids are written."""

    labels: Sequence[str] = TWO
    known: int = 72
    test: int = 24
    name: Callable[[int], str] = "{:03}.jpg".format
    broken: Sequence[int] = ()
    settings: str = ""
    seed: int = 0


class Archive:
    """A task whose images are words: their embeddings are drawn around a mean per class."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        count = plan.known + plan.test
        self.ids = [plan.name(at) for at in range(count)]
        self.truth = [plan.labels[at % len(plan.labels)] for at in range(count)]
        self._write_table()
        self._write_pictures()
        self._write_cache(np.random.default_rng(plan.seed))

    @property
    def task(self) -> Task:
        return load_task(self.folder)

    @property
    def test_ids(self) -> list[str]:
        return self.ids[self.plan.known :]

    @property
    def test_truth(self) -> list[str]:
        return self.truth[self.plan.known :]

    def content(self, at: int) -> bytes:
        return f"image {at} of {self.plan.seed}".encode()

    def _write_table(self) -> None:
        plan, shown = self.plan, [*self.truth[: self.plan.known], *[""] * self.plan.test]
        splits = ["train"] * plan.known + ["test"] * plan.test
        self.write_csv("labels.csv", [["image", "label", "split"],
                                      *zip(self.ids, shown, splits, strict=True)])  # fmt: skip
        quoted = ", ".join(f'"{label}"' for label in plan.labels)
        text = f'name = "drawn"\nlabels = [{quoted}]\n[images]\ntable = "labels.csv"\n'
        (self.folder / "task.toml").write_text(f'{text}split = "split"\n{plan.settings}{EXTRA}')

    def write_csv(self, name: str, rows: Sequence[Sequence[str]]) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
        return file

    def template(self, rows: Sequence[Sequence[str]], name: str = "form.csv") -> Task:
        """Write a template and name it in task.toml."""
        self.write_csv(name, rows)
        return self.set(f'[submission]\ntemplate = "{name}"\n')

    def set(self, settings: str) -> Task:
        file = self.folder / "task.toml"
        file.write_text(file.read_text() + settings)
        return self.task

    def _write_pictures(self) -> None:
        entries = []
        for at, id_ in enumerate(self.ids):
            file, content = self.folder / "images" / id_, self.content(at)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            status = "truncated" if at in self.plan.broken else "ok"
            seen = Observation(status, bytes=len(content))
            entries.append(Entry(id_, id_, hashlib.sha256(content).hexdigest(), seen))
        write_manifest(self.task, entries)
        write_snapshot(self.task)

    def add_backbone(self, name: str, failed: Sequence[int] = ()) -> None:
        """A cache of another backbone; the rows `failed` have no embedding in it."""
        file = self.folder / "task.toml"
        file.write_text(file.read_text().replace('["hog"]', f'["hog", "{name}"]'))
        self._write_cache(np.random.default_rng(self.plan.seed + 1), name, failed)

    def _write_cache(
        self, rng: np.random.Generator, name: str = "hog", failed: Sequence[int] = ()
    ) -> None:
        plan, task = self.plan, self.task
        means = 0.8 * rng.normal(size=(len(plan.labels), WIDTH))
        fingerprint = {"backbone": name, "precision": "fp32", "seed": plan.seed}
        root = task.work / "cache" / folder_name(name, fingerprint)
        with Writer.open(root, fingerprint, {"asked": task.asks(name)}) as writer:
            for at, label in enumerate(self.truth):
                views = means[plan.labels.index(label)] + rng.normal(size=(VIEWS, WIDTH))
                key = hashlib.sha256(self.content(at)).digest()
                if at in failed:
                    writer.fail(key, "zero", "drawn so")
                elif at not in plan.broken:
                    writer.add(key, views)
        write_snapshot(task)

    def fit(self, **options: Any) -> None:
        """Probes, and every ensemble of them."""
        run_probes(self.task, Options(**{"probes": PROBES, "workers": 1} | options))
        members = [f"{probe}-hog" for probe in options.get("probes", PROBES)]
        for method in ("mean", "probability", "rank", "vote", "greedy", "stack"):
            run_ensemble(self.task, method, members)


def read(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[list[str]]]:
    """The cells of a CSV file."""
    return read


@pytest.fixture(scope="session")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Archive]:
    """An archive after a plan, not fitted; every call another one."""

    def draw(**plan: Any) -> Archive:
        return Archive(tmp_path_factory.mktemp("drawn"), Plan(**plan))

    return draw


@pytest.fixture(scope="session")
def fitted(draw: Callable[..., Archive]) -> Callable[..., Archive]:
    """An archive with systems; equal plans share one, so nobody may change it."""
    made: dict[str, Archive] = {}

    def fitted(**plan: Any) -> Archive:
        if repr(plan) not in made:
            made[repr(plan)] = draw(**plan)
            made[repr(plan)].fit()
        return made[repr(plan)]

    return fitted


@pytest.fixture
def copied(fitted: Callable[..., Archive], tmp_path: Path) -> Callable[..., Archive]:
    """A copy of a fitted archive: free to be changed."""

    def copied(**plan: Any) -> Archive:
        source = fitted(**plan)
        shutil.copytree(source.folder, tmp_path / "archive")
        copy = object.__new__(Archive)
        copy.__dict__ |= deepcopy(source.__dict__) | {"folder": tmp_path / "archive"}
        return copy

    return copied


@pytest.fixture
def archive(copied: Callable[..., Archive]) -> Archive:
    """A copy of a fitted archive of two labels, two test images broken."""
    return copied(broken=(3, 75, 80))
