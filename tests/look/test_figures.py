"""Figures for papers: their numbers are those of scikit-learn, and names are drawn literally."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from stripes import answer_of, done, draw_stripes, run

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.majority import majority_decision
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.look.figures import files as figure_files
from archiveprobe.look.figures import write as figures
from archiveprobe.look.figures.style import literal
from archiveprobe.look.figures.write import write_figures
from archiveprobe.task.config import load_task

SVG = "{http://www.w3.org/2000/svg}"
# Mathematics, markup, a name that legends hide, right to left, what ends a comment, no font.
HOSTILE = ("$x_1$ <b>&amp;", "_مدمر", '毁 -- "d" \u202e\x07$')
RECIPE = """
[model]
backbone = "timm:test_convnext2"
weights = "random"
size = 32
[schedule]
epochs = 2
"""
TASK = """
name = "$a_b$"
labels = {labels}
[images]
table = "rows.csv"
[folds]
count = 3
repeats = 2
group = "none"
[embed]
backbones = ["hog"]
views = "center"
"""


def make(folder: Path, labels: tuple[str, ...], n: int = 48) -> Path:
    """An embedded archive of stripes, a fifth of the labels wrong, one image torn, six without."""
    rows = []
    for number in range(n + 6):
        name = f"{number}.png"
        draw_stripes(folder / "images" / name, number)
        label = labels[(number + (number % 5 == 0)) % len(labels)]
        rows.append((name, label if number < n else ""))
    (folder / "images" / "3.png").write_bytes(b"no image")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    (folder / "task.toml").write_text(TASK.format(labels=json.dumps(labels)), encoding="utf-8")
    done("embed", folder)
    done("probe", folder, "--probe", "ridge", "--probe", "knn", "--features", "hog")
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two labels with two probes and a fine-tuned system, and its figures."""
    folder = make(tmp_path_factory.mktemp("pair"), ("across", "down"))
    (folder / "quick.toml").write_text(RECIPE)
    how = ("--device", "cpu", "--workers", "0")
    done("finetune", folder, "--recipe", folder / "quick.toml", "--fold", "all", *how)
    written = answer_of("look", folder, "--figures", folder / "figures", "--system", "ridge-hog")
    assert sorted(written["figures"]) == sorted(map(str, (folder / "figures").iterdir()))
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of three labels with names that are hard to draw, and its figures."""
    folder = make(tmp_path_factory.mktemp("hostile"), HOSTILE)
    said: list[str] = []
    write_figures(load_task(folder), folder / "figures", system="knn-hog", notify=said.append)
    (folder / "said.txt").write_text("\n".join(said))
    return folder


@pytest.fixture
def only_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes no PDF, which takes three quarters of the time."""
    for module in (figures, figure_files):
        monkeypatch.setattr(module, "FORMS", ("svg",))


class Drawn:
    """An SVG file, read back."""

    def __init__(self, file: Path) -> None:
        self.root = ElementTree.parse(file).getroot()  # noqa: S314
        self.by_id = {each.get("id"): each for each in self.root.iter() if each.get("id")}
        self.text = "\n".join("".join(each.itertext()) for each in self.root.iter(f"{SVG}text"))

    def points(self, name: str) -> np.ndarray:
        """The points (n, 2) of a part, in pixels: of its path, or of its markers."""
        part = self.by_id[name]
        uses = [(each.get("x"), each.get("y")) for each in part.iter(f"{SVG}use")]
        if uses:
            return np.array(uses, float)
        lines = [each.get("d", "") for each in part.iter(f"{SVG}path")]
        numbers = re.findall(r"-?[\d.]+", " ".join(lines))
        return np.array(numbers, float).reshape(-1, 2)

    def scaled(self, name: str, box: tuple[float, float, float, float]) -> np.ndarray:
        """The points of a part in the numbers of the axes: left, right, bottom, top."""
        frame = self.points("patch_2")
        left, top = frame.min(0)
        right, bottom = frame.max(0)
        x, y = self.points(name).T
        return np.stack(
            [
                np.interp(x, [left, right], box[:2]),
                np.interp(y, [top, bottom], [box[3], box[2]]),
            ],
            1,
        )


UNIT = (-0.01, 1.01, -0.01, 1.01)


def stored_of(
    folder: Path, system: str = "ridge-hog"
) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """A system's predictions; whether readable rows are positive, and their probabilities."""
    stored = load_run(load_task(folder), "ridge-hog").predictions()
    p = stored.oof.mean(0)[:, stored.positive]
    known = np.isfinite(p)
    assert known.sum() == len(p) - 1
    return stored, (stored.labels == stored.positive)[known], p[known]


def test_every_figure_is_there_in_both_forms(pair: Path) -> None:
    names = "calibration confusion forest learning-quick map precision-recall roc scores threshold"
    wanted = {f"{name}.{form}" for name in names.split() for form in ("svg", "pdf")}
    assert {file.name for file in (pair / "figures").iterdir()} == wanted


