"""What is promised, in groups; tests prove them by `@pytest.mark.proves("group")`.

`python tests/support/promises.py` writes RELIABILITY.md from this table and the marks.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "RELIABILITY.md"

# Group -> (what may fail, what is promised).
PROMISES: dict[str, tuple[str, str]] = {
    "killed": (
        "A run is killed at any moment (SIGKILL), or stopped by Ctrl-C, SIGTERM (Slurm) or a "
        "closed terminal; its helper processes die or outlive it",
        "No committed row is lost, the next run goes on from the last commit and ends as an "
        "uninterrupted one (fine-tuning on the same CPU with the same bits). A stop commits "
        "what is done: one line, exit status 130, 143 or 129. Helper processes end with their "
        "parent.",
    ),
    "power": (
        "Power is lost; what was not synced is dropped, in every order",
        "The cache and the systems reopen with everything that was acknowledged. The "
        "simulation notices when a single fsync is left out.",
    ),
    "disk": (
        "The disk is full, read-only or fails at any call; the clock jumps",
        "No acknowledged row is lost, no half file is left, one line says what to do; with "
        "room again the same command goes on.",
    ),
    "damage": (
        "A bit flips, a log is torn, a shard is missing, cut or swapped",
        "Never a wrong number: the damage is found by a digest before anything is parsed, and "
        "is repaired, computed again, or refused in one line that names the file.",
    ),
    "hostile": (
        "A shard, log, weights file, system, recipe, table or image is hostile: pickles, "
        "links, pipes, size bombs, names that leave the folder, gigabytes under an image's "
        "name",
        "No pickle is opened, nothing is read outside the folder, memory stays small, nothing "
        "waits for ever; one line says what was found.",
    ),
    "images": (
        "Images are broken, odd, missing, moved or changed; a decoder hangs, crashes or is killed",
        "Rows out = rows in: every image ends with a status, the run goes on, and what may be "
        "gone at the next run is tried again.",
    ),
    "store": (
        "An object store answers 503, slowly, short or not at all; credentials are missing",
        "It is asked again a limited number of times, with waits that grow. A file that never "
        "comes has a status; a store that fails or refuses stops the run in one line, and what "
        "is finished is kept.",
    ),
    "review": (
        "A line of a review's log is changed, removed, cut short or forged; reviewers decide at "
        "once",
        "The first changed or forged line is named, and nothing is computed from such a log. "
        "Answers given together that a kill cut short never counted. No decision is lost, and no "
        "image is decided twice unasked.",
    ),
    "tables": (
        "A table, template or task.toml has repeated ids, unknown labels, missing columns, "
        "odd encodings, or any bytes at all",
        "Cells are read as they were written, or one line names the line, the fault and the "
        "nearest valid name; a second task in the same folder is kept apart.",
    ),
    "memory": (
        "Memory runs out on the device or the machine; shared memory is small, full or "
        "absent; other processes use the cores",
        "Batches are halved until they fit; else one line names the setting to lower, and "
        "what is done is kept. Without shared memory files or pipes serve. Nothing waits for "
        "busy cores.",
    ),
    "scale": (
        "Millions of rows: in caches, tables and archives",
        "Memory does not grow with the archive; what is missing is found without reading what is "
        "there.",
    ),
    "writers": (
        "Two runs write to one cache, system or task; a writer died with the lock",
        "The second is refused at once, naming the first; a dead writer blocks nobody; "
        "readers see the old state or the new one.",
    ),
    "state": (
        "Rows, labels, images, folds, caches or starting weights change between two commands; "
        "embed is interrupted or forgotten",
        "Every result names the snapshot it is about. Figures on a half-embedded state are "
        "refused or say `partial`; a system is listed as out of date, with what changed, and "
        "refused. A random trial of all commands holds this against a model.",
    ),
    "numbers": (
        "Weights, views, preprocessing or libraries change; an embedding is zero or not a number",
        "Another cache, with the differing field named; only the cache of the last embed is "
        "used; no such row is stored.",
    ),
    "leaks": (
        "Labels of a fold, of test rows or of near-duplicates reach what is scored on them",
        "Nothing that is fitted for a fold has seen its labels: not candidates, calibration, "
        "thresholds, ensemble weights, epochs, or the probe that a head starts from. "
        "Near-duplicates share a fold; only `score` reads test labels.",
    ),
    "data": (
        "Duplicates across the split, wrong labels, a label that leaks into the files, "
        "unlabelled rows from another source",
        "`audit` says so; a shift is said on every leaderboard and submission.",
    ),
    "answers": (
        "Rows of a submission are out of order, labels swapped, ids missing; its form asks for "
        "numbers and nothing says which, or cannot hold a cell; an output would replace a file "
        "of the task; stored answers are not those of the images",
        "Refused before the file is there, or named by `score`; the old file stays; an output "
        "never replaces what is the task's own.",
    ),
    "archive": (
        "An archive holds broken, repeated and renamed images; a run over it is stopped, or shared "
        "among processes",
        "Every image has one row with a status, in the order of the index. Whoever computes a unit "
        "writes the same bytes, on one kind of device. What is done stays, and images that the "
        "task's caches hold are not embedded again.",
    ),
    "page": (
        "An image shows injury or death; a name, caption or label holds a script; another page "
        "in the browser asks the server; a page is sent to others",
        "Every image is blurred until a key or a click asks for it. What comes from the archive "
        "is shown as text; the page writes nothing to the console and fetches nothing. No other "
        "page can read or write through the server. No EXIF and no path of its maker leaves.",
    ),
    "corrections": (
        "Two servers, a person and an editor correct labels at a time; a row leaves the table; "
        "a row to predict is corrected",
        "No acknowledged decision is lost, own columns stay, and labels of rows to predict "
        "never train. What corrections changed, and did to the figures, is said with counts.",
    ),
    "training": (
        "Fine-tuning meets a loss that is not a number, changed settings, parts of different "
        "starting weights, repeated rows, gone images",
        "It stops in one line that names step, images or keys; parts that do not belong "
        "together make no system; a row that comes again in an epoch is augmented "
        "differently.",
    ),
    "intervals": (
        "Groups are few or uneven, classes rare, models waver; the best of many systems is picked",
        "Intervals are wider and say on how many groups they rest; below twenty they promise "
        "nothing; the score to expect of a pick among systems at chance is that of chance.",
    ),
    "certificate": (
        "The model is useless; positives hide where few images are drawn; the sample is looked at "
        "again and again; reviewers overlook images",
        "A limit of what was missed, and the share of a whole archive, fail no more often than "
        "they say: they rest on the random draw alone.",
    ),
}

NOT_PROMISED = """\
## What is not promised

