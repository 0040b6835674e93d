"""A task in the middle of things: what happens to it in random order, against what must be true.

ARCHIVEPROBE_TRIALS=50 tries fifty histories of a hundred steps, each another one every time.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from shelf import LABELS, Shelf, drifted, image, killed_embed, near, uncorrected, weighed_bench

from archiveprobe.base.errors import InputError
from archiveprobe.embed.inventory import verify_caches
from archiveprobe.evaluate.choose_threshold import report_threshold
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.evaluate.system_status import overview
from archiveprobe.probe.audit.run import run_audit
from archiveprobe.task.duplicates import near_duplicate_groups
from archiveprobe.task.manifest import read_manifest
from archiveprobe.task.snapshot import read_snapshot

TRIALS = int(os.environ.get("ARCHIVEPROBE_TRIALS", "0"))
FEWEST = 8
ACTIONS = [
    *["embed", "embed", "embed", "embed", "embed_killed", "embed_killed"],
    *["probe", "probe", "probe", "answer", "answer", "answer", "ensemble", "audit_apply"],
    *["list_systems", "list_systems", "look_without_images", "go_on_elsewhere", "damage"],
    *["add_rows", "add_copy", "add_copy", "remove_row", "rename_file", "replace_image"],
    *["lose_image", "correct_label", "label_row", "replace_weights", "change_views"],
]


class Trial(RuleBasedStateMachine):
    """A shelf, and a model of it: `complete` says that the last embed came to its end.

    `seen` is the content of every row at that time; `used` the weights behind the cache that every
    set of views has in use; `held` the contents that have an embedding, by weights and views.
    `fitted` is the state that every system was fitted on. `doubt` is what a kill or a damaged file
    leaves: commands may refuse then, but what they say is right.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="trial-"))
        self.stack.callback(shutil.rmtree, self.root)
        self.bench = self.stack.enter_context(weighed_bench())
        self.shelf = Shelf(self.root / "0", self.bench)
        self.shelf.fill(14, 4)
        self.count = 100
        self.weights = "first"
        self.complete, self.doubt = False, False
        self.seen: dict[str, bytes | None] = {}
        self.used: dict[str, str] = {}
        self.held: dict[tuple[str, str], set[bytes]] = {}
        self.fitted: dict[str, tuple[Any, ...]] = {}
        self.runs: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.contents = {_digest(line.content): line.content for line in self.lines}
        self.references: dict[str, Any] = {}

    # Not a rule for each: Hypothesis leaves most of them out in any one history.
    @rule(action=st.sampled_from(ACTIONS), seed=st.integers(0, 2**32 - 1))
    def step(self, action: str, seed: int) -> None:
        getattr(self, action)(Random(seed))

    def teardown(self) -> None:
        self.stack.close()

    # The model

    @property
    def lines(self) -> list[Any]:
        return list(self.shelf.lines.values())

    @property
    def waits(self) -> bool:
        """Whether figures have to wait for embed, as far as a reader without images can know."""
        if not self.complete or self.shelf.lines.keys() - self.seen.keys():
            return True
        used = self.used.get(self.shelf.views)
        wanted = {self.seen[name] for name in self.shelf.lines} - {None}
        return used is None or not wanted <= self.held[used, self.shelf.views]

    @property
    def has_changed(self) -> bool:
        """Whether an image is another than embed has seen."""
        return any(self.seen.get(name) != line.content for name, line in self.shelf.lines.items())

    def state(self) -> tuple[Any, ...]:
        """What a system learns from: rows, labels, images, folds with groups, and the weights."""
        labels = self.shelf.labels
        try:
            digests = self.shelf.digests()
        except InputError:
            return ("damaged",)
        rows = [(name, labels[name], digests.get(name)) for name in self.shelf.lines
                if name in labels]  # fmt: skip
        places = self.shelf.places()
        folds = [places.get(name, ("", ""))[1] for name, *_ in rows]
        groups = [places.get(name, ("", ""))[0] for name, *_ in rows]
        return (
            tuple(rows),
            tuple(folds),
            tuple(map(groups.index, groups)),
            self.used.get(self.shelf.views),
            self.shelf.views,
        )

    def reference(self) -> "Shelf":
        """The same inputs, embedded in one go: images as the manifest knows them."""
        digests = self.shelf.digests()
        folds = self.shelf.work / "folds.csv"
        weights = self.used_weights()
        key = repr((self.shelf.lines.keys(), self.shelf.labels, digests, self.shelf.views, weights))
        key = _digest(key.encode() + folds.read_bytes())
        if key not in self.references:
            other = Shelf(self.root / f"reference-{len(self.references)}", self.bench)
            other.views = self.shelf.views
            other.weigh("eye", weights)
            for name in self.shelf.lines:
                content = self.contents.get(digests.get(name, ""))
                other.put(name, self.shelf.labels.get(name, ""), content)
                assert self.doubt or content == self.seen[name]
            other.work.mkdir()
            shutil.copy(folds, other.work)
            other.embed()
            assert (other.work / "folds.csv").read_bytes() == folds.read_bytes()
            self.references[key] = other
        return self.references[key]

    def used_weights(self) -> str:
        """The weights behind the cache in use, by the digest in its fingerprint."""
        from archiveprobe.evaluate.caches import open_in_use

        reader = open_in_use(self.shelf.task, read_snapshot(self.shelf.task), "eye", partial=True)
        names = [self.weights, *self.used.values(), "first", "second", "third"]
        return next(one for one in names if _digest(one.encode()) == reader.fingerprint["weights"])

    def try_figures(self, command: Callable[[], Any]) -> Any:
        """What a command gives; None where it refuses, which it may only while something waits."""
        try:
            found = command()
        except InputError as error:
            message = str(error)
            assert len(message.splitlines()) == 1
            few = "label more of them" in message
            changed = "have changed since they were embedded" in message and self.has_changed
            assert self.waits or self.doubt or few or changed, f"refused for nothing: {message}"
            return None
        assert not self.waits or self.doubt, "figures, though something waits"
        return found

    # What people do

    def embed(self, _: Random) -> None:
        probed = False
        for _ in range(6):
            try:
                self.shelf.embed()
                if self.doubt:
                    # What embed has no reason to read is found by whoever reads it.
                    self.shelf.export()
                    self.shelf.probe()
                    probed = True
                break
            except InputError as error:
                assert self.doubt, f"embed refused: {error}"
                self.follow(str(error))
        else:
            raise AssertionError("six times the way out that was told, and still no way out")
        self.note_embedded()
        if probed:
            self.note_system("ridge-eye")

    def note_embedded(self) -> None:
        self.complete, self.doubt = True, False
        self.seen = {name: line.content for name, line in self.shelf.lines.items()}
        views = self.shelf.views
        self.used = {kept: by for kept, by in self.used.items() if by == self.weights}
        self.used[views] = self.weights
        contents = set(self.seen.values()) - {None}
        self.held.setdefault((self.weights, views), set()).update(contents)
        truth = {name: _digest(content) if content else "" for name, content in self.seen.items()}
        assert self.shelf.digests() == truth
        assert self.used_weights() == self.weights
        assert not self.waits
        assert read_snapshot(self.shelf.task).decoded

    def follow(self, message: str) -> None:
        """Do what a message says, as far as it is not to run the same again."""
        if "folds.csv" in message:
            assert "restore it from a copy, or delete it" in message
            (self.shelf.work / "folds.csv").unlink()
        elif "cache verify" in message:
            verify_caches(self.shelf.task, deep=True)
        elif "move the folder" in message and self.tried == message:
            folder = message.partition("move the folder ")[2].partition(" away")[0]
            shutil.rmtree(folder)
        else:
            assert "archiveprobe embed" in message or "run embed" in message, message
        self.tried = message

    tried = ""

    def embed_killed(self, rng: Random) -> None:
        if killed_embed(self.shelf, rng.randint(1, 60), "disk"):
            self.complete, self.doubt = False, True
        elif not self.doubt:
            self.note_embedded()

    def add_rows(self, rng: Random) -> None:
        for _ in range(rng.randint(1, 3)):
            label = rng.choice([*LABELS, ""])
            self.put(self.name(), label, image(rng.getrandbits(30), label or rng.choice(LABELS)))

    def add_copy(self, rng: Random) -> None:
        """A re-post, a near-duplicate, or what may be one; labelled like its original, or not."""
        line = rng.choice(self.lines)
        if line.content is not None:
            seed = rng.getrandbits(30)
            ways = (line.content, near(line.content), drifted(line.content, seed))
            self.put(self.name(), rng.choice([line.label, ""]), rng.choice(ways))

    def name(self) -> str:
        self.count += 1
        return f"{self.count}.png"

    def put(self, name: str, label: str, content: bytes | None) -> None:
        self.shelf.put(name, label, content)
        if content is not None:
            self.contents[_digest(content)] = content

    def remove_row(self, rng: Random) -> None:
        name = self.pick(rng)
        if self.spare(name):
            self.shelf.drop(name)

    def pick(self, rng: Random) -> str:
        return rng.choice(list(self.shelf.lines))

    def spare(self, name: str) -> bool:
        """Whether enough rows stay when this one goes, or bears another label."""
        labels = self.shelf.labels
        if name not in labels:
            return len(self.lines) - len(labels) > 1
        return list(labels.values()).count(labels[name]) > FEWEST // 2

    def rename_file(self, rng: Random) -> None:
        self.shelf.rename(self.pick(rng), self.name())

    def replace_image(self, rng: Random) -> None:
        name = self.pick(rng)
        content = image(rng.getrandbits(30), self.shelf.labels.get(name, ""))
        self.put(name, self.shelf.lines[name].label, content)

    def lose_image(self, rng: Random) -> None:
        name = self.pick(rng)
        if sum(line.content is not None for line in self.lines) > FEWEST:
            self.put(name, self.shelf.lines[name].label, None)

    def correct_label(self, rng: Random) -> None:
        name = self.pick(rng)
        if self.spare(name) and name in self.shelf.labels:
            was = self.shelf.labels[name]
            self.shelf.corrections[name] = LABELS[1 - LABELS.index(was)]

    def label_row(self, rng: Random) -> None:
        name = self.pick(rng)
        if name not in self.shelf.labels and self.spare(name):
            self.shelf.put(name, rng.choice(LABELS), self.shelf.lines[name].content)

    def replace_weights(self, rng: Random) -> None:
        self.weights = rng.choice(["first", "second", "third"])
        self.shelf.weigh("eye", self.weights)

    def change_views(self, rng: Random) -> None:
        self.shelf.views = rng.choice(["center", "flip"])

    def go_on_elsewhere(self, _: Random) -> None:
        self.count += 1
        old = self.shelf
        self.shelf = old.copied(self.root / f"machine-{self.count}")
        shutil.rmtree(old.folder)

    def damage(self, rng: Random) -> None:
        files = sorted(
            file
            for file in self.shelf.work.rglob("*")
            if file.is_file() and file.stat().st_size and "thumbs" not in file.parts
        )
        if not files:
            return
        file = rng.choice(files)
        content = bytearray(file.read_bytes())
        at = rng.randrange(len(content))
        content[at] ^= 1 << rng.randrange(8)
        file.write_bytes(rng.choice([content, content[:at]]))
        place = file.relative_to(self.shelf.work).parts
        if place[0] == "runs":
            self.damaged.add(place[1])
            self.fitted.pop(place[1], None)
        else:
            self.doubt = True

    # What the commands say

    def probe(self, rng: Random) -> None:
        kind = rng.choice(["ridge", "knn"])
        board = self.try_figures(lambda: self.shelf.probe(kind=kind))
        if board is None:
            return
        self.note_system(f"{kind}-eye")
        assert uncorrected(board) == uncorrected(self.reference().probe(kind=kind))
        straddling = self.straddling()
        said = [text for text in board["warnings"] if "audit" in text]
        assert not straddling or said, f"near-duplicates straddle folds without a word {straddling}"

    def note_system(self, name: str, *members: str) -> None:
        self.runs[name] = self.runs.get(name, 0) + 1
        self.damaged.discard(name)
        self.fitted[name] = (self.state(), {one: self.runs[one] for one in members})

    def straddling(self) -> list[tuple[str, str]]:
        entries = [entry for entry in read_manifest(self.shelf.task)
                   if entry.id in self.shelf.labels]  # fmt: skip
        group = near_duplicate_groups(entries)
        places = self.shelf.places()
        first: dict[int, str] = {}
        pairs = [(first.setdefault(int(n), entry.id), entry.id)
                 for n, entry in zip(group, entries, strict=True)]  # fmt: skip
        return [(a, b) for a, b in pairs if places[a][1] != places[b][1]]

    def ensemble(self, _: Random) -> None:
        names = [name for name in ("ridge-eye", "knn-eye") if self.is_ok(name)]
        if len(names) == 2:
            try:
                board = run_ensemble(self.shelf.task, "mean")
            except InputError as error:
                # Both are up to date, but were run before and after rows to predict came.
                assert "run both again" in str(error) or self.waits or self.doubt
                return
            assert not self.waits or self.doubt
            self.note_system("mean", *names)
            assert {line.system for line in board.lines} == {*names, "mean"}

    def is_ok(self, name: str) -> bool:
        """Whether a system is about the state as it is now."""
        if name not in self.fitted or name in self.damaged:
            return False
        state, members = self.fitted[name]
        return state == self.state() and all(
            self.is_ok(one) and self.runs[one] == run for one, run in members.items()
        )

    def audit_apply(self, _: Random) -> None:
        if self.try_figures(lambda: run_audit(self.shelf.task, apply=True)) is not None:
            assert not self.straddling()

    def list_systems(self, _: Random) -> None:
        try:
            states = {line.system: line.state for line in overview(self.shelf.task)}
        except InputError as error:
            assert self.doubt or not self.complete, f"nothing is listed: {error}"
            return
        for one, state in states.items():
            if not self.doubt and one not in self.damaged:
                expected = self.is_ok(one)
                assert (state == "ok") == expected, (one, state, self.fitted.get(one), self.state())

    def answer(self, rng: Random) -> None:
        name, way = rng.choice(["ridge-eye", "knn-eye", "mean"]), rng.choice("sptx")
        command: Callable[[], Any] = {
            "s": lambda: self.shelf.submission(name),
            "p": lambda: self.shelf.prediction(name),
            "t": lambda: report_threshold(self.shelf.task, name).macro_f1,
            "x": self.shelf.export,
        }[way]
        if way != "x" and not self.doubt and not self.is_ok(name):
            with pytest.raises(InputError):
                command()
            return
        found = self.try_figures(command)
        if found is None:
            return
        other = self.reference()
        if way == "x":
            _check_equal(found, other.export())
            return
        other.probe()
        other.probe(kind="knn")
        run_ensemble(other.task, "mean")
        same: dict[str, Callable[[], Any]] = {
            "s": lambda: other.submission(name),
            "p": lambda: other.prediction(name),
            "t": lambda: report_threshold(other.task, name).macro_f1,
        }
        assert found == same[way]()

    def look_without_images(self, _: Random) -> None:
        if self.doubt or not self.complete:
            return
        laptop = self.shelf.copied(self.root / "laptop", images=False)
        try:
            here = self.try_figures(self.shelf.probe)
            if here is not None:
                self.note_system("ridge-eye")
                assert laptop.probe() == here
            manifest = (laptop.work / "manifest.csv").read_bytes()
            with pytest.raises(InputError, match="is there"):
                laptop.embed()
            assert (laptop.work / "manifest.csv").read_bytes() == manifest
        finally:
            shutil.rmtree(laptop.folder)


def _digest(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _check_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name])


@pytest.mark.proves("state")
def test_a_hundred_steps_end_with_no_wrong_figure_and_no_dead_end() -> None:
    run_state_machine_as_test(
        Trial,
        settings=settings(
            max_examples=TRIALS or 3,
            stateful_step_count=100,
            derandomize=not TRIALS,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