def test_precision_recall_is_that_of_scikit_learn(pair: Path) -> None:
    _, y, p = stored_of(pair)
    drawn = Drawn(pair / "figures/precision-recall.svg")
    precision, recall, _ = precision_recall_curve(y, p)
    points = drawn.scaled("curve-0", UNIT)
    assert points[:, 0] == pytest.approx(np.clip(points[:, 0], 0, 1), abs=2e-3)
    # Every corner of the staircase lies at a recall and at a precision of the curve.
    for values, column in ((recall, 0), (precision, 1)):
        nearest = np.abs(points[:, column, None] - values).min(1)
        assert nearest.max() < 2e-3
    assert f"AP {average_precision_score(y, p):.3f}" in drawn.text


def test_roc_is_that_of_scikit_learn_and_marks_the_nested_decision(pair: Path) -> None:
    stored, y, p = stored_of(pair)
    drawn = Drawn(pair / "figures/roc.svg")
    false, true, _ = roc_curve(y, p)
    points = drawn.scaled("curve-0", UNIT)
    assert np.abs(points - np.stack([false, true], 1)[:, None]).sum(2).min(0).max() < 4e-3
    assert f"AUC {roc_auc_score(y, p):.3f}" in drawn.text
    is_positive, decided = stored.labels == stored.positive, stored.decision == stored.positive
    ((x, up),) = drawn.scaled("nested-0", UNIT)
    assert x == pytest.approx(decided[:, ~is_positive].mean(), abs=2e-3)
    assert up == pytest.approx(decided[:, is_positive].mean(), abs=2e-3)


def test_calibration_is_that_of_scikit_learn_with_counts(pair: Path) -> None:
    _, y, p = stored_of(pair)
    drawn = Drawn(pair / "figures/calibration.svg")
    share, claimed = calibration_curve(y, p, n_bins=10)
    markers = drawn.scaled("curve-0", UNIT)
    np.testing.assert_allclose(markers, np.stack([claimed, share], 1), atol=2e-3)
    counts = np.histogram(p, 10, (0, 1))[0]
    numbers = re.findall(r"^\d+$", drawn.text, re.MULTILINE)
    assert counts.sum() == len(p)
    assert all(str(count) in numbers for count in counts)


def test_macro_f1_over_the_threshold_is_that_of_scikit_learn(pair: Path) -> None:
    stored, y, p = stored_of(pair)
    drawn = Drawn(pair / "figures/threshold.svg")
    box = (0.0, 1.0, -0.01, 1.01)
    points, looked_at = drawn.scaled("curve-0", box), 0
    for (left, score), (right, same) in pairwise(points):
        if right - left > 4e-3 and score == pytest.approx(same, abs=1e-4):
            looked_at += 1
            wanted = f1_score(y, p > (left + right) / 2, average="macro")
            assert score == pytest.approx(wanted, abs=2e-3)
    assert looked_at > 20
    line = answer_of("leaderboard", pair)["leaderboard"]
    nested = next(each for each in line if each["system"] == "ridge-hog")
    words = "nested macro-F1 {macro_f1:.3f} [{low:.3f}, {high:.3f}]".format(**nested)
    assert words in drawn.text
    assert drawn.scaled("nested", box)[:, 1] == pytest.approx(nested["macro_f1"], abs=2e-3)
    assert drawn.scaled("in-use", box)[:, 0] == pytest.approx(stored.threshold, abs=2e-3)


def test_confusion_counts_every_row(pair: Path) -> None:
    stored, *_ = stored_of(pair)
    drawn = Drawn(pair / "figures/confusion.svg")
    wanted = confusion_matrix(stored.labels, majority_decision(stored))
    assert wanted.sum() == 48
    shares = 100 * wanted / wanted.sum(1, keepdims=True)
    for count, share in zip(wanted.ravel(), shares.ravel(), strict=True):
        assert re.search(rf"^{count}\s*{share:.1f} %", drawn.text, re.MULTILINE)


def test_the_forest_has_every_system_of_the_leaderboard(pair: Path) -> None:
    board = answer_of("leaderboard", pair)
    drawn = Drawn(pair / "figures/forest.svg")
    lines = [*board["leaderboard"], board["model_selection"]]
    assert {"ridge-hog", "knn-hog", "quick"} < {line["system"] for line in lines}
    for line in lines:
        assert re.search(rf"^{re.escape(line['system'])}( \(recommended\))?$", drawn.text, re.M)
    # Two scores give the scale of the axis; the others and the ends must lie on it.
    x = drawn.points("nested")[:, 0]
    scores = np.array([line["macro_f1"] for line in lines])
    slope, start = np.polyfit(scores, x, 1)
    ends = np.sort([end for line in lines for end in (line["low"], line["high"])])
    assert x == pytest.approx(slope * scores + start, abs=0.01)
    bars = np.sort(drawn.points("intervals")[:, 0])
    assert bars == pytest.approx(slope * ends + start, abs=0.01)
    optimistic = np.array([line["optimistic"] for line in lines])
    assert drawn.points("optimistic")[:, 0] == pytest.approx(slope * optimistic + start, abs=0.01)


