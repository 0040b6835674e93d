import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.cache import spec
from archiveprobe.cache.spec import ABSENT, CacheRecord

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc."), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text("abcd", min_size=1), JSON, max_size=4)


def test_canonical_form_is_fixed():
    record = {"b": [1, 2.5], "a": {"ü": None}}
    assert spec.canonical(record) == '{"a":{"ü":null},"b":[1,2.5]}'.encode()
    assert spec.fingerprint_digest({}) == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_without_json_are_refused(value):
    with pytest.raises(ValueError):
        spec.canonical({"a": value})


@given(RECORDS)
def test_order_of_fields_changes_nothing(record):
    turned = dict(reversed(record.items()))
    assert spec.fingerprint_digest(record) == spec.fingerprint_digest(turned)
    assert spec.differences(record, turned) == []


@given(RECORDS, RECORDS)
def test_differences_are_empty_exactly_for_equal_digests(old, new):
    same = spec.fingerprint_digest(old) == spec.fingerprint_digest(new)
    assert (spec.differences(old, new) == []) == same


def test_differences_name_the_field():
    old = {"a": {"b": 1, "c": (1, 2)}, "gone": True}
    new = {"a": {"b": 2, "c": [1, 2]}, "new": None}
    assert spec.differences(old, new) == [
        ("a.b", 1, 2), ("gone", True, ABSENT), ("new", ABSENT, None),
    ]  # fmt: skip


@given(st.text())
def test_slug_is_one_safe_name(name):
    slug = spec.slug(name)
    assert slug
    assert not slug.startswith(".")
    assert set(slug) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def test_folder_name():
    name = spec.folder_name("timm:vit/b", {})
    assert name == "timm-vit-b-44136fa355b3678a"


@pytest.fixture
def record(folder):
    folder.mkdir(parents=True)
    record = CacheRecord(folder, {"views": ["a"], "n": 1}, {"tag": "x"}, (1, 3))
    record.write()
    return record


def test_record_round_trip(record):
    assert CacheRecord.read(record.folder) == record
    assert json.loads((record.folder / spec.FILE).read_text())["sha256"] == record.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"n": 1', '"n": 2'),
        lambda text: text.replace('"n": 1', '"n": NaN'),
        lambda text: text[:-10],
        lambda _: "[]",
        lambda _: "{}",
        lambda _: "[" * 100_000,
        lambda text: text.replace("3\n", "-3\n"),
        lambda text: text.replace("3\n", "true\n"),
        lambda _: "\xff",
    ],
)
def test_damaged_record_is_one_line(record, change):
    path = record.folder / spec.FILE
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed, encoding="latin-1")
    with pytest.raises(InputError, match="damaged") as caught:
        CacheRecord.read(record.folder)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_record_is_a_cache_error(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        CacheRecord.read(tmp_path)


def make(root, backbone, fingerprint, request):
    folder = root / spec.folder_name(backbone, fingerprint)
    folder.mkdir(parents=True)
    CacheRecord(folder, fingerprint, request).write()
    return folder


def test_find_caches_passes_over_foreign_folders(tmp_path):
    mine = make(tmp_path, "b", {"n": 1}, {})
    make(tmp_path, "other", {"n": 1}, {})
    (tmp_path / "b-notes").mkdir()
    (tmp_path / "b-file").write_text("x")
    make(tmp_path, "b", {"n": 2}, {}).rename(tmp_path / "b-0000000000000000")
    damaged = make(tmp_path, "b", {"n": 3}, {})
    (damaged / spec.FILE).write_text("{")
    assert [record.folder for record in spec.find_caches(tmp_path, "b")] == [mine]
    assert spec.find_caches(tmp_path / "nowhere", "b") == []


def test_match_request_ignores_the_precision(tmp_path):
    folder = make(tmp_path, "b", {"n": 1}, {"precision": "fp16", "size": (1, 2)})

    def found(request):
        return [r.folder for r in spec.match_request(tmp_path, "b", request)]

    assert found({"precision": "auto", "size": [1, 2]}) == [folder]
    assert found({"size": [1, 2]}) == [folder]
    assert found({"precision": "fp16", "size": [1, 3]}) == []


def test_import_loads_no_heavy_library():
    code = "import sys, archiveprobe.cache.spec; print({'h5py', 'numpy', 'torch'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
