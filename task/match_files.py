"""Which file below the root a table means where no file bears the written path letter by letter.

A path may lack its extension or its folder, have another case, backslashes or blanks around it, be
absolute, also on another machine, or be a whole number that was `0012` in the file's name. A file
is taken where it is the only one that a rule finds; rules go from the strictest to the loosest, and
the first that finds any file decides. One file never stands for two paths.
"""

import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.wording import quote_few
from archiveprobe.task.find_images import has_image_extension, printable

AMBIGUOUS = "ambiguous: "
_DRIVE = re.compile("[A-Za-z]:(?=/)")
Fold = Callable[[str], str | None]


@dataclass(frozen=True)
class Match:
    """The file that a path means; None, and `detail` says why, where none or several may be."""

    path: str | None = None
    detail: str = ""


def match_files(
    wanted: Mapping[str, str], files: Sequence[str], taken: Iterable[str] = ()
) -> dict[str, Match]:
    """Find the file that each path means among `files`, which are paths below the root.

    `wanted` maps a path as it is written to the same path as far as it is known to lie below the
    root; `taken` are paths that other rows name letter by letter.
    """
    parts = {path: _parts(text) for path, text in wanted.items()}
    near = _candidates(parts.values(), files)
    matches: dict[str, Match] = {}
    for keys_of, tails, absolute_only in _RULES:
        for fold in (_composed, _caseless, _by_number):
            left = {
                path: keys
                for path, text in wanted.items()
                if path not in matches and (not absolute_only or _is_absolute(text))
                if (keys := [key for part in keys_of(parts[path]) if (key := fold(part))])
            }
            if left:
                matches |= _by_rule(left, near, fold, tails)
    matches = _without_shared(matches, taken)
    absent = [path for path in wanted if path not in matches]
    return matches | {path: Match(detail=detail) for path, detail in _hints(absent, parts, files)}


def text_below(root: str, path: str) -> str | None:
    """Return a written path as far as it lies below the root, an absolute path of the root made
    relative; None where it leads to a file that is elsewhere.
    """
    try:
        file = os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - as text, links and all
        if file.startswith(f"{root}/"):
            return file[len(root) + 1 :]
        return None if os.path.lexists(file) else path
    except ValueError:
        return path  # a NUL in it


def differences(written: str, path: str) -> list[str]:
    """Return in which ways a written path differs from the file's own, each as a few words."""
    parts, own = _parts(written), path.split("/")
    kinds = ["with blanks around it"] if written != written.strip() else []
    if _is_absolute(written):
        kinds.append("by an absolute path")
    elif "\\" in written:
        kinds.append("with backslashes")
    name, stem = own[-1], own[-1].rpartition(".")[0] or own[-1]
    without = _caseless(parts[-1]) != _caseless(name)
    if without and stem != name:
        kinds.append("without its extension")
    if without and _caseless(parts[-1]) != _caseless(stem):
        kinds.append("without zeros in front")
    elif any(a != b and _caseless(a) == _caseless(b) for a, b in _pairs(parts, own, without)):
        kinds.append("by another case")
    if len(parts) < len(own):
        kinds.append("without its folder")
    elif len(parts) > len(own) and not _is_absolute(written):
        kinds.append("with folders above images.root")
    return kinds or ["in another form"]


def count_differences(pairs: Iterable[tuple[str, str]]) -> str:
    """Count the kinds of differences over pairs of a written path and the file's own."""
    counts = Counter(kind for pair in pairs for kind in differences(*pair))
    return ", ".join(f"{kind} ({count})" for kind, count in counts.most_common())


def _pairs(parts: Sequence[str], own: Sequence[str], without: bool) -> Iterator[tuple[str, str]]:
    """Pair what two paths have in common, from the end."""
    last = own[-1].rpartition(".")[0] if without else own[-1]
    for part, other in zip(reversed(parts), (last, *reversed(own[:-1])), strict=False):
        yield _composed(part), _composed(other)


def _is_absolute(path: str) -> bool:
    text = path.strip().replace("\\", "/")
    return text.startswith("/") or bool(_DRIVE.match(text))


def _parts(path: str) -> list[str]:
    text = _DRIVE.sub("", path.strip().replace("\\", "/"), count=1)
    return [part for part in text.split("/") if part not in ("", ".", "..")] or [""]


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _caseless(text: str) -> str:
    return text.lower() if text.isascii() else _composed(_composed(text).casefold())


def _by_number(text: str) -> str | None:
    """Fold a path whose name is a whole number; None for others."""
    folder, slash, name = text.rpartition("/")
    if not (name.isascii() and name.isdigit()):
        return None
    return _caseless(folder) + slash + (name.lstrip("0") or "0")


