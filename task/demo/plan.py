"""Which pictures the demo archive holds, decided before the first one is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from archiveprobe.task.demo.dress import DRESSES, REPOSTS
from archiveprobe.task.demo.encode import FORMS, PLAIN

NEGATIVE, POSITIVE = LABELS = ("not_destruction", "destruction")
LEAST = 60  # below this there is no room for every oddity
_SHARE_POSITIVE, _SHARE_NOISE = 0.35, 0.02
_SPLITS = (("train", 0.7), ("validation", 0.1))  # the rest is test
_ODD_FORMS = ("truncated", "html", "grey16", "gif", "alpha", "palette", "exif3", "exif6", "exif8")
_MORE_FORMS = {"alpha": 0.01, "exif6": 0.015, "exif8": 0.01, "webp": 0.1, "png": 0.07}
_DRESS_SHARES = {"sticker": 0.04, "caption": 0.06, "screenshot": 0.035}
_NAMES = (
    "photo_{n:04d}",
    "telegram/photo_2023-11-{day:02d}_{n:04d}",
    "telegram/photo_2023-11-{day:02d}_{n:04d}",
    "phone/DCIM/IMG_{n:04d}",
    "agency/street-view-{n:04d}",
    "أرشيف/شارع_{n:04d}",
    "أرشيف/صور قديمة/صورة {n:04d}",
)
_CAPTIONS = (
    "", "", "", "",
    "Street near the market",
    "View from the roof, looking north",
    'Photo: "Abu Sami", sent by a reader',
    "Old town, second day",
    "City centre, Tuesday",
    "What we saw on the way home",
    "Near the school, around noon",
    '"Our quarter", taken by a neighbour',
    "شارع في المدينة",
    "صورة من الحي القديم",
    "من أمام السوق، صباح اليوم",
    "وسط المدينة",
    "صورة أرسلها أحد القراء",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture to come: `shows` is what is drawn, `label` what the table will say."""

    index: int
    shows: str
    label: str
    name: str = ""
    split: str = ""
    caption: str = ""
    form: str = "jpeg"
    dress: str = ""
    source: int | None = None
    change: str = ""


def make_plan(count: int, rng: np.random.Generator) -> list[Row]:
    """Return the rows of the archive by index: originals first, then copies of them."""
    copies = max(2, count // 100)
    again = max(len(REPOSTS) * 2, round(count * 0.09))
    rows = _originals(count - copies - again, round(count * _SHARE_POSITIVE), copies + again, rng)
    rows = _with_noise(_with_forms(rows, rng), max(1, round(count * _SHARE_NOISE / 2)), rng)
    rows += _copies(rows, copies, again, round(count * _SHARE_POSITIVE), rng)
    return _with_names(_with_splits(rows, rng), rng)


def _originals(count: int, positives: int, later: int, rng: np.random.Generator) -> list[Row]:
    positives -= round(later * _SHARE_POSITIVE)
    shows = [POSITIVE] * positives + [NEGATIVE] * (count - positives)
    return [
        Row(index=i, shows=shows[k], label=shows[k])
        for i, k in enumerate(rng.permutation(count).tolist())
    ]


def _with_forms(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Deal file forms and dresses to pictures at random, so that neither tells the label."""
    total = len(rows)
    forms = list(_ODD_FORMS)
    for form, share in _MORE_FORMS.items():
        forms += [form] * max(1, round(total * share))
    dresses = [name for name in DRESSES for _ in range(max(2, round(total * _DRESS_SHARES[name])))]
    forms += ["jpeg"] * (total - len(forms))
    out = list(rows)
    for form, k in zip(forms, rng.permutation(total).tolist(), strict=True):
        out[k] = replace(out[k], form=form)
    plain = [k for k in range(total) if out[k].form in PLAIN]
    for dress, k in zip(dresses, rng.permutation(plain).tolist(), strict=False):
        out[k] = replace(out[k], dress=dress)
    return out


def _with_noise(rows: list[Row], each: int, rng: np.random.Generator) -> list[Row]:
    """Give `each` pictures of both labels the other label, so that the balance stays."""
    out = list(rows)
    for label, other in ((NEGATIVE, POSITIVE), (POSITIVE, NEGATIVE)):
        sound = [row.index for row in rows if row.shows == label and row.form in PLAIN]
        for k in rng.permutation(sound)[:each].tolist():
            out[k] = replace(out[k], label=other)
    return out


def _copies(
    rows: list[Row], copies: int, again: int, positives: int, rng: np.random.Generator
) -> list[Row]:
    need = positives - sum(row.label == POSITIVE for row in rows)
    plain = [row for row in rows if row.form in PLAIN]
    order = [plain[k] for k in rng.permutation(len(plain)).tolist()]
    chosen = [row for row in order if row.label == POSITIVE][:need]
    chosen += [row for row in order if row.label == NEGATIVE][: copies + again - need]
    chosen = [chosen[k] for k in rng.permutation(len(chosen)).tolist()]
    kinds = list(REPOSTS)
    changes = ["copy"] * copies + [kinds[k % len(kinds)] for k in range(again)]
    return [
        Row(
            index=len(rows) + k,
            shows=row.shows,
            label=row.label,
            form=row.form if change == "copy" else "jpeg",
            source=row.index,
            change=change,
        )
        for k, (row, change) in enumerate(zip(chosen, changes, strict=True))
    ]


def _with_splits(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Deal the splits within each label; what must be in train or test goes to that end."""
    first = next(row for row in rows if row.change in REPOSTS)
    early = {first.source, *(row.index for row in rows if row.form == "truncated")}
    late = {first.index, *(row.index for row in rows if row.form == "html")}
    out = list(rows)
    for label in LABELS:
        mine = [row.index for row in rows if row.label == label]
        mine = [mine[k] for k in rng.permutation(len(mine)).tolist()]
        mine.sort(key=lambda k: (k in late) - (k in early))
        for place, k in enumerate(mine):
            out[k] = replace(out[k], split=_split_at(place, len(mine)))
    return out


def _split_at(place: int, total: int) -> str:
    end = 0
    for split, share in _SPLITS:
        end += round(total * share)
        if place < end:
            return split
    return "test"


def _with_names(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    numbers = rng.permutation(len(rows)) + 1
    styles = rng.permutation(len(rows)) % len(_NAMES)
    captions = rng.permutation(len(rows)) % len(_CAPTIONS)
    return [
        replace(
            row,
            name=_NAMES[styles[row.index]].format(n=int(numbers[row.index]), day=1 + row.index % 28)
            + FORMS[row.form][0],
            caption=_CAPTIONS[captions[row.index]],
        )
        for row in rows
    ]


def tally(values: Iterable[str]) -> dict[str, int]:
    """Count each value, most frequent first."""
    return dict(Counter(values).most_common())
