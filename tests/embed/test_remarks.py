"""What embed says of rows without a file, of strays and of folds; and when it stops."""

from archiveprobe.task.config import load_task


def test_a_wrong_root_stops_the_run_and_keeps_what_was_seen(archive, bench, fault_of) -> None:
    archive.add_drawn(range(4))
    task = archive.task()
    bench.run(task)
    manifest = (task.work / "manifest.csv").read_bytes()
    (archive.folder / "images").rename(archive.folder / "pictures")
    words = ("4 photographs", "no folder ", "/images", "'pictures/000.png'", "images.root")
    fault_of(lambda: bench.run(task), *words)
    assert (task.work / "manifest.csv").read_bytes() == manifest
    (archive.folder / "pictures").rename(archive.folder / "images")
    assert bench.run(task).reused == 4


def test_some_missing_rows_are_said_and_the_run_goes_on(archive, bench) -> None:
    archive.add_drawn(range(4))
    archive.ids.append("002.PNG")
    assert bench.run(archive.task()).embedded == 4
    first = "1 of 5 photographs are missing: the first is '002.PNG' (did you mean '002.png'?)"
    assert first in bench.said


def test_strays_in_folders_are_said(archive, bench, draw) -> None:
    for label in ("intact", "destroyed"):
        archive.file(label).mkdir()
        draw(len(label)).save(archive.file(f"{label}/a.png"))
    archive.file("orig.st").write_bytes(b"weights")
    file = archive.task().file
    file.write_text(file.read_text().replace('table = "labels.csv"\n', ""))
    assert bench.run(load_task(file)).images == 2
    assert "ignored 1 file that is no picture: .st (1)" in bench.said


def test_without_labels_there_are_no_folds(archive, bench) -> None:
    archive.add_drawn(range(4))
    file = archive.task(labels=[""]).file
    bench.run(load_task(file))
    assert [line for line in bench.said if "folds" in line] == ["no folds: no labelled rows"]
    file.write_text(file.read_text().replace('["intact", "destroyed"]', "[]"))
    bench.run(load_task(file))
    [line] = [line for line in bench.said if "folds" in line]
    assert line.startswith("no folds: no labelled rows: labels is empty in ")


def test_other_settings_of_the_folds_are_said(archive, bench) -> None:
    archive.add_drawn(range(8))
    file = archive.task().file
    bench.run(load_task(file))
    folds = (archive.folder / "work" / "folds.csv").read_bytes()
    file.write_text(file.read_text().replace("count = 2", "count = 3"))
    bench.run(load_task(file))
    assert "was written with count = 2, but" in bench.text()
    assert "no folds" not in bench.text()
    assert (archive.folder / "work" / "folds.csv").read_bytes() == folds
