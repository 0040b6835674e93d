"""task.toml as bytes: encodings, syntax, and whatever else a file may hold."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import load_task

FULL = (Path(__file__).parent / "full_task.toml").read_text("utf-8")
LEAST = 'name = "t"\nlabels = ["no", "yes"]\n'
OWN = '[backbone.own]\nlibrary = "timm"\nname = "x"\n'
SIZES = "preprocess = { size = 224, mean = [0.5, 0.5, 0.5], std = [1, 1, 1] }\n"


@pytest.fixture
def load(tmp_path):
    def load(content):
        file = tmp_path / "task.toml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_task(file)

    return load


@pytest.mark.parametrize(
    "content",
    [
        "name = ",
        "name = 't'\nname = 'u'",
        "[images\n",
        "name = 't' # \x00",
        "x = 2020-02-31",
        f"x = {'9' * 5000}",
        f"x = {'[' * 3000}",
        f"{'a.' * 3000}b = 1",
        f"name = 't'\n[folds]\ncount.{'a.' * 3000}b = 1",
        "\ud800".encode("utf-8", "surrogatepass"),
        FULL.encode("utf-16"),
        FULL.encode("utf-16-le"),
        b"\xff\xfe\x00",
        b"\x89PNG\r\n\x1a\n",
        LEAST + OWN.replace("own", '"o\\nn"') + SIZES.replace("[1, 1, 1]", "[0, 0, 0]"),
        LEAST + '"a\\nb" = 1',
        LEAST + 'positive = "a\\nb"',
        LEAST + "images = '''\na\nb'''",
    ],
    ids=range(18),
)
def test_no_task_file(load, fault_of, content):
    fault_of(lambda: load(content), "task.toml")


def test_syntax_error_names_the_line(load, fault_of):
    fault_of(lambda: load("name = 't'\nlabels = [\n'a' 'b']"), "line 3", "task.toml")


def test_byte_order_mark(load):
    assert load("﻿" + FULL) == load(FULL)


def test_windows_line_ends(load):
    assert load(FULL.replace("\n", "\r\n")) == load(FULL)


@pytest.fixture(scope="module")
def task_file(tmp_path_factory):
    return tmp_path_factory.mktemp("task") / "task.toml"


def loads_or_explains(file, content):
    file.write_bytes(content)
    try:
        task = load_task(file)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        assert str(file) in str(error)
    else:
        assert task.name


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "ignore"))))
@settings(max_examples=150, deadline=None)
def test_arbitrary_content(task_file, content):
    loads_or_explains(task_file, content)


VALUES = ["3", "true", "-1", "1e400", "nan", "''", "[]", "[[]]", "{}", "'a'", "1979-05-27", '"\\n"']


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_file(task_file, data):
    lines = FULL.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        key, equals, _ = lines[at].partition("=")
        change = data.draw(st.sampled_from(["value", "key", "drop", "double", "cut"]))
        if change == "value" and equals:
            lines[at] = f"{key}= {data.draw(st.sampled_from(VALUES))}"
        elif change == "key":
            lines[at] = (
                data.draw(st.sampled_from(["file", "self", "'a\\nb'", "x.y", "cls"])) + " = 1"
            )
        elif change == "drop":
            lines[at] = ""
        elif change == "double":
            lines.append(lines[at])
        else:
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
    loads_or_explains(task_file, "\n".join(lines).encode())
