"""How figures for papers look: colours, dashes, markers, and names written literally.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which colour-blind people
tell apart. In print without colour, dashes, markers and hatches do.
"""

import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)
BLACK, GREY, PALE = "#000000", "#666666", "#BBBBBB"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "^", "s", "D", "v", "P")
HATCHES = ("////", "\\\\\\\\", "....", "xxxx", "||||", "----")
MOST_SERIES = len(COLOURS)

STYLE: dict[str, Any] = {
    # Text stays text in SVG and is a TrueType font in PDF, as publishers ask for.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    # Names of parts in SVG are random without it.
    "svg.hashsalt": "archiveprobe",
    # A label may hold a dollar sign.
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.5,
    "savefig.dpi": 200,
}

_HIDDEN = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
# They change the direction of what follows them in the figure as well.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def literal(name: str, most: int = 40) -> str:
    """Return a name from the archive as it can be drawn: one line of at most `most` characters.

    One that is written from right to left is isolated, so that what follows it stays behind it.
    """
    cut = name if len(name) <= most else f"{name[: most - 1]}…"
    text = "".join(
        "\ufffd" if unicodedata.category(each) in _HIDDEN or each in _DIRECTIONS else each
        for each in cut
    )
    from_right = any(unicodedata.bidirectional(each) in ("R", "AL") for each in text)
    return f"\u2068{text}\u2069" if from_right else text


def line_look(at: int) -> dict[str, Any]:
    """Return colour and dashes of the series number `at`."""
    return {"color": COLOURS[at % MOST_SERIES], "linestyle": DASHES[at % MOST_SERIES]}


class Series:
    """The entries of a legend, given as they are, so that none is hidden for its name."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._names: list[str] = []

    def add(self, handle: Any, name: str) -> None:
        """Add an entry."""
        self._handles.append(handle)
        self._names.append(name)

    def show(self, axes: "Axes", place: Any = None, columns: int = 1) -> None:
        """Draw the legend at a place inside axes, or above them."""
        above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        where = above if place is None else {"loc": place}
        axes.legend(self._handles, self._names, **where, ncols=columns)

    def show_beside(self, figure: "Figure") -> None:
        """Draw the legend to the right of all axes."""
        figure.legend(self._handles, self._names, loc="outside right center")