def test_scores_and_map_count_their_rows(pair: Path) -> None:
    stored, y, _ = stored_of(pair)
    scores = Drawn(pair / "figures/scores.svg").text
    assert f"down ({y.sum()} rows)" in scores
    assert f"across ({(~y).sum()} rows)" in scores
    drawn = Drawn(pair / "figures/map.svg")
    wrong = (majority_decision(stored) != stored.labels) & stored.readable
    assert f"mistakes ({wrong.sum()} images)" in drawn.text
    assert len(drawn.points("mistakes")) == wrong.sum() > 0
    assert "rows to predict (6 images)" in drawn.text


def test_learning_curves_have_every_fold_and_epoch(pair: Path) -> None:
    drawn = Drawn(pair / "figures/learning-quick.svg")
    for fold in range(3):
        assert len(drawn.points(f"loss-fold-{fold}")) == 2
        assert f"fold-{fold}, epoch" in drawn.text


def test_files_name_the_snapshot_and_are_the_same_every_time(pair: Path, tmp_path: Path) -> None:
    task = load_task(pair)
    digest = load_dataset(task).snapshot_digest
    folder = tmp_path / "again"
    shutil.copytree(pair / "figures", folder)
    before = {file: file.stat().st_ino for file in folder.iterdir()}
    for file in write_figures(task, folder, system="ridge-hog"):
        content = file.read_bytes()
        assert file.stat().st_ino != before[file], "not written again"
        assert content == (pair / "figures" / file.name).read_bytes(), file.name
        assert digest.encode() in content
        assert not re.search(rb"20\d\d-\d\d-\d\d|CreationDate|ModDate", content)
        if file.suffix == ".svg":
            assert f"snapshot {digest[:16]}" in Drawn(file).text
        else:
            assert b"/FontFile2" in content
            assert b"/Type3" not in content


def test_names_are_drawn_literally(hostile: Path) -> None:
    shown = [literal(name) for name in HOSTILE]
    assert shown[:2] == [HOSTILE[0], f"\u2068{HOSTILE[1]}\u2069"]
    assert shown[2] == '毁 -- "d" \ufffd\ufffd$'
    for name in ("precision-recall", "roc", "calibration", "scores"):
        text = Drawn(hostile / f"figures/{name}.svg").text
        assert all(each in text for each in shown), name
    for name in ("confusion", "map"):
        text = Drawn(hostile / f"figures/{name}.svg").text
        assert all(literal(each, 25) in text for each in HOSTILE), name
    assert not (hostile / "figures/threshold.svg").exists()


def test_of_several_labels_each_is_drawn_against_the_rest(hostile: Path) -> None:
    said = (hostile / "said.txt").read_text().splitlines()
    assert "precision-recall, roc, calibration: all 3 labels, each against the rest" in said
    assert "scores: all 3 labels, each row by the probability of its own label" in said
    assert any(line.startswith("threshold: left out") for line in said)
    assert any("PDF shows boxes" in line for line in said)
    stored = load_run(load_task(hostile), "knn-hog").predictions()
    known = stored.readable
    text = Drawn(hostile / "figures/roc.svg").text
    assert "each label against the rest" in text
    for number, name in enumerate(HOSTILE):
        p = stored.oof.mean(0)[known, number]
        area = roc_auc_score(stored.labels[known] == number, p)
        assert f"{literal(name)}, AUC {area:.3f}" in text


def test_what_others_have_written_stays(pair: Path, tmp_path: Path, fault_of, only_svg) -> None:
    task = load_task(pair)
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "roc.svg").write_text("<svg>mine</svg>")
    (folder / "notes.txt").write_text("mine")
    fault_of(lambda: write_figures(task, folder), "roc.svg", "name another folder")
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", "roc.svg"]
    assert (folder / "roc.svg").read_text() == "<svg>mine</svg>"
    (folder / "roc.svg").unlink()
    other = tmp_path / "other.svg"
    other.write_bytes((pair / "figures/roc.svg").read_bytes())
    (folder / "roc.svg").symlink_to(other)
    fault_of(lambda: write_figures(task, folder), "roc.svg", "name another folder")
    (folder / "roc.svg").unlink()
    assert write_figures(task, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    fault_of(lambda: write_figures(task, pair / "work/figures"), "only products of the task lie")


def test_an_unknown_system_is_named(pair: Path, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    failed = run("look", pair, "--figures", folder, "--system", "ridge-hob")
    assert failed.exit_code != 0
    assert "ridge-hog" in failed.stderr
    assert failed.stdout == ""
    assert not folder.exists()


def test_a_partial_state_is_written_on_every_figure(pair: Path, tmp_path: Path, only_svg) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(pair, folder)
    with (folder / "rows.csv").open("a") as file:
        file.write("new.png,down\n")
    draw_stripes(folder / "images/new.png", 99)
    for file in write_figures(load_task(folder), tmp_path / "figures", partial=True):
        assert "partial: 54 of 55 rows" in Drawn(file).text
        assert b", partial: 54 of 55 rows</dc:description>" in file.read_bytes()


def test_without_matplotlib_it_says_what_to_install(pair, tmp_path, fault_of, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    words = ("pip install 'archiveprobe[figures]'",)
    fault_of(lambda: write_figures(load_task(pair), tmp_path / "figures"), *words)
    assert not (tmp_path / "figures").exists()
