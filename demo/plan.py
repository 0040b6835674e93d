"""Decide what the demo archive holds, before the first image is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from archiveprobe.demo.encode import EDITS, FORMS, PLAIN, REPOSTS, SUFFIXES

NEGATIVE, POSITIVE = LABELS = ("not_destruction", "destruction")
MINIMUM = 60  # images; below this there is no room for every fault
POSITIVE_SHARE, WRONG_SHARE = 0.35, 0.02
SPLITS = ("train", "validation", "test")
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1
NAMES = (
    "photo_{n:04d}",
    "telegram/photo_2023-11-{day:02d}_{n:04d}",
    "telegram/photo_2023-11-{day:02d}_{n:04d}",
    "phone/DCIM/IMG_{n:04d}",
    "agency/street-view-{n:04d}",
    "أرشيف/شارع_{n:04d}",
    "أرشيف/صور قديمة/صورة {n:04d}",
)
CAPTIONS = (
    "",
    "",
    "Street near the market",
    "View from the roof, looking north",
    'Photo: "Abu Sami", sent by a reader',
    "City centre, Tuesday",
    "شارع في المدينة",
    "من أمام السوق، صباح اليوم",
    "صورة أرسلها أحد القراء",
)


@dataclass(kw_only=True)
class Row:
    """One file to come: what is drawn, what the table says about it, how it is written."""

    destroyed: bool
    label: str
    form: str = "jpeg"
    edit: str = ""
    source: int | None = None  # the row that this one copies
    repost: str = ""  # how the copy was changed; empty: the same bytes
    split: str = ""
    name: str = ""
    caption: str = ""


def make_plan(count: int, rng: np.random.Generator) -> list[Row]:
    """Return the rows of the archive: originals first, then copies of them."""
    copies, reposts = max(2, count // 100), max(2 * len(REPOSTS), round(0.09 * count))
    originals = count - copies - reposts
    positives = round(POSITIVE_SHARE * originals)
    order = rng.permutation(originals).tolist()
    rows = [Row(destroyed=k < positives, label=LABELS[k < positives]) for k in order]
    _set_forms(rows, rng)
    _set_wrong_labels(rows, max(1, round(WRONG_SHARE * count / 2)), rng)
    _add_copies(rows, copies, reposts, round(POSITIVE_SHARE * count), rng)
    _set_splits(rows, rng)
    _set_names(rows, rng)
    return rows


def _set_forms(rows: list[Row], rng: np.random.Generator) -> None:
    """Give out forms and edits at random, so that neither tells the label."""
    order = [rows[k] for k in rng.permutation(len(rows))]
    start = 0
    for name, form in FORMS.items():  # JPEG is the last, with a share of 1: it takes the rest
        end = start + max(1, round(form.share * len(rows)))
        for row in order[start:end]:
            row.form = name
        start = end
    plain = [row for row in order if row.form in PLAIN]
    for edit, (share, _) in EDITS.items():
        for _ in range(max(2, round(share * len(rows)))):
            plain.pop().edit = edit


def _set_wrong_labels(rows: list[Row], each: int, rng: np.random.Generator) -> None:
    """Give `each` rows of either label the other one, so that the balance stays."""
    for destroyed in (False, True):
        readable = [row for row in rows if row.destroyed == destroyed and row.form in PLAIN]
        for k in rng.permutation(len(readable))[:each]:
            readable[k].label = LABELS[not destroyed]


def _add_copies(
    rows: list[Row], copies: int, reposts: int, positives: int, rng: np.random.Generator
) -> None:
    """Append byte-equal copies and re-posts, with as many positives as bring them to the total."""
    missing = positives - sum(row.label == POSITIVE for row in rows)
    needed = {POSITIVE: missing, NEGATIVE: copies + reposts - missing}
    sources: list[int] = []
    for label, number in needed.items():
        plain = [k for k, row in enumerate(rows) if row.label == label and row.form in PLAIN]
        sources += rng.permutation(plain)[:number].tolist()
    changes = [""] * copies + [list(REPOSTS)[k % len(REPOSTS)] for k in range(reposts)]
    for source, repost in zip(rng.permutation(sources).tolist(), changes, strict=True):
        form = "jpeg" if repost else rows[source].form
        rows.append(replace(rows[source], form=form, source=source, repost=repost))


def _set_splits(rows: list[Row], rng: np.random.Generator) -> None:
    """Split each label alike; one re-post is in test, its source in train: the leak."""
    leak = next(k for k, row in enumerate(rows) if row.repost)
    first = {rows[leak].source, *(k for k, row in enumerate(rows) if row.form == "truncated")}
    last = {leak, *(k for k, row in enumerate(rows) if row.form == "html")}
    for label in LABELS:
        order = rng.permutation([k for k, row in enumerate(rows) if row.label == label]).tolist()
        order.sort(key=lambda k: (k in last) - (k in first))
        train, validation = (round(share * len(order)) for share in (TRAIN_SHARE, VALIDATION_SHARE))
        for place, k in enumerate(order):
            rows[k].split = SPLITS[(place >= train) + (place >= train + validation)]


def _set_names(rows: list[Row], rng: np.random.Generator) -> None:
    numbers, styles, captions = (rng.permutation(len(rows)) for _ in range(3))
    for row, number, style, caption in zip(rows, numbers, styles, captions, strict=True):
        stem = NAMES[style % len(NAMES)].format(n=number + 1, day=1 + number % 28)
        row.name = stem + SUFFIXES[FORMS[row.form].format]
        row.caption = CAPTIONS[caption % len(CAPTIONS)]
