"""The page: one HTML file with all its scripts, styles and words, and its data where it is a file.

No script, style or image comes from elsewhere: a policy in the page allows its own script and its
own style by their digests, and nothing to be fetched. Everything that comes from the archive is
data in blocks of JSON; the scripts put it into the page as text only.
"""

import base64
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard, write_whole
from archiveprobe.base.wording import file_size, number_of
from archiveprobe.look.collect.collection import Collection, little_endian
from archiveprobe.task.output import writing

LANGUAGES = ("en", "ar")
MOST_INLINED = 5_000
_HERE = Path(__file__).parent
Thumbnail = tuple[str, bytes | None]
Thumbnails = Iterable[Thumbnail]
_MARK = "made-by-archiveprobe.txt"
_DIGEST = re.compile("[0-9a-f]{64}")
# In the order in which they build on each other; a part registers itself, main.js starts them.
SCRIPTS = (
    "base",
    "source_page",
    "source_server",
    "care",
    "figures",
    "charts",
    "leaderboard",
    "threshold",
    "results",
    "matching",
    "listing",
    "tile",
    "filters",
    "gallery",
    "image",
    "map_points",
    "map",
    "search",
    "images",
    "corrections",
    "review_order",
    "review",
    "review_page",
    "data",
    "main",
)
STYLES = ("base", "results", "images", "review", "data")
REVIEW_SCRIPTS = ("base", "care", "queue_source", "queue", "main")
"""Those of the page that shows the queue of a review."""
# JSON may hold these, HTML and JavaScript may take them for something else.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render_page(
    shell: str,
    meta: Mapping[str, Any],
    *,
    blocks: Mapping[str, Any] | None = None,
    language: str = "en",
) -> bytes:
    """Return the page for a shell, with further `blocks` of JSON by name.

    A "page" is a file of its own, a "server" hands it out, and a "review" is a queue of images.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    scripts = REVIEW_SCRIPTS if shell == "review" else SCRIPTS
    style, script = _joined(STYLES, "css"), _joined(scripts, "js")
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    content = {"strings": strings(), "meta": {**meta, "shell": shell}, **(blocks or {})}
    names = {"language": language, "shell": shell, "title": meta["task"]}
    # The scripts and styles are the project's own; the blocks are escaped by `_json`.
    page = environment.get_template("page.html.jinja").render(
        names,
        policy=_policy(style, script, shell),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        blocks={name: Markup(_json(value)) for name, value in content.items()},  # noqa: S704
    )
    # Half a surrogate pair, from a name that is no text, is what JSON writes as an escape.
    return page.encode("utf-8", "backslashreplace")


def write_page(
    file: Path,
    collection: Collection,
    thumbnails: Thumbnails,
    *,
    language: str = "en",
) -> str:
    """Write the page of a collection to one file, and say in words how large it is.

    `thumbnails` are WebP images by the digests of their images. Beyond `MOST_INLINED` rows they go
    into a folder beside the file, made for it: what is no more in the page is removed from it.

    Raises:
        InputError: that folder is there and no page has made it, or the disk refuses.
    """
    folder = image_folder(file) if is_folder_needed(len(collection)) else None
    with writing(file):
        # Each is written as it comes: a million of them would be too many to hold.
        names = _inlined(thumbnails) if folder is None else _write_images(folder, thumbnails)
        content = render_page(
            "page",
            {**collection.meta, "images": None if folder is None else folder.name},
            language=language,
            blocks={
                "columns": {
                    name: base64.b64encode(little_endian(column)).decode()
                    for name, column in collection.columns.items()
                },
                "rows": list(collection.rows),
                "thumbnails": [names.get(str(row["digest"]), "") for row in collection.rows],
            },
        )
        write_whole(file, content)
    beside = "" if folder is None else f" and {number_of(len(names), 'image')} in {folder}"
    return f"{file_size(len(content))}{beside}"


def is_folder_needed(rows: int) -> bool:
    """Say whether a page has too many rows to carry their images itself."""
    return rows > MOST_INLINED


def image_folder(file: Path) -> Path:
    """Return where the images of a page go that are too many for its file."""
    return file.with_name(f"{file.stem}-images")


def check_image_folder(folder: Path) -> None:
    """Refuse a folder that no page has made: files are removed from it.

    Raises:
        InputError: it is there without the mark of a page, or it is a link.
    """
    taken = folder.is_symlink() or folder.exists()
    if taken and (folder.is_symlink() or not (folder / _MARK).is_file()):
        raise InputError(
            f"{folder}, where the images of the page would go, is there already: give the page "
            "another name with -o, or move that folder away"
        )


def _inlined(thumbnails: Thumbnails) -> dict[str, str]:
    return {
        digest: base64.b64encode(content).decode()
        for digest, content in thumbnails
        if content is not None
    }


def _write_images(folder: Path, thumbnails: Thumbnails) -> dict[str, str]:
    check_image_folder(folder)
    write_whole(folder / _MARK, b"Thumbnails of the page beside this folder: see look.\n")
    names = {}
    for digest, content in thumbnails:
        if content is None:
            continue
        names[digest] = digest
        file = folder / f"{digest}.webp"
        if not file.exists():
            write_whole(file, content)
    for file in folder.glob("*.webp"):
        if _DIGEST.fullmatch(file.stem) and file.stem not in names:
            discard(file)
    return names


@cache
def strings() -> dict[str, dict[str, str]]:
    """Return the words of the page by key and language."""
    words: dict[str, dict[str, str]] = {}
    for file in sorted((_HERE / "strings").glob("*.toml")):
        words |= tomllib.loads(file.read_text("utf-8"))
    return words


@cache
def _joined(names: tuple[str, ...], ending: str) -> str:
    files = [_HERE / "static" / f"{name}.{ending}" for name in names]
    return "\n" + "\n".join(file.read_text("utf-8") for file in files if file.is_file())


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _policy(style: str, script: str, shell: str) -> str:
    """Allow the page's own script and style, images that it carries, and nothing else."""
    digests = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("style", style), ("script", script))
    }
    rules = {
        "default-src": "'none'",
        "script-src": f"'sha256-{digests['script']}'",
        "style-src": f"'sha256-{digests['style']}'",
        "img-src": "data: blob: file:" if shell == "page" else "'self' data: blob:",
        "connect-src": "'none'" if shell == "page" else "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
