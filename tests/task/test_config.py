from pathlib import Path

import pytest
from pydantic import ValidationError

from archiveprobe.task.config import load_task, nearest

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


def test_full_file(load, tmp_path):
    task = load(FULL)
    assert (task.name, task.labels) == ("nakba", ("not_destruction", "destruction"))
    assert (task.positive, task.corrections) == ("destruction", "corrections.csv")
    images = task.images
    assert (images.id, images.path, images.label) == ("image", "file", "label")
    assert (images.split, images.text) == ("split", "caption")
    folds = task.folds
    assert (folds.count, folds.repeats, folds.seed) == (4, 3, 7)
    assert folds.group == "near-duplicates"
    assert task.embed.backbones == ("clip-vit-b32", "convnextv2-nano-384")
    assert (task.embed.views, task.embed.layers) == ("crops3", "last4")
    assert task.prompts["not_destruction"] == ("a photo of an intact street", "a photo of people")
    own = task.backbone["mobilenetv2"]
    assert (own.library, own.name) == ("timm", "mobilenetv2_100")
    assert own.weights == "../weights/mobilenetv2_100.safetensors"
    assert own.arguments == {"pad_type": "same", "rate": 0.5, "deep": True, "count": 3}
    assert [type(own.arguments[name]) for name in ("deep", "count")] == [bool, int]
    shape = own.preprocess
    assert (shape.size, shape.resize, shape.crop) == (224, 256, "center")
    assert (shape.interpolation, shape.mean, shape.std) == ("bicubic", (0.5,) * 3, (0.5, 0.5, 1))
    assert task.submission.template == "sample_submission.csv"
    assert task.submission.columns == ("image", "label")
    assert task.submission.unreadable == "not_destruction"
    assert (task.folder, task.work) == (tmp_path, tmp_path / "work")
    assert (task.root, task.table) == (tmp_path / "images", tmp_path / "labels.csv")


def test_defaults(load):
    task = load('name = "t"')
    assert (task.labels, task.positive, task.corrections, task.table) == ((), None, None, None)
    assert (task.images.root, task.images.id, task.images.label) == ("images", "image", "label")
    assert (task.images.path, task.images.split, task.images.text) == (None, None, None)
    assert (task.folds.count, task.folds.repeats, task.folds.seed) == (5, 5, 0)
    assert task.folds.group == "near-duplicates"
    assert (task.embed.views, task.embed.layers) == ("crops6", "pooled")
    assert (task.prompts, task.backbone, task.submission.template) == ({}, {}, None)
    own = load(LEAST + OWN + SIZES).backbone["own"]
    assert (own.weights, own.arguments) == ("pretrained", {})
    assert (own.preprocess.resize, own.preprocess.crop) == (None, "center")


def test_frozen(load):
    task = load(LEAST)
    with pytest.raises(ValidationError):
        task.name = "another"
    with pytest.raises(ValidationError):
        task.folds.seed = 1


@pytest.mark.parametrize(
    ("content", "key", "valid"),
    [
        (LEAST + "positiv = 'yes'\n", "positiv", "positive"),
        (LEAST + "[image]\nroot = '.'\n", "image", "images"),
        (LEAST + "[images]\ntabel = 'x.csv'\n", "images.tabel", "images.table"),
        (LEAST + "[folds]\nrepeat = 2\n", "folds.repeat", "folds.repeats"),
        (LEAST + "[embed]\nbackbone = ['hog']\n", "embed.backbone", "embed.backbones"),
        (LEAST + "[submission]\ncolumn = []\n", "submission.column", "submission.columns"),
        (LEAST + OWN + "weight = 'random'\n", "backbone.own.weight", "backbone.own.weights"),
        (
            LEAST + OWN + SIZES.replace("mean", "interpolaton = 'nearest', mean"),
            "backbone.own.preprocess.interpolaton",
            "backbone.own.preprocess.interpolation",
        ),
        # Of another section.
        (LEAST + "table = 'x.csv'\n", "table", "images.table"),
        (LEAST + "backbones = ['hog']\n", "backbones", "embed.backbones"),
        (LEAST + "template = 'x.csv'\n", "template", "submission.template"),
        (LEAST + "[images]\ntemplate = 'x.csv'\n", "images.template", "submission.template"),
        (LEAST + "[folds]\nviews = 'crops6'\n", "folds.views", "embed.views"),
        (LEAST + "[images]\npositive = 'yes'\n", "images.positive", "positive"),
        (LEAST + "[preprocess]\nsize = 224\n", "preprocess", "backbone.NAME.preprocess"),
        (LEAST + OWN + "size = 224\n", "backbone.own.size", "backbone.own.preprocess.size"),
    ],
)
def test_unknown_key_names_the_nearest(load, fault_of, content, key, valid):
    fault_of(lambda: load(content), f"{key!r}", f"did you mean {valid!r}?", "task.toml")


