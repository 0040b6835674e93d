"""docs/task.md lists every key of task.toml, with its default, and no other."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from archiveprobe.task import config

PAGE = (Path(__file__).parents[2] / "docs/task.md").read_text()
SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "": (config.Task,),
    "[images]": (config.Images,),
    "[folds]": (config.Folds,),
    "[embed]": (config.Embed,),
    "[backbone.NAME]": (config.OwnBackbone, config.Preprocess),
    "[submission]": (config.Submission,),
}
_NAMED = {"images", "folds", "embed", "prompts", "backbone", "submission"}
"""Sections, which have headings of their own."""
# Where None stands for something that is said in words.
_NO_VALUE = (None, (), {})


def rows_of(section: str) -> dict[str, str]:
    """The keys of a section of the page, and what it says their defaults are."""
    [text] = [
        part
        for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)
        if (part.startswith(section) if section else part.startswith("# "))
    ]
    lines = re.findall(r"^\| (`.*?`) \| (.*?) \| ", text, re.MULTILINE)
    return {key: default for keys, default in lines for key in re.findall(r"`(.*?)`", keys)}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_stands_there_with_its_default(section: str) -> None:
    fields = {
        name: field for model in SECTIONS[section] for name, field in model.model_fields.items()
    }
    fields = {name: field for name, field in fields.items() if name not in {"file", *_NAMED}}
    told = rows_of(section)
    assert {*told} == {*fields}
    for name, field in fields.items():
        if field.is_required():
            assert told[name] == "needed", name
        elif field.default not in _NO_VALUE:
            assert told[name] == f"`{json.dumps(field.default)}`", name


def test_every_section_has_a_heading() -> None:
    headings = {*re.findall(r"^## \[(\w+)", PAGE, re.MULTILINE)}
    assert headings == _NAMED


def test_the_example_is_a_backbone(tmp_path: Path) -> None:
    [example] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    task = config.Task(file=tmp_path / "task.toml", name="t", **tomllib.loads(example))
    assert task.backbone["mine"].weights == "weights/mine.safetensors"
