"""Write the demo archive: all of it, or nothing."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained
from archiveprobe.demo.draw import draw_scene
from archiveprobe.demo.encode import EDITS, REPOSTS, UNREADABLE, encode
from archiveprobe.demo.plan import MINIMUM, NEGATIVE, Row, make_plan

# The second word of a random stream: the plan, an image's scene, its way into a file, the table.
PLAN, SCENE, FILE, TABLE = range(4)

TASK_TOML = """\
# The built-in archive. Every command of archiveprobe takes this file as its first argument.
# Paths are relative to the folder this file lies in.
name = "demo"
labels = ["not_destruction", "destruction"]
positive = "destruction"               # the label that the threshold and precision refer to
# corrections = "corrections.csv"      # used where that file is here; "" turns it off

[images]
root = "images"                        # all images lie below this folder
table = "labels.csv"                   # without it: one folder per label
id = "image"                           # column: path below root
label = "label"                        # column: empty in rows to predict
split = "split"                        # column: train, validation or test
text = "caption"                       # column: what was written beside the image

[folds]
count = 5                              # train and validation rows are divided into five folds,
repeats = 5                            # five times over
seed = 0
group = "near-duplicates"              # re-posts of one image stay in one fold

[embed]
backbones = ["hog"]                    # needs no weights; `archiveprobe list backbones` has more
views = "crops6"                       # three crops and their mirror images
layers = "pooled"

[prompts]                              # for probes that compare images with words: a CLIP
                                       # among the backbones embeds these, and the captions
destruction = ["a photo of a destroyed building", "a photo of rubble in a street"]
not_destruction = ["a photo of an intact street", "a photo of people", "a photo of a market"]

# Your own backbone, with weights from a file:
# [backbone.mine]
# library = "timm"                     # or "open_clip"
# name = "mobilenetv2_100"
# weights = "weights/mine.safetensors" # or "pretrained", or "random"
# arguments = { pad_type = "same" }    # for the library's own constructor
# Without this line the library's own preprocessing is used, and embed says which that is:
# preprocess = { size = 224, resize = 256, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }

[submission]
template = "sample_submission.csv"     # gives the columns, the ids and their order
unreadable = "not_destruction"         # the answer for an image that cannot be read
# labels = { not_destruction = 0, destruction = 1 }   # what the file has instead of labels
"""

README = """\
# A demo archive

{count} drawn images of streets, intact and destroyed, made from seed {seed}. They show no real \
place. The archive is as untidy as real ones are, so that there is something to find.

| file | what it is |
|---|---|
| `task.toml` | says what to learn from what, with a comment on every key |
| `labels.csv` | one row per image; test rows have an empty label |
| `test_labels.csv` | the same columns, with the labels of the test rows |
| `sample_submission.csv` | the form of an answer: every test row, the commoner label |
| `images/` | the images, with sub-folders and Arabic names |

Try: `archiveprobe embed task.toml`, then `probe task.toml`, then `audit task.toml`.

What is untidy on purpose:

- About 2 % of the labels are wrong. No file says which; `archiveprobe audit` looks for them.
- About 10 % are copies of other images: recompressed, cropped, with a border, or the same bytes \
under another name. They have the label of the original, and some lie in another split.
- The test images were sent through a messenger: their JPEG and WebP files are compressed more.
- Some images have a banner on them, some are screenshots of a telephone.
- Some JPEG files are stored turned, with the EXIF tag that turns them back. Some PNG files have \
transparent parts, one is grey with 16 bits, one file is an animated GIF.
- Two rows cannot be read: a JPEG file that was cut off, and an error page saved as `.jpg`.
- Heaps of goods, building sites and dusty streets are not destruction; slight damage in a bright \
street and ruins far away are.
"""


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """Numbers of images that were written, by label (of the test rows too) and by split."""

    images: int
    labels: Mapping[str, int]
    splits: Mapping[str, int]
    reposts: int
    unreadable: int


def write_demo(folder: Path, *, seed: int = 0, count: int = 400) -> DemoSummary:
    """Write a demo archive of `count` images (60 or more) to a new or empty folder.

    The same seed gives the same bytes. Raises InputError where the folder holds something or
    cannot be written; nothing is left behind then.
    """
    if count < MINIMUM:
        raise InputError(f"count is {count}: the demo archive needs at least {MINIMUM} images")
    if seed < 0:
        raise InputError(f"seed is {seed}: it must be 0 or more")
    with explained(f"write the demo archive to {folder}"):
        target = folder.resolve()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{folder} exists and is not an empty folder: name a new one")
        if target == Path.cwd():
            raise InputError(f"{folder} is the current folder: name a new one below it")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, hence on the same disk: the last step is one rename.
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=target.parent) as name:
            draft = Path(name) / "draft"
            rows = make_plan(count, np.random.default_rng([seed, PLAN]))
            _write_images(draft / "images", rows, seed)
            _write_tables(draft, rows, seed)
            draft.rename(target)
    return DemoSummary(
        images=count,
        labels=Counter(row.label for row in rows),
        splits=Counter(row.split for row in rows),
        reposts=sum(row.source is not None for row in rows),
        unreadable=sum(row.form in UNREADABLE for row in rows),
    )


def _write_images(root: Path, rows: Sequence[Row], seed: int) -> None:
    for index, row in enumerate(rows):
        path = root / row.name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, FILE, index])
        if row.source is not None and not row.repost:
            path.write_bytes((root / rows[row.source].name).read_bytes())
            continue
        if row.source is None:
            image = draw_scene(row.destroyed, np.random.default_rng([seed, SCENE, index]))
            image = EDITS[row.edit][1](image, rng) if row.edit else image
        else:
            with Image.open(root / rows[row.source].name) as original:
                image = REPOSTS[row.repost](original.convert("RGB"), rng)
        # The shift between the splits: test images came later, through a messenger.
        quality = rng.integers(35, 60) if row.split == "test" else rng.integers(60, 93)
        path.write_bytes(encode(image, row.form, int(quality)))


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _write_tables(draft: Path, rows: Sequence[Row], seed: int) -> None:
    # Shuffled, or the copies would all stand at the end.
    order = np.random.default_rng([seed, TABLE]).permutation(len(rows))
    table = [(row.name, row.label, row.split, row.caption) for row in (rows[k] for k in order)]
    hidden = [row for row in table if row[2] == "test"]
    known = [(row[0], "" if row[2] == "test" else row[1], *row[2:]) for row in table]
    header = ("image", "label", "split", "caption")
    texts = {
        "labels.csv": _csv(header, known),
        "test_labels.csv": _csv(header, hidden),
        "sample_submission.csv": _csv(header[:2], [(row[0], NEGATIVE) for row in hidden]),
        "task.toml": TASK_TOML,
        "README.md": README.format(count=len(rows), seed=seed),
    }
    for name, text in texts.items():
        (draft / name).write_text(text, encoding="utf-8", newline="\n")
