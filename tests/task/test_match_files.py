"""Which file a path of a table means: the only one that fits, else none, with a reason."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiveprobe.task.match_files import Match, count_differences, differences, match_some

FILES = [
    *("img1.jpg", "a/img_0012.jpg", "a/deep/Photo.PNG", "b/0012.jpg", "b/7.png", "b/007.webp"),
    *("cafe\u0301.jpg", "v1.2.jpg", "x/twin.jpg", "y/twin.png", "B/IMG9.JPG", "b/img9.jpg"),
    *("noext", "c/00000000000000000000123.jpg", "stra\u00dfe/z.jpg", "img1/inner.jpg"),
]


@pytest.fixture
def meaning_of(tmp_path):
    def meaning_of(path, files=FILES):
        return match_some(tmp_path, [path], files).get(path, Match())

    return meaning_of


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("img1.jpg", "img1.jpg"),
        ("img1", "img1.jpg"),
        ("IMG1.JPG", "img1.jpg"),
        ("IMG1", "img1.jpg"),
        ("img_0012", "a/img_0012.jpg"),
        ("img_0012.jpg", "a/img_0012.jpg"),
        ("photo.png", "a/deep/Photo.PNG"),
        ("DEEP/photo", "a/deep/Photo.PNG"),
        ("a\\deep\\Photo.PNG", "a/deep/Photo.PNG"),
        (".\\a\\deep\\photo", "a/deep/Photo.PNG"),
        ("./a//deep/Photo", "a/deep/Photo.PNG"),
        ("C:\\data\\images\\a\\img_0012.jpg", "a/img_0012.jpg"),
        ("C:\\data\\Photo.PNG", "a/deep/Photo.PNG"),
        ("/home/me/images/img1.jpg", "img1.jpg"),
        ("/home/me/IMG1", "img1.jpg"),
        ("../images/img1.jpg", "img1.jpg"),
        ("images/a/img_0012.jpg", "a/img_0012.jpg"),
        ("other/img1", "img1.jpg"),
        ("12", "b/0012.jpg"),
        ("00012", "b/0012.jpg"),
        ("0012", "b/0012.jpg"),
        ("7", "b/7.png"),
        ("007", "b/007.webp"),
        ("123", "c/00000000000000000000123.jpg"),
        ("caf\u00e9", "cafe\u0301.jpg"),
        ("v1.2", "v1.2.jpg"),
        ("B/IMG9", "B/IMG9.JPG"),
        ("b/img9", "b/img9.jpg"),
        ("IMG9.JPG", "B/IMG9.JPG"),
        ("noext", "noext"),
        ("img_0012 ", "a/img_0012.jpg"),
        (" 0012\u00a0", "b/0012.jpg"),
        ("STRASSE/z", "stra\u00dfe/z.jpg"),
    ],
)
def test_a_single_file(meaning_of, path, file):
    assert meaning_of(path).path == file


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("twin", "2 files may be meant: 'x/twin.jpg', 'y/twin.png'"),
        ("img9.JPG", "2 files may be meant: 'B/IMG9.JPG', 'b/img9.jpg'"),
        ("0007", "2 files may be meant: 'b/7.png', 'b/007.webp'"),
        ("b/iMg9", "2 files may be meant"),
        ("/elsewhere/TWIN", "2 files may be meant"),
    ],
)
def test_several_files(meaning_of, path, words):
    match = meaning_of(path)
    assert match.path is None
    assert match.detail.startswith("ambiguous: ")
    assert words in match.detail


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("img1.png", "there is 'img1.jpg'"),
        ("z/img_0012.jpg", "there is 'a/img_0012.jpg'"),  # another folder contradicts it
        ("none", ""),
        ("img", ""),
        ("", ""),
        (".", ""),
        ("/", ""),
        ("../x", ""),
        ("nul\0", ""),
        ("n" * 5000, ""),
        ("12.0", ""),
        ("\u0661\u0662", ""),  # digits, but no number that Excel shortens
    ],
)
def test_no_file(meaning_of, path, detail):
    assert meaning_of(path) == Match(None, detail)


def test_one_file_never_stands_for_two_paths(tmp_path):
    matches = match_some(tmp_path, ["img1.jpg", "IMG1", "photo", "PHOTO.png", "noext"], FILES)
    assert matches["img1.jpg"].path == "img1.jpg"
    assert matches["IMG1"].path is None
    assert matches["IMG1"].detail == "ambiguous: another row names 'img1.jpg'"
    for path in ("photo", "PHOTO.png"):
        assert matches[path].path is None
        assert matches[path].detail == "ambiguous: 2 rows may mean 'a/deep/Photo.PNG'"


def test_paths_below_the_root_are_known_for_it(tmp_path):
    """A folder in the root may bear the root's own name."""
    files = ["a.jpg", f"{tmp_path.name}/a.jpg"]
    matches = match_some(tmp_path, [f"{tmp_path}/a.jpg"], files)
    assert matches[f"{tmp_path}/a.jpg"].path == "a.jpg"
    assert match_some(tmp_path, [f"../{tmp_path.name}/a"], files).popitem()[1].path == "a.jpg"


