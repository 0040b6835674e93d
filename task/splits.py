"""Which split a word means: a folder's name, a cell, or a word in the name of a table."""

import re
from collections.abc import Mapping
from pathlib import PurePath

from archiveprobe.base.wording import number_of

SPLITS = ("train", "validation", "test")
_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    # What evaluates might also be the validation; as the test it is never trained on.
    "eval": "test",
    "evaluation": "test",
}
# Kaggle's forms to hand in: the labels in them are placeholders.
_FORM = re.compile("((sample|example)submission|submission(template|sample|example|form)?)")


def split_named(word: str) -> str | None:
    """Return the split that a word means whatever its case, as `val` or `Test` do, or None."""
    return _WORDS.get(word.strip().casefold())


def split_of_table(file: str) -> str | None:
    """Return the split that the path of a table names, or None where it names none or several.

    `test_labels.csv` and `trainLabels.csv` name it, and so does the folder of `val/metadata.csv`.
    """
    path = PurePath(file)
    if is_form(file):
        return "test"
    for words in (re.findall("[A-Z]?[a-z]+|[A-Z]+", path.stem), [path.parent.name]):
        splits = {split for word in words if (split := split_named(word))}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def is_form(file: str) -> bool:
    """Return whether a table is named like a form to hand in: sample_submission.csv, for example.

    What it answers are placeholders, never labels.
    """
    return bool(_FORM.fullmatch(re.sub("[^a-z]", "", PurePath(file).stem.lower())))


def say_splits(counts: Mapping[str, tuple[str, int]], noun: str) -> str:
    """Say how many things (`noun`) every name gives to which split: (split, count) by name."""
    parts: list[str] = []
    for name, (split, count) in counts.items():
        meaning = "" if name.strip("'/") == split else f" (read as {split})"
        parts.append(f"{name}{meaning} {count if parts else number_of(count, noun)}")
    said = ", ".join(parts)
    tested = any(split == "test" for split, _ in counts.values())
    return f"{said}: rows of test are predicted, never trained on" if tested else said
