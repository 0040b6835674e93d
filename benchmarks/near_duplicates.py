"""Near-duplicates among drawn embeddings with planted copies: seconds, memory, what is found.

    python benchmarks/near_duplicates.py --rows 200000
    python benchmarks/near_duplicates.py --rows 1000000

Rows lie in clusters of unlike sizes and spreads, as images of one place or event do: a cluster has
a direction, and its rows differ within 32 directions of its own and a little everywhere. One row of
fifty has a copy, at a cosine of .955 to .99: half of the copies moved toward another row of their
cluster, half anywhere. The target is for one million x 512 on two cores.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import archiveprobe.evaluate.near_duplicates as near_duplicates
from archiveprobe.benchmarks.common import Figure, arguments, at_least, at_most, load, report

SIMILARITY = 0.95
_PER_CLUSTER = 200
_BLOCK = 16_384


def draw(rows: int, width: int, file: Path) -> tuple[np.memmap, np.ndarray, np.ndarray]:
    """Draw rows (n, d) float16 into a file; return them, the originals, and their copies."""
    rng = np.random.default_rng(7)
    matrix = np.memmap(file, np.float16, "w+", shape=(rows, width))
    copies = rows // 50
    first = rows - copies
    clusters = max(4, first // _PER_CLUSTER)
    centres = rng.standard_normal((clusters, width), np.float32) + 1.5
    # As sizes of events are: a few large clusters and many small ones.
    weights = rng.pareto(1.5, clusters) + 0.2
    home = np.sort(rng.choice(clusters, first, p=weights / weights.sum()))
    ways = [rng.standard_normal((32, width), np.float32) for _ in range(64)]
    for start in range(0, first, _BLOCK):
        part = home[start : min(first, start + _BLOCK)]
        within = np.empty((len(part), width), np.float32)
        for cluster in np.unique(part):
            at = part == cluster
            spread = 0.08 + 0.22 * ((cluster * 0.618) % 1)
            loads = rng.standard_normal((at.sum(), 32), np.float32) * spread
            within[at] = centres[cluster] + loads @ ways[cluster % 64]
        within += 0.15 * rng.standard_normal(within.shape, np.float32)
        matrix[start : start + len(part)] = within
    originals = np.sort(rng.permutation(first)[:copies])
    for start in range(0, copies, _BLOCK):
        x = _units(matrix[originals[start : start + _BLOCK]])
        others = (originals[start : start + _BLOCK] + 1) % first
        toward = _units(matrix[others])
        toward[::2] = rng.standard_normal(toward[::2].shape)
        toward -= np.einsum("nd,nd->n", toward, x)[:, None] * x
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        cosine = rng.uniform(0.955, 0.99, (len(x), 1)).astype(np.float32)
        copy = cosine * x + np.sqrt(1 - cosine**2) * toward
        matrix[first + start : first + start + len(x)] = copy * 20
    return matrix, originals, np.arange(first, rows)


def _units(rows: np.ndarray) -> np.ndarray:
    units = rows.astype(np.float32)
    return units / np.linalg.norm(units, axis=1, keepdims=True)


def main() -> None:
    """Measure, print and write the figures."""
    parser = arguments(__doc__, "near_duplicates")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    given = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        matrix, originals, copies = draw(given.rows, given.width, Path(folder, "rows"))
        wall, processor = time.perf_counter(), time.process_time()
        stars = near_duplicates.find_near_duplicates(matrix, SIMILARITY)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    # By the rule of stars an original that begins or could begin a group has its copy in it, unless
    # an earlier row has taken the copy; and one that an earlier row took has lost its copy to the
    # cut of the chain, or has it in the same group. Anything else is a pair that was not found.
    begins = stars.first[originals] == originals
    missed = begins & (stars.first[copies] > originals)
    together = stars.first[originals] == stars.first[copies]
    report(
        given.json,
        [
            Figure("rows", given.rows),
            at_most("seconds", round(wall, 1), 900, "s"),
            Figure("processor seconds", round(processor, 1), "s"),
            Figure("rows a second", round(given.rows / wall), "/s"),
            at_most("peak memory", round(memory, 2), 4, "GB"),
            Figure("groups", stars.groups),
            Figure("copies planted", len(copies)),
            Figure("copies in the group of their original", int(together.sum())),
            Figure("copies in another group, chains cut", int((~together & ~missed).sum())),
            at_least("recall of planted pairs", round(1 - float(missed.mean()), 5), 0.999),
        ],
        before,
    )


if __name__ == "__main__":
    main()