def test_what_lies_elsewhere_is_not_looked_for(tmp_path):
    assert match_some(tmp_path, ["/etc/hostname"], ["etc/hostname"]) == {}


@pytest.mark.parametrize(
    ("written", "path", "kinds"),
    [
        ("img1", "img1.jpg", ["without its extension"]),
        ("IMG1", "img1.jpg", ["without its extension", "by another case"]),
        ("A/x.jpg", "a/x.jpg", ["by another case"]),
        ("x.jpg", "a/x.jpg", ["without its folder"]),
        ("a\\x.jpg", "a/x.jpg", ["with backslashes"]),
        ("C:\\b\\x.jpg", "a/x.jpg", ["by an absolute path"]),
        ("12", "0012.png", ["without its extension", "without zeros in front"]),
        ("images/x.jpg", "x.jpg", ["with folders above images.root"]),
        ("./x.jpg", "x.jpg", ["in another form"]),
    ],
)
def test_differences(written, path, kinds):
    assert differences(written, path) == kinds


def test_differences_are_counted():
    pairs = [("a", "a.jpg"), ("B.jpg", "b.jpg"), ("C", "c.jpg")]
    assert count_differences(pairs) == "without its extension (2), by another case (2)"


NAMES = st.sampled_from(
    ["a", "A", "b.jpg", "B.JPG", "b.png", "12", "0012.jpg", "012.png", "e\u0301"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
WRITTEN = st.one_of(
    PATHS,
    PATHS.map(str.upper),
    PATHS.map(lambda path: path.replace("/", "\\")),
    PATHS.map(lambda path: f"C:\\x\\{path}"),
    PATHS.map(lambda path: path.rpartition(".")[0]),
    st.text(max_size=4),
)


@given(st.lists(WRITTEN, unique=True), st.lists(PATHS, unique=True, max_size=8))
def test_whatever_is_written(written, files):
    matches = match_some(Path("/nowhere"), written, files)
    found = [match.path for match in matches.values() if match.path is not None]
    assert set(found) <= set(files)
    assert len(set(found)) == len(found)
    for path in {*written} & {*files}:
        assert matches[path].path == path
    for path, match in matches.items():
        if match.path is not None and match.path != path:
            assert differences(path, match.path)


def test_many_rows_are_matched_by_sets(tmp_path):
    """Each rule goes over the files once, however many rows there are."""
    files = [f"folder{at % 90}/image.{at:06}.jpg" for at in range(30_000)]
    paths = [file.rpartition("/")[2].removesuffix(".jpg").upper() for file in files]
    random.Random(0).shuffle(paths)
    matches = match_some(tmp_path, paths, files)
    assert all(matches[f"IMAGE.{at:06}"].path == files[at] for at in range(0, 30_000, 999))
    same = [f"{at}/image.jpg" for at in range(6_000)]
    matches = match_some(tmp_path, [f"no{at}/image.jpg" for at in range(6_000)], same)
    assert not any(match.path for match in matches.values())
