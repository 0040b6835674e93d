"""A collection that is drawn: rows, scores and a map as a real one has them, of any size."""

from typing import Any

import numpy as np

from archiveprobe.look.collect.collection import FORM, Collection

HOSTILE = (
    "<script>alert(1)</script>.jpg",
    "\"'`&amp;.jpg",
    "\u202egpj.exe",
    "line\nbreak\r\ttab.jpg",
    "=HYPERLINK(1)",
    "صورة/مبنى مدمر 12.jpg",
    "long/" + "x" * 10_000,
    "not utf-8 \udcff.jpg",
)

PIXEL = (  # A WebP of one grey pixel.
    b"RIFF\x24\x00\x00\x00WEBPVP8 \x18\x00\x00\x000\x01\x00\x9d\x01*\x01\x00\x01\x00\x02\x004%"
    b"\xa4\x00\x03p\x00\xfe\xfb\xfdP\x00"
)


def drawn_collection(
    count: int,
    *,
    labels: tuple[str, ...] = ("intact", "destroyed"),
    systems: int = 2,
    views: int = 0,
    neighbours: int = 4,
    seed: int = 0,
    hostile: bool = True,
) -> Collection:
    """Draw `count` rows: the first three quarters labelled, one in fifty unreadable."""
    rng = np.random.default_rng(seed)
    k, place = len(labels), np.arange(count)
    truth = (rng.random(count) < 0.35).astype(np.int8) if k == 2 else rng.integers(0, k, count)
    labelled = place < count * 3 // 4
    readable = rng.random(count) > 0.02
    table_label = np.where(labelled, truth, -1).astype(np.int8)
    columns: dict[str, np.ndarray] = {
        "label": table_label.copy(),
        "table_label": table_label,
        "split": np.where(labelled, place % 2, 2).astype(np.int8),
        "status": np.where(readable, 0, 1 + place % 2).astype(np.int16),
        "group": np.where(place % 10 < 2, place // 10, -1).astype(np.int32),
        "fold": np.where(labelled, place % 5, -1).astype(np.int16),
        "width": np.where(readable, 640, -1).astype(np.int32),
        "height": np.where(readable, 480, -1).astype(np.int32),
        "bytes": np.where(readable, rng.integers(1e4, 1e6, count), -1).astype(np.float64),
        "suspect": np.full(count, np.nan, np.float32),
        "suggested": np.full(count, -1, np.int8),
    }
    described = []
    for number in range(systems):
        logits = rng.normal(0, 1, (count, k))
        logits[place, truth] += 2 - 0.2 * number
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        p[~readable] = np.nan
        answer = np.where(readable, np.nan_to_num(p).argmax(1), 0).astype(np.int8)
        columns |= {f"p:{number}": p.astype(np.float64), f"answer:{number}": answer}
        right = (answer == truth)[labelled].mean()
        if views:
            noise = rng.normal(0, 0.05, (count, views))
            columns[f"views:{number}"] = np.clip(p[:, -1:] + noise, 0, 1).astype(np.float32)
        described.append(_system(number, k, float(right), views))
    wrong = labelled & readable & (columns["answer:0"] != table_label) if systems else labelled
    doubted = np.flatnonzero(wrong)[: max(3, count // 50)]
    if systems:
        columns["suspect"][doubted] = columns["p:0"][doubted, table_label[doubted]]
        columns["suggested"][doubted] = columns["answer:0"][doubted]
    centre = np.where(truth == k - 1, 1.5, -1.5)
    for axis, offset in (("x", centre), ("y", np.zeros(count))):
        values = rng.normal(0, 1, count) + offset
        columns[f"{axis}:0"] = np.where(readable, values, np.nan).astype(np.float32)
    if neighbours:
        near = rng.integers(0, count, (count, neighbours)).astype(np.int32)
        columns["near:0"] = near
        falling = -np.sort(-rng.random((count, neighbours)), 1)
        columns["similarity:0"] = falling.astype(np.float32)
        columns["words:0:0"] = rng.normal(0.2, 0.05, count).astype(np.float32)
    names = [_id(at, hostile) for at in range(count)]
    rows = [_row(at, name, bool(readable[at])) for at, name in enumerate(names)]
    collection = Collection({}, columns, rows)
    meta = _meta(count, labels, described, columns, int(labelled.sum()))
    return Collection({**meta, "columns": collection.types}, columns, rows)


def _id(at: int, hostile: bool) -> str:
    if hostile and at % 40 == 7:
        return f"{at}-{HOSTILE[at // 40 % len(HOSTILE)]}"
    return f"telegram/photo-{at:06d}.jpg"


def _row(at: int, name: str, readable: bool) -> dict[str, Any]:
    return {
        "id": name,
        "path": name,
        "text": "a street after rain" if at % 3 == 0 else "شارع بعد المطر" if at % 3 == 1 else "",
        "digest": f"{at:064x}" if readable else "",
        "detail": "" if readable else "the file ends early",
        "format": "JPEG" if readable else "",
        "observed": {},
    }


def _system(number: int, classes: int, right: float, views: int) -> dict[str, Any]:
    return {
        "name": f"system-{number}",
        "kind": "probe",
        "features": "hog",
        "macro_f1": right,
        "low": right - 0.03,
        "high": right + 0.03,
        "accuracy": right,
        "threshold": 0.5 if classes == 2 else None,
        "threshold_rule": "smoothed" if classes == 2 else None,
        "optimistic": right + 0.01,
        "seconds": 1.0,
        "complexity": number,
        "views": [f"view-{at}" for at in range(views)],
        "difference": None
        if number == 0
        else {"against": "system-0", "macro_f1": -0.02, "low": -0.05, "high": 0.01},
        "aims": [
            {
                "rule": "recall 0.95",
                "threshold": 0.2,
                "recall": 0.94,
                "low": 0.9,
                "high": 0.97,
                "precision": 0.7,
                "review": 100,
            }
        ]
        if classes == 2
        else None,
    }


def _meta(
    count: int,
    labels: tuple[str, ...],
    systems: list[dict[str, Any]],
    columns: dict[str, np.ndarray],
    labelled: int,
) -> dict[str, Any]:
    return {
        "form": FORM,
        "task": "drawn & <b>",
        "key": "drawn",
        "labels": list(labels),
        "positive": len(labels) - 1,
        "unreadable": 0,
        "snapshot": "0" * 64,
        "partial": None,
        "made": "2026-01-01T00:00:00Z",
        "version": "0.1.0",
        "count": count,
        "labelled": labelled,
        "to_predict": count - labelled,
        "splits": ["train", "validation", "test"],
        "statuses": ["ok", "truncated", "html_not_image"],
        "command": "archiveprobe probe my/task.toml",
        "systems": systems,
        "board": {
            "best": systems[0]["name"] if systems else None,
            "reason": "",
            "majority": {"label": labels[0], "macro_f1": 0.39, "accuracy": 0.65},
            "selection": None,
            "warnings": ["12 near-duplicate groups span several folds"],
            "groups": labelled,
            "corrections": None,
        },
        "missing": []
        if systems
        else [{"what": "no system yet", "command": "archiveprobe probe my/task.toml"}],
        "maps": [{"name": "hog", "method": "PCA", "explained": [0.3, 0.1]}],
        "embeddings": ["hog"] if "near:0" in columns else [],
        "words": [{"embedding": "hog", "texts": ["a destroyed building"], "free": False}]
        if "words:0:0" in columns
        else [],
        "learning": [],
        "corrections": [],
        "data": {
            "unreadable": {"truncated": 1},
            "groups": {"count": 1, "rows": 2},
            "suspects": {"judge": "system-0", "count": 3},
            "shortcuts": [],
            "shift": None,
        },
    }