- A disk that says "synced" and lies: what it lost is found when the cache is opened or read, and
  computed again, but until then nobody knows.
- Network file systems without working `flock`: two machines could write to one cache at once. - A
weights file replaced by one of equal size and modification time is noticed by `--rehash` only. -
Bit-equal embeddings across batch sizes or devices: the promise is a cosine of 0.9995 or better. -
Equal bits of a fine-tuned network on a GPU, or between kinds of devices: a system trained elsewhere
  must agree with its stored probabilities to 0.02, on the same kind of device to 0.0001.
- That out-of-fold scores hold for images from another source; `audit` says when it can tell them
  apart, not what they would score.
"""


def marked_tests() -> Iterator[tuple[str, str]]:
    """Yield (group, test id) of every mark `proves`."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for group in _groups(node):
                    yield group, f"{file.relative_to(ROOT).as_posix()}::{node.name}"


def _groups(test: ast.FunctionDef) -> Iterator[str]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.proves":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def page() -> str:
    """Write RELIABILITY.md."""
    proofs: dict[str, list[str]] = {group: [] for group in PROMISES}
    for group, test in marked_tests():
        proofs[group].append(test)
    parts = [
        "# What may fail, what is promised, and the tests that prove it\n",
        "Generated from the marks `proves` on the tests: `make reliability`.\n",
    ]
    for group, (fault, promise) in PROMISES.items():
        tests = "".join(f"- `{test}`\n" for test in proofs[group])
        parts.append(f"## {fault}\n\n**Promised:** {promise}\n\n{tests}")
    return "\n".join([*parts, NOT_PROMISED])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
