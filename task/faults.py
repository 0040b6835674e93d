"""What pydantic finds wrong in a settings file, said in one line with the nearest valid key."""

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

# How alike two keys must be to be taken for each other, in one section and across sections.
_ALIKE, _ALIKE_ELSEWHERE = 0.5, 0.8
# A key of the same section wins over one that is a little more alike elsewhere.
_BESIDE = 0.15
_NO_SECTION = frozenset({"dict_type", "model_type", "model_attributes_type"})
_NONE: Mapping[str, str] = MappingProxyType({})


def explain(
    fault: Mapping[str, Any],
    file: object,
    model: type[BaseModel],
    *,
    given: str,
    synonyms: Mapping[str, str] = _NONE,
) -> str:
    """Say in one line what pydantic found in a file that holds a `model`.

    The field `given` is no key of the file. An unknown key is answered with the nearest one, of its
    own section or of another; `synonyms` are words that other programs have for a key.
    """
    place = [str(part) for part in fault["loc"]]
    key = ".".join(place) if place else "task"
    kind = fault["type"]
    if kind == "extra_forbidden" or kind in _NO_SECTION:
        keys = [entry for entry in _keys(model, place) if entry[0] != (given,)]
        hint = _nearest_key(place, fault["input"], keys, synonyms)
    if kind == "extra_forbidden":
        return f"unknown key {key!r} in {file}{hint}: correct or remove it"
    if kind == "missing" and isinstance(fault["loc"][-1], str):
        return f"missing key {key!r} in {file}: add it"
    if kind == "value_error":
        where = "" if key == "task" else f"{key}: "
        return f"{where}{fault['ctx']['error']} in {file}: correct it"
    if kind == "too_short":
        return f"empty list for {key!r} in {file}: name at least one"
    wanted = "it is a section" if kind in _NO_SECTION else fault["msg"].lower()
    wanted = wanted.replace("tuple", "list") + f", not {_shown(fault['input'])}"
    hint = hint if kind in _NO_SECTION else ""
    return f"wrong value for {key!r} in {file}: {wanted}{hint}: {_remedy(fault)}"


def _remedy(fault: Mapping[str, Any]) -> str:
    if fault["type"] in ("tuple_type", "list_type") and isinstance(fault["input"], str):
        return f"write it in brackets, [{json.dumps(fault['input'], ensure_ascii=False)}]"
    is_number = isinstance(fault["input"], int | float)
    quoted = fault["type"] == "string_type" and is_number
    return f'write it in quotes, "{_shown(fault["input"])}"' if quoted else "correct it"


def _nearest_key(
    place: Sequence[str],
    value: Any,
    keys: Sequence[tuple[tuple[str, ...], bool]],
    synonyms: Mapping[str, str],
) -> str:
    """Give `` (did you mean 'optimizer.lr'?)``, or nothing where no key is close.

    A section is only taken for a section, a value only for a value.
    """
    section, word = tuple(place[:-1]), synonyms.get(place[-1], place[-1])
    rated: dict[str, float] = {}
    for path, is_section in keys:
        beside = path[:-1] == section
        alike = SequenceMatcher(None, word, path[-1]).ratio()
        possible = is_section == isinstance(value, dict) and path != tuple(place)
        if possible and alike >= (_ALIKE if beside else _ALIKE_ELSEWHERE):
            rated[".".join(path)] = alike + _BESIDE * beside
    best = max(rated.values(), default=0.0)
    close = [repr(shown) for shown, score in rated.items() if score == best]
    # Only a key that several sections have is ambiguous.
    close = close if best == 1 else close[:1]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _keys(
    model: type[BaseModel], place: Sequence[str], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield every key below a model, as a path, and whether it is a section.

    Sections that the user names have the name that stands at this place of `place`, else NAME.
    """
    for name, field in model.model_fields.items():
        path = (*above, name)
        inner, named = _section(field.annotation), get_origin(field.annotation) is dict
        yield path, inner is not None or named
        if inner is None:
            continue
        if named:
            here = tuple(place[: len(path)]) == path and len(place) > len(path)
            path = (*path, place[len(path)] if here else "NAME")
        yield from _keys(inner, place, path)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds: itself, or an optional or named one."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_section, get_args(annotation))), None)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:
        # Hexadecimal numbers may be longer than Python writes them in decimal.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
