"""task.toml, read into frozen models; a fault names the file, the key and the nearest valid key."""

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from archiveprobe.base.errors import InputError
from archiveprobe.base.nearest import nearest_name
from archiveprobe.base.reading import SETTINGS_BYTES, read_ordinary
from archiveprobe.base.wording import shell_path
from archiveprobe.task.faults import explain

# How JPEG is decoded: as Pillow does it, faster and with other pixels, or by a GPU.
Decode = Literal["exact", "fast", "gpu"]
Pixels = Annotated[int, Field(ge=8, le=4096)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Channels = tuple[Finite, Finite, Finite]


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("a string, a number, true or false is needed")
    # Beyond that, or nan, it could not be written into a cache's record.
    if not isinstance(value, str) and not abs(value) < 2**63:
        raise ValueError("a finite number within 64 bits is needed")
    return value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("no path holds a NUL character")
    return value


def _word(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("a string or an integer is needed")
    if not (abs(value) < 2**53 if isinstance(value, int) else value == value.strip() != ""):
        raise ValueError("an integer of at most 15 digits, or a string without spaces around it")
    return value


def _table(value: Any) -> str | tuple[str, ...]:
    paths = [value] if isinstance(value, str) else value
    is_list = isinstance(paths, list | tuple) and paths
    if not is_list or not all(isinstance(path, str) and path for path in paths):
        raise ValueError("a path or a list of paths is needed")
    if len(set(paths)) != len(paths):
        raise ValueError("every table once")
    checked = tuple(map(_path, paths))
    return checked[0] if isinstance(value, str) else checked


def _beginning(value: Any) -> str | tuple[str, ...]:
    if value in ("root", "table"):
        return str(value)
    is_list = isinstance(value, list | tuple) and value
    if not is_list or not all(isinstance(folder, str) for folder in value):
        raise ValueError('"root", "table" or a list of folders is needed')
    return tuple(map(_path, value))


Word = Annotated[str | int, PlainValidator(_word)]
Scalar = Annotated[str | int | float | bool, PlainValidator(_scalar)]
PathText = Annotated[str, AfterValidator(_path)]
TablePaths = Annotated[str | tuple[str, ...], PlainValidator(_table)]
Beginning = Annotated[str | tuple[str, ...], PlainValidator(_beginning)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Images(_Section):
    """Where the images lie, and which columns of the table say what.

    `table` is one path or several. `relative_to` says where paths in a table begin: at the root,
    at the table's own folder, as in Hugging Face's metadata files, or at folders below the root,
    one for every table, as where train/ and test/ hold images of the same names.
    """

    root: PathText = "images"
    table: TablePaths | None = None
    relative_to: Beginning = "root"
    id: str = "image"
    path: str | None = None
    label: str = "label"
    split: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "Images":
        tables = self.table if isinstance(self.table, tuple) else (self.table,)
        if isinstance(self.relative_to, tuple) and len(self.relative_to) != len(tables):
            raise ValueError("relative_to: name one folder for every table")
        return self


class Folds(_Section):
    """Folds of the labelled rows; `group` is "near-duplicates", "none" or a column."""

    count: Annotated[int, Field(ge=2, le=100)] = 5
    repeats: Annotated[int, Field(ge=1, le=100)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    group: str = "near-duplicates"


TUNED = "tuned:"
"""Begins the name of a backbone that is a fine-tuned system: see evaluate/tuned.py."""


class Embed(_Section):
    """Which backbones look at the images, through which views, at which layers."""

    backbones: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("hog",)
    views: str = "crops6"
    layers: str = "pooled"
    decode: Decode = "exact"
    thumbnails: bool = True
    compile: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Embed":
        for name in self.backbones:
            if name.startswith(TUNED):
                raise ValueError(
                    f"backbones: {name} knows the labels it was trained on, which not everything "
                    f"that looks at these backbones allows for: use embed --backbone {name} and "
                    f"probe --features {name}"
                )
        return self


class Preprocess(_Section):
    """Pixel geometry and normalisation, where they differ from what the weights declare."""

    size: Pixels
    resize: Pixels | None = None
    crop: Literal["center", "squash", "border"] = "center"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: Annotated[Channels, Field(strict=False)]
    std: Annotated[Channels, Field(strict=False)]

    @model_validator(mode="after")
    def _check(self) -> "Preprocess":
        if min(self.std) <= 0:
            raise ValueError("std must be positive in every channel")
        if self.resize is not None and self.resize < self.size:
            raise ValueError("resize must not be smaller than size")
        return self


class OwnBackbone(_Section):
    """A backbone of one's own: a library's model with weights from a file, a hub or a seed."""

    library: Literal["timm", "open_clip"]
    name: str
    weights: PathText = "pretrained"
    arguments: dict[str, Scalar] = {}
    preprocess: Preprocess | None = None


class Submission(_Section):
    """The form of the file to hand in; `labels` says what is written there for each label."""

    template: PathText | None = None
    columns: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("image", "label")
    unreadable: str | None = None
    labels: dict[str, Word] = {}

    @model_validator(mode="after")
    def _check(self) -> "Submission":
        words = [str(word) for word in self.labels.values()]
        if len(set(words)) != len(words):
            raise ValueError("labels: two labels must not be written as the same word")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("columns: every column once")
        if not all(column.strip() for column in self.columns):
            raise ValueError("columns: no empty name")
        return self


class Task(_Section):
    """A whole task.toml. All its paths are relative to the file's own folder."""

    file: Path
    name: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(strict=False)] = ()
    positive: str | None = None
    corrections: PathText | None = None
    images: Images = Images()
    folds: Folds = Folds()
    embed: Embed = Embed()
    prompts: dict[str, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]] = {}
    backbone: dict[str, OwnBackbone] = {}
    submission: Submission = Submission()

    @property
    def shell_path(self) -> str:
        """Return the path of task.toml as a shell takes it, for commands in messages."""
        return shell_path(self.file)

    @property
    def folder(self) -> Path:
        """Return the folder of task.toml."""
        return self.file.parent

    @property
    def work(self) -> Path:
        """Return the folder of all products."""
        return self.folder / "work"

    @property
    def caches(self) -> Path:
        """Return the folder of all caches."""
        return self.work / "cache"

    @property
    def root(self) -> Path:
        """Return the folder below which every image lies."""
        return self.folder / self.images.root

    @property
    def table(self) -> Path | None:
        """Return the table of rows, the first where there are several, None where folders do."""
        return next(iter(self.tables.values()), None)

    @property
    def tables(self) -> dict[str, Path]:
        """Return the tables of rows by their paths in the file; none for one folder per label."""
        names = self.images.table or ()
        names = (names,) if isinstance(names, str) else names
        return {name: self.folder / name for name in names}

    @property
    def place(self) -> str:
        """Return where the rows come from, for messages: the tables, or the root."""
        return " and ".join(map(str, self.tables.values())) or str(self.root)

    def asks(self, backbone: str, tower: Literal["image", "text"] = "image") -> dict[str, Any]:
        """Return what this task asks of a backbone's cache; readers find the cache by it."""
        own = self.backbone.get(backbone)
        text = tower == "text"
        asked = {
            "backbone": backbone,
            "own": own.model_dump(mode="json") if own else None,
            "views": "text" if text else self.embed.views,
            "layers": "pooled" if text else self.embed.layers,
        }
        # Named where it is no default only, so that older caches are found.
        is_exact = text or self.embed.decode == "exact"
        return asked if is_exact else asked | {"decode": self.embed.decode}

    @model_validator(mode="after")
    def _check(self) -> "Task":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: every label once")
        if any(label != label.strip() or not label for label in self.labels):
            raise ValueError("labels: no empty label, no spaces around one")
        named = [("positive", self.positive), *(("prompts", label) for label in self.prompts)]
        named += [("submission.labels", label) for label in self.submission.labels]
        for key, label in [*named, ("submission.unreadable", self.submission.unreadable)]:
            if label is not None and label not in self.labels:
                hint = nearest(label, self.labels)
                raise ValueError(f"{key}: {label!r} is not one of labels{hint}")
        missing = [label for label in self.labels if label not in self.submission.labels]
        if self.submission.labels and missing:
            raise ValueError(f"submission.labels: {missing[0]!r} is missing")
        for label, word in self.submission.labels.items():
            if str(word) != label and str(word) in self.labels:
                raise ValueError(f"submission.labels: {word!r} for {label!r} is another label")
        return self


def nearest(word: str, known: Iterable[str]) -> str:
    """Give `` (did you mean 'x'?)``, or nothing where no known word is close."""
    name = nearest_name(word, known, 0.5)
    return f" (did you mean {name!r}?)" if name is not None else ""


def load_task(file: Path) -> Task:
    """Read a task.toml, or the one in the folder `file`.

    Raises:
        InputError: the file is missing, is not TOML, or holds an unknown key or a wrong value.
    """
    # Unlike Path.is_dir it forgives names that are too long.
    file = (file / "task.toml" if os.path.isdir(file) else file).absolute()  # noqa: PTH112
    try:
        content = _parse(file)
        if "file" in content:
            raise InputError(f"unknown key 'file' in {file}: remove it")
        try:
            return Task(file=file, **content)
        except ValidationError as error:
            raise InputError(explain(error.errors()[0], file, Task, given="file")) from None
    except RecursionError:
        raise InputError(f"{file} is nested too deeply: it is no task.toml") from None


def _parse(file: Path) -> dict[str, Any]:
    try:
        text = read_ordinary(file, SETTINGS_BYTES).decode("utf-8-sig")
        return tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"no task file at {file}: name a task.toml, or make one with `archiveprobe init DIR`"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        if file.suffix != ".toml":
            raise InputError(f"{file} is no task.toml: name one, or its folder") from None
        if isinstance(error, UnicodeDecodeError):
            raise InputError(f"{file} is not UTF-8 text: save it as UTF-8") from None
        # A TOMLDecodeError, or Python's own limit on the digits of a whole number.
        raise InputError(f"{file} is not valid TOML: {error}: correct that line") from None