def test_a_value_where_a_section_belongs(load, fault_of):
    words = ("'backbone'", "it is a section", "did you mean 'embed.backbones'?")
    fault_of(lambda: load(LEAST + "backbone = ['hog']\n"), *words)


def test_unknown_key_far_from_all(load, fault_of):
    message = fault_of(lambda: load(LEAST + "zzzzzz = 1"), "'zzzzzz'", "task.toml")
    assert "did you mean" not in message


@pytest.mark.parametrize("content", ["file = 'x'\n" + LEAST, LEAST + "[file]\nx = 1\n"])
def test_file_is_no_key(load, fault_of, content):
    fault_of(lambda: load(content), "unknown key 'file'", "task.toml")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("labels = ['a']", "name"),
        ("name = 3", "name"),
        ("name = ''", "name"),
        ("name = 't'\nlabels = 'yes'", "labels"),
        ("name = 't'\nlabels = [1, 2]", "labels.0"),
        ("name = 't'\nlabels = {a = 1}", "labels"),
        (LEAST + "images = 'images'", "images"),
        (LEAST + "[images]\nroot = 3", "images.root"),
        (LEAST + "[images]\ntable = ['a.csv', 1]", "images.table"),
        (LEAST + "[folds]\ncount = '5'", "folds.count"),
        (LEAST + "[folds]\ncount = true", "folds.count"),
        (LEAST + "[folds]\ncount = 5.0", "folds.count"),
        (LEAST + "[folds]\ncount = 1", "folds.count"),
        (LEAST + "[folds]\ncount = 101", "folds.count"),
        (LEAST + "[folds]\nrepeats = 0", "folds.repeats"),
        (LEAST + "[folds]\nseed = -1", "folds.seed"),
        (LEAST + "[folds]\nseed = 4294967296", "folds.seed"),
        (LEAST + "[folds]\nseed = 2020-01-01", "folds.seed"),
        (LEAST + "[folds]\ncount = nan", "folds.count"),
        (LEAST + "[embed]\nbackbones = 'hog'", "embed.backbones"),
        (LEAST + "[embed]\nbackbones = []", "embed.backbones"),
        (LEAST + "[embed]\nbackbones = [1]", "embed.backbones.0"),
        (LEAST + "[prompts]\nyes = 'a photo'", "prompts.yes"),
        (LEAST + "[prompts]\nyes = []", "prompts.yes"),
        (LEAST + "[backbone]\nown = 3", "backbone.own"),
        (LEAST + "[backbone.own]\nname = 'x'", "backbone.own.library"),
        (LEAST + "[backbone.own]\nlibrary = 'timm'", "backbone.own.name"),
        (LEAST + OWN.replace("timm", "tim"), "backbone.own.library"),
        (LEAST + OWN + "arguments = { a = { b = 1 } }", "backbone.own.arguments.a"),
        (LEAST + OWN + "arguments = { a = [1] }", "backbone.own.arguments.a"),
        (LEAST + OWN + SIZES.replace("224", "'224'"), "backbone.own.preprocess.size"),
        (LEAST + OWN + SIZES.replace("224", "7"), "backbone.own.preprocess.size"),
        (LEAST + OWN + SIZES.replace("[1, 1, 1]", "['1', 1, 1]"), "backbone.own.preprocess.std.0"),
        (LEAST + OWN + SIZES.replace("[1, 1, 1]", "[1, 1]"), "backbone.own.preprocess.std.2"),
        (LEAST + OWN + SIZES.replace("[1, 1, 1]", "[1, 1, 1, 1]"), "backbone.own.preprocess.std"),
        (LEAST + OWN + SIZES.replace("[1, 1, 1]", "[1, 1, 0]"), "backbone.own.preprocess"),
        (LEAST + OWN + SIZES.replace("[1, 1, 1]", "[1, nan, 1]"), "backbone.own.preprocess.std.1"),
        (LEAST + OWN + SIZES.replace("[0.5,", "[inf,"), "backbone.own.preprocess.mean.0"),
        (LEAST + OWN + SIZES.replace("224,", "224, resize = 8,"), "backbone.own.preprocess"),
        (LEAST + OWN + SIZES.replace("224,", "224, crop = 'top',"), "backbone.own.preprocess.crop"),
        (LEAST + "[submission]\ncolumns = 'a'", "submission.columns"),
        (LEAST + "[submission]\ncolumns = []", "submission.columns"),
    ],
)
def test_wrong_value_names_the_key(load, fault_of, content, key):
    message = fault_of(lambda: load(content), "task.toml")
    assert f"'{key}'" in message or f"{key}: " in message
    assert "tuple" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name = 't'\nlabels = ['a', 'b', 'a']", ("labels", "once")),
        ("name = 't'\nlabels = ['a', ' b']", ("labels", "spaces")),
        ("name = 't'\nlabels = ['']", ("labels", "empty")),
        (LEAST + "positive = 'yess'", ("positive", "'yess'", "did you mean 'yes'?")),
        ("name = 't'\npositive = 'yes'", ("positive", "'yes'")),
        (LEAST + "[prompts]\nyess = ['x']", ("prompts", "'yess'", "did you mean 'yes'?")),
        (LEAST + "[submission]\nunreadable = 'noo'", ("submission.unreadable", "'noo'", "'no'")),
        (LEAST + "[submission]\ncolumns = ['a', 'b', 'a']", ("submission", "columns", "once")),
        (LEAST + "[submission]\ncolumns = ['a', ' ']", ("submission", "columns", "empty")),
        (LEAST + "[submission.labels]\nyes = 1", ("submission.labels", "'no'", "missing")),
        (LEAST + "[submission.labels]\nyes = 1\nno = '1'", ("submission", "labels", "same word")),
        (LEAST + "[submission.labels]\nyess = 1\nno = 0", ("'yess'", "did you mean 'yes'?")),
        (LEAST + "[submission.labels]\nyes = 'no'\nno = 'yes'", ("'no'", "another label")),
        (LEAST + "[submission.labels]\nyes = true\nno = false", ("string or an integer",)),
        (LEAST + "[submission.labels]\nyes = 1.0\nno = 0", ("string or an integer",)),
        (LEAST + "[submission.labels]\nyes = ''\nno = 0", ("labels.yes", "without spaces")),
    ],
)
def test_values_hang_together(load, fault_of, content, words):
    fault_of(lambda: load(content), "task.toml", *words)


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


