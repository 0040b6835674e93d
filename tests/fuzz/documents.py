"""Whole documents drawn from the real schema: task files, and tables of odd cells."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from hypothesis import strategies as st
from pydantic import BaseModel

from archiveprobe.task.config import Task
from archiveprobe.task.find_images import UNSAFE_IN_IDS

# A valid value for every key of task.toml, as TOML writes it; `own` and `destroyed` are the user's.
VALID = {
    "name": '"archive"',
    "labels": '["intact", "NA", "destroyed"]',
    "positive": '"destroyed"',
    "corrections": '"corrections.csv"',
    "images.root": '"images"',
    "images.table": '"labels.csv"',
    "images.relative_to": '"root"',
    "images.id": '"image"',
    "images.path": '"image"',
    "images.label": '"label"',
    "images.split": '"split"',
    "images.text": '"caption"',
    "folds.count": "3",
    "folds.repeats": "4",
    "folds.seed": "0xFFFFFFFF",
    "folds.group": '"none"',
    "embed.backbones": '["hog", "own"]',
    "embed.views": '"crops3"',
    "embed.layers": '"last4"',
    "embed.decode": '"gpu"',
    "embed.thumbnails": "false",
    "embed.compile": "true",
    "prompts.destroyed": '["rubble", "بيت مهدّم"]',
    "backbone.own.library": '"open_clip"',
    "backbone.own.name": '"ViT-B-32"',
    "backbone.own.weights": '"random"',
    "backbone.own.arguments.rate": "0.5",
    "backbone.own.preprocess.size": "224",
    "backbone.own.preprocess.resize": "256",
    "backbone.own.preprocess.crop": '"squash"',
    "backbone.own.preprocess.interpolation": '"lanczos"',
    "backbone.own.preprocess.mean": "[0, 0.5, 1]",
    "backbone.own.preprocess.std": "[1, 2, 3.5]",
    "submission.template": '"sample.csv"',
    "submission.columns": '["image", "label"]',
    "submission.unreadable": '"NA"',
    "submission.labels": '{ intact = 0, NA = "yes", destroyed = 1 }',
}
NEEDED = ["name", "labels", "backbone.own.library", "backbone.own.name"] + [
    f"backbone.own.preprocess.{key}" for key in ("size", "mean", "std")
]
# No key takes one of these.
WRONG = ["1979-05-27", "07:32:00", "[[1]]", "[{}]", "[1979-05-27]", "[[[]]]"]
# Some keys take some of these.
ODD = [
    *"nan inf -inf 1e400 -1 0 0.25 true [] {} [nan] ['a', 'a'] [''] '' ' ' '.' '..' '/'".split(" "),
    *('"nul\\u0000"', '"line\\nend"', '"\\u202e"', '"n\\u0303"', f"'{'n' * 5000}'"),
    *("9" * 30, "9" * 5000, "0x" + "f" * 4000, "-0x1", "9223372036854775808"),
]


def keys_of(annotation: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a model that is no section; keys of one's own are called `*`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if name != "file":
                yield from keys_of(field.annotation, f"{prefix}.{name}")
        return
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if getattr(annotation, "__origin__", None) is dict:
        yield from keys_of(parts[1], f"{prefix}.*")
    elif any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts):
        yield from keys_of(parts[0], prefix)
    else:
        yield prefix.removeprefix(".")


def task_keys() -> set[str]:
    """Every dotted key of task.toml."""
    return set(keys_of(Task))


def toml(values: Mapping[str, str]) -> bytes:
    """The document with these dotted keys."""
    return "".join(f"{key} = {value}\n" for key, value in values.items()).encode()


@st.composite
def task_values(draw) -> dict[str, str]:
    """Valid values for the keys that are needed and some of the others, in any order."""
    optional = [key for key in VALID if key not in NEEDED]
    chosen = draw(st.permutations([*NEEDED, *draw(st.sets(st.sampled_from(optional)))]))
    return {key: VALID[key] for key in chosen}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ODD_IDS = [
    *("001", "01", "1", "1.0", "1e5", "-5", "NA", "null", "nan", "True", "", " ", "\t"),
    *("1234567890123456789", "1234567890123456788", "9" * 40, "بيت مهدّم.jpg", "\U0001f3da.png"),
    *(
        "a\u202egpj.exe",
        "two\nlines",
        "two\r\nlines",
        "cr\rname",
        "nul\0name",
        "a,b;c\td",
        "=cmd|x",
    ),
    *('"<script>', "'", "../up", "/etc/passwd", "caf\u00e9", "cafe\u0301", "\ufeffbom", "n" * 300),
]
IDS = st.one_of(st.sampled_from(ODD_IDS), TEXT)
LABELS = ["intact", "NA", "destroyed"]
SPLITS = ["train", "validation", "test"]
BLANK = ["", " ", "\t "]
COLUMNS = ["image", "label", "split", "caption", "scene"]
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@dataclass(frozen=True)
class Drawn:
    """A table: its lines, header first, and how they are written."""

    lines: list[list[str]]
    separator: str
    quoting: Any
    ends: str
    encoding: str

    def bytes(self) -> bytes:
        """The content of the file."""
        out = io.StringIO()
        # Only with quotes around everything is a lone line end in a cell safe from every reader.
        quoting = self.quoting if self.ends == "\r\n" else csv.QUOTE_ALL
        form = {"delimiter": self.separator, "lineterminator": self.ends, "quoting": quoting}
        csv.writer(out, **form).writerows(self.lines)
        return ENCODINGS[self.encoding] + out.getvalue().encode(self.encoding)

    def cells(self, column: str) -> list[str]:
        """The cells below a column's name."""
        at = self.lines[0].index(column)
        return [line[at] for line in self.lines[1:]]


@st.composite
def tables(draw) -> Drawn:
    """A table that the house's task can read, with one to six rows of odd cells."""
    named = st.sampled_from(["why", "عمود", "two words", "image.1", "Label"])
    columns = draw(st.permutations([*COLUMNS, *draw(st.sets(named, max_size=2))]))
    # Those that no CSV gives back are refused.
    good = IDS.filter(lambda one: one.strip() and not UNSAFE_IN_IDS.search(one))
    ids = draw(st.lists(good, min_size=1, max_size=6, unique=True))
    kinds = {
        "label": st.sampled_from([*LABELS, *BLANK]),
        "split": st.sampled_from([*SPLITS, *BLANK]),
    }
    lines = [columns]
    for one in ids:
        line = {name: draw(kinds.get(name, IDS)) for name in columns} | {"image": one}
        lines.append([line[name] for name in columns])
    return Drawn(
        lines,
        draw(st.sampled_from(",;\t")),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        draw(st.sampled_from(["\r\n", "\n", "\r"])),
        draw(st.sampled_from(list(ENCODINGS))),
    )
