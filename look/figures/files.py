"""Figures as files: SVG and PDF, the same bytes for the same numbers."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.progress import Notify
from archiveprobe.base.reading import read_ordinary
from archiveprobe.look.figures.style import GREY, STYLE
from archiveprobe.task.config import Task
from archiveprobe.task.output import output_file, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = ("svg", "pdf")
# Who finds this in a file knows that it may be replaced.
_CREATOR = "archiveprobe look --figures"
_LARGEST = 256 * 1024 * 1024
_MISSING_GLYPH = "missing from font"


@dataclass(frozen=True)
class Plot:
    """A figure to draw: the name of its files, its size in inches, its title, and how."""

    name: str
    size: tuple[float, float]
    title: str
    draw: Callable[["Figure"], None]


def render(plots: Sequence[Plot], snapshot: str, remark: str, notify: Notify) -> dict[str, bytes]:
    """Draw figures; the content of their files by name, every figure in every form.

    `snapshot` is in the metadata whole, and in the caption, before the `remark`, in short. `notify`
    is told where the font lacks a character.

    Raises:
        InputError: matplotlib is not installed.
    """
    contents = {}
    with _style(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for plot in plots:
            figure = _drawn(plot, f"snapshot {snapshot[:16]}, {remark}")
            for form in FORMS:
                content = _content(figure, form, plot.name, snapshot, remark)
                contents[f"{plot.name}.{form}"] = content
    if any(_MISSING_GLYPH in str(each.message) for each in said):
        notify(
            "the font of the figures lacks some characters of names: PDF shows boxes for them, SVG "
            "has them as text"
        )
    return contents


@contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError:
        raise InputError(
            "figures need a package that is not here: pip install 'archiveprobe[figures]'"
        ) from None
    # It warns of fonts and folders, which changes no figure.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with matplotlib.rc_context():
        # A matplotlibrc of the user would give other bytes.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def _drawn(plot: Plot, caption: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=plot.size, layout="constrained")
    plot.draw(figure)
    figure.suptitle(plot.title, fontsize=9)
    figure.supxlabel(caption, fontsize=5, color=GREY, x=0.99, ha="right")
    return figure


def _content(figure: "Figure", form: str, name: str, snapshot: str, remark: str) -> bytes:
    about = f"snapshot {snapshot}, {remark}"
    metadata: Mapping[str, str | None] = (
        {"Creator": _CREATOR, "Title": name, "Description": about, "Date": None}
        if form == "svg"
        else {"Creator": _CREATOR, "Title": name, "Subject": about, "CreationDate": None}
    )
    out = io.BytesIO()
    figure.savefig(out, format=form, metadata=metadata)
    return out.getvalue()


def check_targets(task: Task, folder: Path, names: Sequence[str]) -> list[Path]:
    """Check that files may be written into a folder; their paths.

    Raises:
        InputError: one is the task's own, or is there and no figure of this project.
    """
    targets = [folder / name for name in names]
    for target in targets:
        if not target.is_symlink() and not target.exists():
            output_file(task, target)
        elif not _is_own(target):
            raise InputError(
                f"{target} is there and no figure that archiveprobe wrote: name another folder"
            )
    return targets


def _is_own(file: Path) -> bool:
    try:
        return not file.is_symlink() and _CREATOR.encode() in read_ordinary(file, _LARGEST)
    except OSError:
        return False


def write(contents: Mapping[Path, bytes]) -> None:
    """Write every file whole. Raises InputError: the disk refuses; files are whole or as before."""
    for target, content in contents.items():
        with writing(target):
            write_whole(target, content)