def test_missing_file(tmp_path, fault_of):
    fault_of(lambda: load_task(tmp_path / "task.toml"), "task.toml", "archiveprobe init")
    fault_of(lambda: load_task(tmp_path / "no" / "such.toml"), "such.toml")
    fault_of(lambda: load_task(tmp_path), "task.toml")
    (tmp_path / "plain").write_text("x")
    fault_of(lambda: load_task(tmp_path / "plain" / "task.toml"), "plain")


def test_unreadable_file(tmp_path, fault_of):
    (tmp_path / "task.toml").mkdir()
    fault_of(lambda: load_task(tmp_path), "cannot read", "task.toml")


def test_folder_stands_for_its_task(load, tmp_path, monkeypatch):
    task = load(LEAST)
    assert load_task(tmp_path) == task
    monkeypatch.chdir(tmp_path)
    assert load_task(tmp_path.__class__("task.toml")) == task


def test_asks_is_stable_and_tells_requests_apart(load):
    first = load(FULL)
    asked = first.asks("mobilenetv2")
    assert asked == load(FULL).asks("mobilenetv2")
    assert asked != first.asks("clip-vit-b32")
    for old, new in [
        ('views = "crops3"', 'views = "center"'),
        ('layers = "last4"', 'layers = "pooled"'),
        ('layers = "last4"', 'layers = "last4"\ndecode = "fast"'),
        ("size = 224", "size = 192"),
        ('pad_type = "same"', 'pad_type = ""'),
        ("mobilenetv2_100.safetensors", "other.safetensors"),
        ("deep = true", "deep = false"),
    ]:
        assert load(FULL.replace(old, new)).asks("mobilenetv2") != asked
    for old, new in [
        ('name = "nakba"', 'name = "other"'),
        ("seed = 7", "seed = 8"),
        ('root = "images"', 'root = "elsewhere"'),
        ('layers = "last4"', 'layers = "last4"\ndecode = "exact"'),
        ('["clip-vit-b32", "convnextv2-nano-384"]', '["hog"]'),
    ]:
        assert load(FULL.replace(old, new)).asks("mobilenetv2") == asked


def test_nearest():
    assert nearest("destructoin", ["destruction", "other"]) == " (did you mean 'destruction'?)"
    assert nearest("zzz", ["destruction"]) == ""
    assert nearest("zzz", []) == ""


def test_a_word_for_a_list_is_to_be_in_brackets(load, fault_of):
    words = ("'embed.backbones'", 'write it in brackets, ["hog"]')
    fault_of(lambda: load('name = "x"\n[embed]\nbackbones = "hog"'), *words)


def test_numbers_for_labels_are_to_be_quoted(load, fault_of):
    words = ("'labels.0'", 'write it in quotes, "0"')
    fault_of(lambda: load("name = 't'\nlabels = [0, 1]"), *words)
    fault_of(lambda: load(LEAST + "positive = 1"), "'positive'", 'in quotes, "1"')
