"""`embed --from`: what the embed of another task has made of the same images is not made again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from snapshots import current_cache

from archiveprobe.archive.units import Share
from archiveprobe.base.errors import InputError
from archiveprobe.cache.spec import find_caches
from archiveprobe.cache.store import Reader
from archiveprobe.cli import main
from archiveprobe.embed.run import Options
from archiveprobe.embed.take_over import take_over
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.manifest import read_manifest


def people(archive, *, labels: str = "no,yes", root: str = "../archive/images", **settings: str):
    """Write a task about the same images in a folder of its own, with other labels."""
    folder = archive.folder.with_name("people")
    folder.mkdir(exist_ok=True)
    words = labels.split(",")
    rows = [f"{name},{words[at % 3 % 2]}" for at, name in enumerate(archive.ids)]
    (folder / "people.csv").write_text("\n".join(["image,label", *rows, ""]))
    more = {"backbones": '["resnet18"]', "views": '"center"', **settings}
    (folder / "task.toml").write_text(
        f'name = "people"\nlabels = {words}\n[images]\ntable = "people.csv"\nroot = "{root}"\n'
        "[folds]\ncount = 2\nrepeats = 2\n[embed]\n"
        + "".join(f"{key} = {value}\n" for key, value in more.items())
    )
    return load_task(folder)


def rows_of(task: Task) -> dict[bytes, np.ndarray]:
    record = current_cache(task, "resnet18")
    assert record is not None
    reader = Reader(record.folder)
    keys = list(reader.keys)
    return dict(zip(keys, reader.read(keys)[1], strict=True))


def equal(one: Task, other: Task) -> bool:
    left, right = rows_of(one), rows_of(other)
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def seen(task: Task) -> list[tuple[str, str, object]]:
    return [(entry.path, entry.digest, entry.observed) for entry in read_manifest(task)]


def test_nothing_is_decoded_or_embedded_again(mixed, bench) -> None:
    source = mixed.task()
    first = bench.run(source)
    task = people(mixed)
    summary = bench.run(task, source=source)
    assert (bench.decoded, bench.encoders) == (0, {})
    assert (summary.embedded, summary.reused) == (0, 10)
    assert summary.reasons == first.reasons
    assert f"resnet18: 10 rows taken over from {source.file}" in bench.said
    assert equal(source, task) and seen(source) == seen(task)


def test_without_it_all_is_made_again(mixed, bench) -> None:
    """Otherwise the test above would prove nothing."""
    bench.run(mixed.task())
    summary = bench.run(people(mixed))
    assert (bench.decoded, summary.embedded) == (12, 10)


def test_each_task_has_a_cache_of_its_own_from_then_on(mixed, bench) -> None:
    source = mixed.task()
    bench.run(source)
    task = people(mixed)
    bench.run(task, source=source)
    before = rows_of(task)
    shutil.rmtree(source.work)
    assert rows_of(task).keys() == before.keys()
    assert (bench.run(task).reused, bench.decoded) == (10, 0)
    thumbs = sorted((task.work / "thumbs").glob("??/*.jpg"))
    assert len(thumbs) == 10 and all(file.read_bytes() for file in thumbs)


def test_new_images_alone_are_embedded_and_what_came_since_is_taken(archive, bench) -> None:
    archive.add_drawn(range(4))
    source = archive.task()
    bench.run(source)
    archive.add_drawn([4])
    task = people(archive)
    assert bench.run(task, source=source).embedded == 1
    assert bench.decoded == 1

    archive.add_drawn([5, 6])
    source = archive.task()
    bench.run(source)
    summary = bench.run(people(archive), source=source)
    # The fifth lies in one shard with them there, and in one of its own here.
    assert (summary.embedded, summary.reused, bench.decoded) == (0, 7, 0)
    assert f"resnet18: 2 rows taken over from {source.file}" in bench.said
    bench.run(people(archive), source=source)
    assert f"resnet18: 0 rows taken over from {source.file}" in bench.said
    record = current_cache(task, "resnet18")
    assert record is not None and not (record.folder / "set-aside").exists()
    assert equal(source, task)


def test_images_in_another_folder_are_known_by_their_bytes(archive, bench) -> None:
    archive.add_drawn(range(4))
    source = archive.task()
    bench.run(source)
    copies = archive.folder.with_name("copies")
    shutil.copytree(archive.folder / "images", copies)
    # Another image under the name of one that was seen.
    shutil.copyfile(copies / "001.png", copies / "000.png")
    task = people(archive, root="../copies")
    summary = bench.run(task, source=source)
    assert (summary.embedded, summary.duplicates, bench.decoded) == (0, 1, 0)
    entries = read_manifest(task)
    assert entries[0].digest == entries[1].digest != read_manifest(source)[0].digest


def test_other_settings_are_named_and_computed(archive, bench) -> None:
    archive.add_drawn(range(4))
    source = archive.task()
    bench.run(source)
    assert bench.run(people(archive, views='"flip"'), source=source).embedded == 4
    [said] = [line for line in bench.said if "nothing taken over" in line]
    assert f"the settings differ from those of {source.file}: " in said
    assert "was 'center', is 'flip'" in said
    task = people(archive, backbones='["resnet18", "resnet50"]')
    bench.run(task, source=source)
    assert f"resnet50: nothing taken over, {source.file} has no cache of it" in bench.said
    assert set(bench.encoders) == {"resnet50"}


def test_a_cache_that_is_begun_takes_no_rows_of_another_precision(archive, bench) -> None:
    archive.add_drawn(range(2))
    task = people(archive)
    bench.run(task, precision="fp32")
    archive.add_drawn([2, 3])
    source = archive.task()
    bench.run(source, precision="bf16")
    summary = bench.run(people(archive), source=source)
    assert (summary.embedded, summary.reused) == (2, 2)
    assert [line for line in bench.said if "taken over" in line] == [
        f"resnet18: nothing taken over, the settings differ from those of {source.file}: precision"
    ]
    assert len(find_caches(task.caches, "resnet18")) == 1


def test_a_damaged_shard_is_not_taken_for_good(archive, bench) -> None:
    archive.add_drawn(range(4))
    source = archive.task()
    bench.run(source)
    record = current_cache(source, "resnet18")
    assert record is not None
    [shard] = (record.folder / "shards").glob("*.h5")
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    task = people(archive)
    expected = rows_of(source)
    shard.write_bytes(content)
    summary = bench.run(task, source=source)
    assert (summary.embedded, summary.failed) == (4, 0)
    assert all(np.array_equal(rows_of(task)[key], row) for key, row in expected.items())


def test_what_cannot_be_taken_over_is_refused(archive, bench) -> None:
    archive.add_drawn(range(4))
    source, task = archive.task(), people(archive)
    with pytest.raises(InputError, match="nothing is embedded yet"):
        bench.run(task, source=source)
    bench.run(source)
    with pytest.raises(InputError, match="is the task itself: name another one with --from"):
        bench.run(source, source=source)
    with pytest.raises(InputError, match="--units and --from do not go together"):
        bench.run(task, source=source, share=Share(1, 2))
    assert not task.work.exists()


@pytest.mark.parametrize("words", [["--from", "nowhere.toml"], ["--from", "images"]])
def test_a_source_that_is_no_task_is_one_line(archive, words: list[str], monkeypatch) -> None:
    archive.add_drawn(range(2))
    archive.task()
    monkeypatch.chdir(archive.folder)
    done = CliRunner().invoke(main, ["embed", ".", *words])
    assert (done.exit_code, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_a_dry_run_takes_nothing_over(archive) -> None:
    archive.add_drawn(range(2))
    words = ["embed", str(archive.task().file), "--from", str(archive.folder), "--dry-run"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "exclude each other" in done.stderr


def test_the_thumbnails_of_other_images_stay_where_they_are(archive, bench, tmp_path: Path) -> None:
    archive.add_drawn(range(4))
    source = archive.task()
    bench.run(source)
    (source.work / "thumbs" / "ff").mkdir(exist_ok=True)
    (source.work / "thumbs" / "ff" / f"{'f' * 64}.jpg").write_bytes(b"of an image that is gone")
    task = people(archive)
    take_over(task, source, [])
    assert len(list((task.work / "thumbs").glob("??/*.jpg"))) == 4
    assert Options().source is None
