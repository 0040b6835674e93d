"""What is reviewed: every image once, by the SHA-256 of its bytes, with its score and its group.

It is found once, when a review is opened, and kept in a file of Parquet that is named by its own
SHA-256. The log names it, so whatever is computed later is about the very same images.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained, write_digested
from archiveprobe.base.progress import Progress, silent
from archiveprobe.base.reading import PRODUCT_BYTES, read_product
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.near_duplicates import find_near_duplicates
from archiveprobe.predict.duplicates import read_means_to_file
from archiveprobe.predict.rank.candidates import Candidates
from archiveprobe.predict.rank.scores import Scores

_DIGEST_BYTES = 32
_DIGEST = re.compile("[0-9a-f]{64}")
_REMEDY = "bring it back, or begin a new review with --name"


@dataclass(frozen=True)
class Population:
    """The n images of a review, in the order of their digests.

    `keys` (n, 32) uint8 are the digests; `ids` (n,) name the first row or image that has these
    bytes; `scores` (n,) float64 are probabilities of the positive label; `margins` (n,) say how far
    the answer is from being another one; `groups` (n,) int64 hold the place of the likeliest image
    of every image's group of near-duplicates, its own where it has none.
    """

    keys: np.ndarray
    ids: Any
    scores: np.ndarray
    margins: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self, place: int) -> str:
        """Return the SHA-256 of an image, in hex."""
        return bytes(self.keys[place]).hex()

    def name(self, place: int) -> str:
        """Return the id of an image."""
        return str(self.ids[place].as_py().decode("utf-8", "surrogatepass"))

    @cached_property
    def _starts(self) -> np.ndarray:
        # The first eight bytes of a digest, as a number, sort as the digests do.
        return np.ascontiguousarray(self.keys[:, :8]).view(">u8")[:, 0].astype(np.uint64)

    def places(self, digests: Sequence[str]) -> np.ndarray:
        """Find images by their SHA-256 in hex, (m,) int64; -1 for any text that names none."""
        found = np.full(len(digests), -1, np.int64)
        for at, digest in enumerate(digests):
            if not _DIGEST.fullmatch(digest):
                continue
            key = np.frombuffer(bytes.fromhex(digest), np.uint8)
            start = np.frombuffer(key[:8].tobytes(), ">u8").astype(np.uint64)[0]
            place = int(np.searchsorted(self._starts, start))
            while place < len(self) and self._starts[place] == start:
                if np.array_equal(self.keys[place], key):
                    found[at] = place
                    break
                place += 1
        return found

    @cached_property
    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of all images, group by group, and where every group begins (n + 1,).

        `groups` of `members[0][members[1][p] : members[1][p + 1]]` are all p.
        """
        order = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[order], np.arange(len(self) + 1))
        return order, starts

    def group_of(self, place: int) -> np.ndarray:
        """Return the places of the images of a group, named by its likeliest image."""
        order, starts = self.members
        return np.asarray(order[starts[place] : starts[place + 1]])


def collect(blocks: Iterable[Candidates], label: int, margin: Scores) -> tuple[Population, int]:
    """Put the images of all blocks together, equal files once, each a group of its own.

    Returns them, and how many have no answer, because they could not be read. `label` is the class
    that is looked for, `margin` gives the negative distance from another answer.
    """
    keys, ids, scores, margins = [], [], [], []
    outside = 0
    for block in blocks:
        score = np.asarray(block.proba[:, label], np.float64)
        has_answer = np.isfinite(score) & np.array([bool(each) for each in block.digests], bool)
        outside += int((~has_answer).sum())
        places = np.flatnonzero(has_answer).tolist()
        joined = b"".join(bytes.fromhex(block.digests[at]) for at in places)
        keys.append(np.frombuffer(joined, np.uint8).reshape(-1, _DIGEST_BYTES))
        ids += [block.ids[at].encode("utf-8", "surrogatepass") for at in places]
        scores.append(score[places])
        margins.append(-np.asarray(margin(block), np.float64)[places])
    every = np.concatenate([np.empty((0, _DIGEST_BYTES), np.uint8), *keys])
    # By digest, and those of equal digest in the order in which they came.
    order = np.lexsort(every.view(">u8").T[::-1]) if len(every) else np.empty(0, np.int64)
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(every[order].astype(np.int16), axis=0) != 0).any(1)
    first = order[new]
    import pyarrow as pa

    return Population(
        every[first],
        pa.array(ids, pa.binary()).take(pa.array(first)),
        np.concatenate([[], *scores])[first],
        np.concatenate([[], *margins])[first],
        np.arange(len(first)),
    ), outside


def group_images(
    population: Population,
    reader: Reader,
    similarity: float,
    room: Path,
    progress: Progress = silent,
) -> np.ndarray:
    """Group near-duplicates by the cosine of their embeddings (n,); see `Population.groups`.

    The embeddings lie in a file below `room` meanwhile.

    Raises:
        InputError: the cache is damaged.
    """
    # The likeliest first: a group is named by its first row, and every member is like that one.
    order = np.argsort(-population.scores, kind="stable")
    keys = [bytes(population.keys[at]) for at in order]
    matrix = read_means_to_file(reader, keys, room, progress)
    first = find_near_duplicates(matrix, similarity, progress=progress).first
    groups = np.arange(len(population))
    known = first >= 0
    groups[order[known]] = order[first[known]]
    return groups


def write_population(folder: Path, population: Population) -> str:
    """Write a population into a folder; return the SHA-256 that names its file.

    Raises:
        InputError: the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "image": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(_DIGEST_BYTES),
            len(population),
            [None, pa.py_buffer(population.keys.tobytes())],
        ),
        "id": population.ids,
        "score": population.scores,
        "margin": population.margins,
        "group": population.groups,
    }
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, compression="zstd")
    with explained(f"write {folder}"):
        return write_digested(folder, [content.getvalue()], _ENDING).name.removesuffix(_ENDING)


_ENDING = "-images.parquet"


def read_population(folder: Path, digest: str) -> Population:
    """Read the population that the log of a review names.

    Raises:
        InputError: it is gone, or has changed.
    """
    import pyarrow.parquet as pq

    file = folder / f"{digest}{_ENDING}"
    content = read_product(file, PRODUCT_BYTES, _REMEDY)
    if content is None:
        raise InputError(f"{file}, the images of the review, is gone: {_REMEDY}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{file} was changed: {_REMEDY}")
    table = pq.read_table(io.BytesIO(content)).combine_chunks()
    keys = np.frombuffer(
        table["image"].chunk(0).buffers()[1] if len(table) else b"", np.uint8
    ).reshape(-1, _DIGEST_BYTES)
    numbers = (table[name].to_numpy() for name in ("score", "margin", "group"))
    return Population(keys, table["id"].combine_chunks(), *numbers)