def _whole(parts: Sequence[str]) -> list[str]:
    return ["/".join(parts)]


def _shorter(parts: Sequence[str]) -> list[str]:
    """Return what is left without the first folders, the longest first."""
    return ["/".join(parts[at:]) for at in range(1, len(parts))]


# What of the written path is looked for; whether the end of a file's path may be it, or the whole
# path only; whether the rule is for absolute paths only. A relative path whose folder contradicts
# the file's means another file.
_RULES: tuple[tuple[Callable[[Sequence[str]], list[str]], bool, bool], ...] = (
    (_whole, False, False),
    (_whole, True, False),
    (_shorter, False, False),
    (_shorter, True, True),
)


def _variants(path: str) -> tuple[str, ...]:
    """Return a file's path, and without its extension where that is an image's."""
    is_image = has_image_extension(path.rpartition("/")[2])
    return (path, path.rpartition(".")[0]) if is_image else (path,)


def _tails(path: str) -> Iterator[str]:
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _candidates(wanted: Iterable[Sequence[str]], files: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the variants of the files whose name may be that of a wanted path: each rule looks at
    them only.
    """
    names = {fold(parts[-1]) for parts in wanted for fold in (_caseless, _by_number)} - {None}

    def may_be(path: str) -> bool:
        name = path.rpartition("/")[2]
        return _caseless(name) in names or _by_number(name) in names

    return [variants for variants in map(_variants, files) if any(map(may_be, variants))]


def _by_rule(
    wanted: Mapping[str, Sequence[str]], near: Iterable[tuple[str, ...]], fold: Fold, tails: bool
) -> dict[str, Match]:
    """Match the paths for which a file has one of the keys; the first such key counts."""
    keys = {key for own in wanted.values() for key in own}
    found: dict[str, list[str]] = defaultdict(list)
    for variants in near:
        for variant in variants:
            folded = fold(variant)
            for key in (_tails(folded) if tails else (folded,)) if folded else ():
                if key in keys:
                    found[key].append(variants[0])
    hits = {path: next((key for key in own if key in found), None) for path, own in wanted.items()}
    return {path: _decide(found[key]) for path, key in hits.items() if key}


def _decide(files: Sequence[str]) -> Match:
    if len(files) > 1:
        shown = quote_few(map(printable, files))
        return Match(detail=f"{AMBIGUOUS}{len(files)} files may be meant: {shown}")
    (file,) = files
    if printable(file) != file:
        return Match(detail=f"{printable(file)!r} may be meant: rename it, its name is not UTF-8")
    return Match(file)


def _without_shared(matches: Mapping[str, Match], taken: Iterable[str]) -> dict[str, Match]:
    """Take back the matches whose file another path means too."""
    files = Counter(match.path for match in matches.values() if match.path)
    named = {_composed(posixpath.normpath(path)) for path in taken} if files else set()

    def checked(match: Match) -> Match:
        if match.path and _composed(match.path) in named:
            return Match(detail=f"{AMBIGUOUS}another row names {match.path!r}")
        if match.path and files[match.path] > 1:
            return Match(detail=f"{AMBIGUOUS}{files[match.path]} rows may mean {match.path!r}")
        return match

    return {path: checked(match) for path, match in matches.items()}


def _hints(
    absent: Sequence[str], parts: Mapping[str, Sequence[str]], files: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Say for paths that no file matches which file is nearest: of that name elsewhere, or with
    another extension.
    """
    stems = {_stem(parts[path][-1]) for path in absent} - {""}
    near: dict[str, str] = {}
    for file in sorted(files) if stems else ():
        stem = _stem(file.rpartition("/")[2])
        if stem in stems:
            near.setdefault(stem, file)
    for path in absent:
        file = near.get(_stem(parts[path][-1]), path)
        yield path, "" if file == path else f"there is {printable(file)!r}"


def _stem(name: str) -> str:
    return _caseless(name.rpartition(".")[0] if has_image_extension(name) else name)


def match_some(
    root: Path, paths: Collection[str], files: Sequence[str], taken: Iterable[str] = ()
) -> dict[str, Match]:
    """Find the files that paths of a table mean, those that are there as they are written too.

    `taken` are files that others than `paths` name.
    """
    there = set(files)
    lost = {path: text_below(str(root), path) for path in paths if path not in there}
    inside = {path: text for path, text in lost.items() if text is not None}
    exact = [path for path in paths if path in there]
    return {path: Match(path) for path in exact} | match_files(inside, files, [*exact, *taken])
