"""A recipe as a commented file: every key with its meaning, what is allowed, and the default."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from archiveprobe.finetune.recipe import Recipe

_WIDTH = 100
_KINDS = {"integer": "whole number", "number": "number", "boolean": "true or false"}


@dataclass(frozen=True)
class Setting:
    """A key of a recipe (`schedule.epochs`), its value and its default (None: not set), the values
    it may have, and what it means. A key that is `required` has no default.
    """

    key: str
    value: Any
    default: Any
    required: bool
    allowed: str
    what: str


def settings_of(recipe: Recipe) -> list[Setting]:
    """Return every setting of a recipe, in the order of a file: those of no section come first."""
    schema = Recipe.model_json_schema()
    content = recipe.model_dump(mode="json", exclude={"name"})
    outer, inner = [], []
    for name, value in content.items():
        if "$ref" not in schema["properties"][name]:
            outer.append(_setting(name, value, schema, name))
            continue
        section = _definition(schema, name)
        inner += [_setting(f"{name}.{key}", each, section, key) for key, each in value.items()]
    return [*outer, *inner]


def recipe_text(recipe: Recipe, head: str) -> str:
    """Return a recipe as a TOML file that loads as the same one, with `head` at its top."""
    schema = Recipe.model_json_schema()
    blocks, section = [head or f"# Recipe {recipe.name}."], ""
    for setting in settings_of(recipe):
        now, _, key = setting.key.rpartition(".")
        if now != section:
            section = now
            blocks.append(_comment(_definition(schema, now)["description"]) + f"\n[{now}]")
        default = "no default" if setting.required else f"default: {_or_unset(setting.default)}"
        line = f"# {key} =" if setting.value is None else f"{key} = {toml_value(setting.value)}"
        blocks.append(
            f"{_comment(setting.what)}\n{_comment(f'{setting.allowed}; {default}')}\n{line}"
        )
    return "\n\n".join(blocks) + "\n"


def toml_value(value: Any) -> str:
    """Write a value of a recipe as TOML: text, a number, true or false, or a list of them."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _definition(schema: Mapping[str, Any], section: str) -> dict[str, Any]:
    name = schema["properties"][section]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"][name]
    return found


def _setting(key: str, value: Any, section: Mapping[str, Any], name: str) -> Setting:
    about = section["properties"][name]
    return Setting(
        key=key,
        value=value,
        default=about.get("default"),
        required=name in section.get("required", ()),
        allowed=_allowed(about),
        what=about["description"],
    )


def _allowed(about: Mapping[str, Any]) -> str:
    """Say in words what values a JSON schema allows."""
    if "anyOf" in about:
        inner = next(entry for entry in about["anyOf"] if entry.get("type") != "null")
        return f"{_allowed(inner)}, or not set"
    if "enum" in about:
        return "one of " + ", ".join(map(toml_value, about["enum"]))
    if about["type"] == "array":
        each = about.get("prefixItems") or [about["items"]]
        number = f"{len(each)} values" if "prefixItems" in about else "any number of values"
        return f"list of {number}, each a {_allowed(each[0])}"
    if about["type"] == "string":
        return "text"
    limits = " and ".join(_limits(about))
    return _KINDS[about["type"]] + (f", {limits}" if limits else "")


def _limits(about: Mapping[str, Any]) -> Iterator[str]:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    for name, word in words.items():
        if name in about:
            yield f"{word} {about[name]}"


def _or_unset(value: Any) -> str:
    return "not set" if value is None else toml_value(value)


def _comment(text: str) -> str:
    return "\n".join(
        textwrap.wrap(
            " ".join(text.split()),
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
