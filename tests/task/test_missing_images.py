import pytest

from archiveprobe.task.missing_images import report_missing
from archiveprobe.task.rows import read_rows
from archiveprobe.task.scan import scan

TABLE = '[images]\ntable = "labels.csv"\n'


@pytest.fixture
def report(tree):
    def report(ids, files=(), settings=""):
        """What is said of a table of `ids` over `files` below the root."""
        task = tree(*files, settings=TABLE + settings)
        task.table.write_text("".join(f"{line}\n" for line in ("image,label", *ids)))
        said = []
        report_missing(task, scan(task, read_rows(task)), said.append)
        return said

    return report


def test_nothing_is_missing(report):
    assert report(["a.jpg,intact", "b.jpg,"], ["a.jpg", "b.jpg"]) == []


def test_some_are_missing(report):
    ids = ["a.jpg,intact", "img1.png,", "z.jpg,", "/etc/hostname,", "deep,"]
    assert report(ids, ["a.jpg", "img1.jpg", "deep/x.jpg"]) == [
        "2 of 5 images missing: the first is 'img1.png' (there is 'img1.jpg'), then 'z.jpg'",
        "1 of 5 images outside images.root, below which every path must stay: "
        "the first is '/etc/hostname'",
        "1 of 5 images not an ordinary file: the first is 'deep'",
    ]


def test_all_are_missing(report, fault_of):
    words = ("not one of the 2 images in ", "labels.csv", "images/img1.png ", "task.toml")
    message = fault_of(lambda: report(["img1.png,", "img2,"], ["img1.jpg"]), *words)
    assert "(there is 'img1.jpg'): correct images.root" in message


def test_the_root_is_missing(report, tree, fault_of):
    settings = 'root = "absent"\n'
    words = ("not one of the 1 images", "no folder ", "/absent ", "'photos'?")
    tree("../photos/a.jpg")
    fault_of(lambda: report(["a.jpg,"], settings=settings), *words, "correct images.root")
    fault_of(lambda: report(["/abs/a.jpg,"], settings=settings), "no folder ", "'photos'?")


@pytest.mark.proves("images")
@pytest.mark.parametrize("path", ["/etc/hostname", "../a.jpg"])
def test_all_lie_elsewhere(report, fault_of, tmp_path, path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    fault_of(lambda: report([f"{path},"]), repr(path), "not below", "/images")


def test_none_can_be_read(report, fault_of):
    fault_of(lambda: report(["deep,"], ["deep/a.jpg"]), "'deep' (not_a_file)")


def test_folders_may_hold_dead_links_only(tree):
    task = tree()
    (task.root / "a.jpg").symlink_to("nowhere.jpg")
    said = []
    report_missing(task, scan(task, read_rows(task)), said.append)
    assert said == ["1 of 1 images missing: the first is 'a.jpg'"]
