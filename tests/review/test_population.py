"""What is reviewed: equal files once, and embeddings read shard by shard whatever the order."""

from pathlib import Path

import numpy as np
import pytest

from archiveprobe.base.progress import silent
from archiveprobe.cache import shard
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.store import Writer
from archiveprobe.predict import duplicates
from archiveprobe.predict.rank.candidates import Candidates
from archiveprobe.predict.rank.scores import least_certain
from archiveprobe.review.population import collect, read_population, write_population

ROWS, PER_SHARD = 60, 10


def test_every_shard_is_read_once_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bytes([at]) * 32 for at in range(ROWS)]
    with Writer.open(tmp_path / "cache", {"backbone": "b"}, {}) as writer:
        for at, key in enumerate(keys, 1):
            writer.add(key, np.full((1, 2), at, np.float32))
            if at % PER_SHARD == 0:
                writer.commit()
    read: list[Path] = []
    proved = shard.read_proved

    def counted(path: Path, digest: str) -> bytes:
        read.append(path)
        return proved(path, digest)

    monkeypatch.setattr(shard, "read_proved", counted)
    monkeypatch.setattr(duplicates, "_AT_ONCE", 7)
    reader = Reader(tmp_path / "cache", keep_shard=True)
    assert len(reader.keys) == ROWS
    read.clear()
    order = np.random.default_rng(0).permutation(ROWS)
    found = duplicates.read_means_to_file(reader, [keys[at] for at in order], tmp_path, silent)
    assert found[:, 0].tolist() == (order + 1).tolist()
    assert len(read) == len(set(read)) == ROWS // PER_SHARD


def block(digests: list[str], scores: list[float]) -> Candidates:
    proba = np.array([[1 - score, score] for score in scores])
    ids = [f"{digest[:2]}-{at}" for at, digest in enumerate(digests)]
    return Candidates(ids, digests, [None] * len(digests), proba)


def test_equal_files_are_one_image_and_unread_ones_are_outside(tmp_path: Path) -> None:
    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    blocks = [block([c, a, ""], [0.9, 0.1, 0.5]), block([a, b, c], [0.2, np.nan, 0.8])]
    population, outside = collect(blocks, 1, least_certain(1, 0.4))
    assert [population.digest(at) for at in range(len(population))] == [a, c]
    assert [population.name(at) for at in range(len(population))] == ["aa-1", "cc-0"]
    assert population.scores.tolist() == pytest.approx([0.1, 0.9])
    assert population.margins.tolist() == pytest.approx([0.3, 0.5])
    assert outside == 2
    again = read_population(tmp_path, write_population(tmp_path, population))
    assert again.keys.tolist() == population.keys.tolist()
    assert again.name(1) == "cc-0"
    assert len(collect([], 1, least_certain(1, None))[0]) == 0
