"""Pages of unfinished, damaged and changed sets of runs: what there is, and what is missing."""

import csv
from pathlib import Path

import numpy as np
import pytest

from archiveprobe.demo.archive import write_demo
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.ensemble import stored_leaderboard
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.look.collect.collection import Collection
from archiveprobe.look.collect.run import collect
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task

pytestmark = pytest.mark.usefixtures("quick")
HOSTILE = ["<script>alert(1)</script>.jpg", "\"'`&.jpg", "\u202egpj.exe", "=1+1.jpg", "صورة 1.jpg"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is computed of whole pages only."""
    monkeypatch.setattr("archiveprobe.look.collect.data_report._AUDITS", ())
    monkeypatch.setattr("archiveprobe.look.collect.systems.MOST_SYSTEMS", 0)


def table(task: Task) -> list[dict[str, str]]:
    assert task.table is not None
    with task.table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_table(task: Task, lines: list[dict[str, str]]) -> None:
    assert task.table is not None
    with task.table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def gaps(found: Collection, word: str) -> list[str]:
    """The commands of what is missing and holds a word."""
    return [gap["command"] for gap in found.meta["missing"] if word in gap["what"]]


def test_a_damaged_system_is_named_and_the_page_made(copied) -> None:
    folder = copied().work / "runs" / "lda-hog"
    file = next(folder.glob("predictions*"))
    file.write_bytes(file.read_bytes()[:-1])
    found = collect(copied())
    names = [one["name"] for one in found.meta["systems"]]
    assert "lda-hog" not in names and "ridge-hog" in names
    assert f"archiveprobe probe {copied().file}" in gaps(found, "lda-hog is damaged")
    # The ensemble that it is a member of is out of date.
    assert "greedy" not in names
    assert "--method greedy" in gaps(found, "greedy is out of date")[0]


def test_systems_of_other_labels_are_named_with_their_command(copied) -> None:
    lines = table(copied())
    line = next(line for line in lines if line["label"] == "destruction")
    line["label"] = "not_destruction"
    write_table(copied(), lines)
    found = collect(copied())
    assert found.meta["systems"] == [] and found.meta["board"] is None
    assert gaps(found, "ridge-hog is out of date (labels") == [
        f"archiveprobe probe {copied().file}"
    ]


def test_rows_that_wait_need_partial(copied, fault_of) -> None:
    lines = table(copied())
    write_table(copied(), [*lines, {**lines[0], "image": "new.jpg", "label": ""}])
    (copied().root / "new.jpg").write_bytes((copied().root / lines[0]["image"]).read_bytes())
    fault_of(lambda: collect(copied()), "1 of 81 rows waits for embed", "--partial")
    said: list[str] = []
    found = collect(copied(), partial=True, notify=said.append)
    assert found.meta["count"] == len(found) == 80
    assert found.meta["partial"] == "partial: 80 of 81 rows"
    assert any("80 of 81 rows" in text for text in said)


def test_rows_to_predict_that_came_since_have_no_answer(copied) -> None:
    lines = table(copied())
    first = next(line for line in lines if line["split"] == "test")
    write_table(copied(), [*lines, {**first, "image": "new.jpg", "label": ""}])
    (copied().root / "new.jpg").write_bytes((copied().root / lines[0]["image"]).read_bytes())
    embed(copied(), EmbedOptions(workers=0))
    found = collect(copied())
    p = found.columns["p:0"].reshape(81, 2)
    assert np.isnan(p[80]).all() and found.columns["answer:0"][80] == -1
    assert np.isfinite(p[:80]).all(1).sum() == 78
    name = found.meta["systems"][0]["name"]
    assert gaps(found, f"{name} has no answers for 1 of") != []


def test_rows_to_predict_of_other_images_have_no_answer(copied) -> None:
    lines = [line for line in table(copied()) if line["split"] == "test"]
    one, other = (copied().root / line["image"] for line in lines[:2])
    one.write_bytes(other.read_bytes())
    embed(copied(), EmbedOptions(workers=0))
    found = collect(copied())
    to_predict = found.columns["label"] < 0
    assert (found.columns["answer:0"][to_predict] == -1).all()
    assert (found.columns["answer:0"][~to_predict] >= 0).all()


def test_labels_of_rows_to_predict_are_never_read(copied) -> None:
    lines = table(copied())
    for line in lines:
        if line["split"] == "test":
            line["label"] = "destruction"
    write_table(copied(), lines)
    found = collect(copied())
    test = found.columns["split"] == found.meta["splits"].index("test")
    assert test.any()
    assert (found.columns["label"][test] == -1).all()
    assert (found.columns["table_label"][test] == -1).all()


def test_corrections_show_the_label_of_the_table_too(copied) -> None:
    line = next(line for line in table(copied()) if line["label"] == "destruction")
    file = copied().folder / "corrections.csv"
    file.write_text(f'id,label\n"{line["image"]}",not_destruction\n', "utf-8")
    found = collect(copied())
    at = [row["id"] for row in found.rows].index(line["image"])
    assert found.columns["table_label"][at] == 1 and found.columns["label"][at] == 0
    assert [fix["id"] for fix in found.meta["corrections"]] == [line["image"]]
    assert (found.columns["table_label"] != found.columns["label"]).sum() == 1
    run_probes(copied(), Options(probes=("ridge",), workers=1))
    board = collect(copied()).meta["board"]
    assert board["corrections"] == stored_leaderboard(copied()).record()["corrections"]
    assert any("corrections changed 1 of" in text for text in board["warnings"])


def test_a_damaged_cache_is_named_and_the_page_made(copied) -> None:
    shard = next(copied().work.glob("cache/*/shards/*.h5"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    found = collect(copied())
    assert found.meta["embeddings"] == [] and found.meta["maps"] == []
    assert gaps(found, shard.name) == [f"archiveprobe cache verify {copied().file} --deep"]
    assert found.meta["systems"]


def test_folds_without_a_system_are_named_with_their_command(copied, monkeypatch) -> None:
    from archiveprobe.finetune.train import Epoch
    from archiveprobe.look.collect import run as module
    from archiveprobe.look.collect.curves import Curves

    curve = Curves("demo-tiny", "fold-0", 0, 1, (Epoch(1, 0.5, 0.6, 1e-3),))
    monkeypatch.setattr(module, "learning_curves", lambda *_, **__: [curve])
    found = collect(copied())
    assert [one["system"] for one in found.meta["learning"]] == ["demo-tiny"]
    assert gaps(found, "demo-tiny has 1 of 5 folds") == [
        f"archiveprobe finetune {copied().file} --recipe demo-tiny --fold all"
    ]


def test_nothing_embedded_is_refused_in_one_line(tmp_path: Path, fault_of) -> None:
    write_demo(tmp_path / "archive", count=60)
    task = load_task(tmp_path / "archive")
    fault_of(lambda: collect(task), "nothing is embedded yet", "archiveprobe embed")
    fault_of(lambda: collect(task, maps=("PCB",)), "unknown map 'PCB'", "did you mean 'PCA'")


def test_an_archive_without_labels_is_shown(archive) -> None:
    archive.add_drawn(range(12))
    task = archive.task(["hog"])
    lines = "\n".join(["image,label", *(f"{name}," for name in archive.ids)])
    (archive.folder / "labels.csv").write_text(lines)
    embed(task, EmbedOptions(workers=0))
    found = collect(task)
    assert found.meta["labelled"] == 0 and found.meta["to_predict"] == 12
    assert found.meta["systems"] == [] and np.isfinite(found.columns["x:0"]).all()
    assert gaps(found, "no labelled rows")


def test_hostile_names_and_captions_come_as_they_are(archive) -> None:
    archive.add_drawn(range(20))
    for name, donor in zip(HOSTILE, archive.ids[:], strict=False):
        if "/" not in name:
            archive.add(name, archive.file(donor).read_bytes())
    task = archive.task(["hog"], settings="")
    text = task.file.read_text().replace(
        'table = "labels.csv"', 'table = "labels.csv"\ntext = "caption"'
    )
    task.file.write_text(text)
    captions = ["</script><b>\u2028", 'a "quoted"\nline', "x" * 10_000, "=HYPERLINK(1)", ""]
    with (archive.folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "caption"])
        for at, name in enumerate(archive.ids):
            writer.writerow([name, ["intact", "destroyed"][at % 2], captions[at % 5]])
    task = load_task(archive.folder)
    embed(task, EmbedOptions(workers=0))
    found = collect(task)
    assert [row["id"] for row in found.rows] == archive.ids
    assert [row["text"] for row in found.rows] == [captions[at % 5] for at in range(len(found))]


def test_views_are_named_and_scored(copied) -> None:
    run_probes(copied(), Options(probes=("ridge",), features=("hog:logits",), workers=1))
    found = collect(copied())
    [number] = [at for at, one in enumerate(found.meta["systems"]) if one["views"]]
    one = found.meta["systems"][number]
    assert one["views"] == [view.name for view in view_set("crops6")]
    stored = load_run(copied(), one["name"]).predictions()
    assert stored.oof_views is not None and stored.test_views is not None
    views = found.columns[f"views:{number}"].reshape(80, 6)
    labelled = found.columns["label"] >= 0
    np.testing.assert_allclose(views[labelled], stored.oof_views.mean(0)[..., 1], rtol=1e-6)
    np.testing.assert_allclose(views[~labelled], stored.test_views[..., 1], rtol=1e-6)


def test_three_labels_have_three_probabilities_and_no_aims(archive, monkeypatch) -> None:
    monkeypatch.setattr("archiveprobe.look.collect.systems.MOST_SYSTEMS", 5)
    archive.add_drawn(range(30))
    names = ("intact", "damaged", "destroyed")
    task = archive.task(["hog"], labels=names)
    text = task.file.read_text().replace('labels = ["intact", "destroyed"]', f"labels = {[*names]}")
    task.file.write_text(text)
    task = load_task(archive.folder)
    embed(task, EmbedOptions(workers=0))
    run_probes(task, Options(probes=("ridge",), workers=1))
    found = collect(task)
    p = found.columns["p:0"].reshape(30, 3)
    np.testing.assert_allclose(p.sum(1), 1)
    [one] = found.meta["systems"]
    assert one["aims"] is None and one["threshold"] is None and one["difference"] is None
    assert set(found.columns["answer:0"].tolist()) <= {0, 1, 2}


def test_more_labels_than_a_column_holds_are_refused(copied, fault_of) -> None:
    many = copied().model_copy(update={"labels": tuple(map(str, range(128)))})
    fault_of(lambda: collect(many), "128 labels", "at most 127")
