"""Images of an archive, read through their source: as those of a task are, status by status."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.archive.source import open_source
from archiveprobe.base.errors import InputError
from archiveprobe.embed.decoding import ReferenceDecoders, prepare_images
from archiveprobe.embed.prepare import Preparation, PreparedImage, prepare_reference
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.run import Options, embed
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import digest
from archiveprobe.task.manifest import read_manifest

ORDER = Preparation(
    Path(), {Geometry(16, 16): view_set("crops6"), Geometry(24, 24): view_set("flip")}
)


def prepared(images: Path, names: list[str], workers: int = 0) -> Iterator[PreparedImage]:
    references = [Reference(name, name) for name in names]
    with ReferenceDecoders(open_source(str(images)), ORDER, workers=workers) as decoders:
        yield from decoders.images(references)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_as_the_images_of_a_task(mixed, workers) -> None:
    folder = mixed.folder / "images"
    names = [name for name in mixed.ids if name != "missing.png"]
    files = [(str(folder / name), digest((folder / name).read_bytes())) for name in names]
    found = list(prepared(folder, names, workers))
    for one, two in zip(found, prepare_images(files, ORDER, workers=0), strict=True):
        assert one.digest == two.digest
        seen, full = one.observation, two.observation
        assert (seen.status, seen.detail) == (full.status, full.detail)
        assert (seen.bytes, seen.width, seen.format) == (full.bytes, full.width, full.format)
        # What costs time and only an audit wants is not there.
        assert seen.phash == "" and seen.red is None
        for geometry in two.views:
            np.testing.assert_array_equal(one.views[geometry].crops, two.views[geometry].crops)
            assert one.views[geometry].mirror == two.views[geometry].mirror


def test_without_bytes_there_is_no_digest(mixed) -> None:
    (image,) = prepared(mixed.folder / "images", ["missing.png"])
    assert (image.digest, image.observation.status, dict(image.views)) == ("", "missing_file", {})


class Failing:
    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def read(self, reference: Reference) -> bytes:
        del reference
        raise self.fault


def test_faults_of_a_source() -> None:
    reference = Reference("a", "a")
    source = Failing(UnreadableError("too_many_bytes", "3 bytes, limit 2", 3))
    image = prepare_reference(reference, source, ORDER)  # type: ignore[arg-type]
    assert image.observation.status == "too_many_bytes" and image.observation.bytes == 3
    image = prepare_reference(reference, Failing(MemoryError()), ORDER)  # type: ignore[arg-type]
    assert (image.observation.status, image.observation.detail) == (
        "decoder_died",
        "memory ran out",
    )
    with pytest.raises(InputError, match="credentials"):
        prepare_reference(reference, Failing(InputError("no credentials")), ORDER)  # type: ignore[arg-type]


@pytest.mark.proves("images")
@pytest.mark.real
def test_bad_images_have_the_statuses_that_embed_gives_them(shared, tmp_path) -> None:
    images = shared / "bad_images"
    with (images / "index.csv").open(newline="") as stream:
        names = [line["file"] for line in csv.DictReader(stream)]
    lines = [f"{name},{('a', 'b')[at % 2]}" for at, name in enumerate(names)]
    (tmp_path / "rows.csv").write_text("\n".join(["image,label", *lines]))
    root = os.path.relpath(images, tmp_path)
    (tmp_path / "task.toml").write_text(
        f'name = "bad"\nlabels = ["a", "b"]\n[images]\nroot = "{root}"\ntable = "rows.csv"\n'
        '[embed]\nbackbones = ["hog"]\n'
    )
    task = load_task(tmp_path)
    embed(task, Options(workers=0, device="cpu"))
    expected = {entry.id: (entry.digest, entry.status) for entry in read_manifest(task)}
    found = zip(names, prepared(images, names, workers=2), strict=True)
    assert {name: (image.digest, image.observation.status) for name, image in found} == expected
    assert len(names) > 200
