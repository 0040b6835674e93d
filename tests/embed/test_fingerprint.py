"""Everything that an embedding depends on is in the fingerprint, and nothing else."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from archiveprobe.cache.spec import canonical, fingerprint_digest
from archiveprobe.embed import fingerprint as module
from archiveprobe.embed.backbones import BACKBONES, Backbone
from archiveprobe.embed.fingerprint import fingerprint, request, versions
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task import decoding

GEOMETRY = Geometry(32, 36)
ENCODER = SimpleNamespace(
    weights_digest="aa",
    random_weights=False,
    preprocess=Preprocess(GEOMETRY, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)),
)
CENTER = view_set("center")
BACKBONE = Backbone("own", "timm", "resnet18", "a1_in1k", arguments={"a": 1})


@pytest.fixture
def task(archive):
    archive.add_drawn([0])
    return archive.task()


def changed_encoder(**fields):
    return SimpleNamespace(**{**vars(ENCODER), **fields})


def preprocess(**fields):
    return changed_encoder(preprocess=replace(ENCODER.preprocess, **fields))


def geometry(**fields):
    return preprocess(geometry=replace(GEOMETRY, **fields))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": replace(BACKBONE, name="other")},
        {"backbone": replace(BACKBONE, library="open_clip")},
        {"backbone": replace(BACKBONE, model="resnet34")},
        {"backbone": replace(BACKBONE, arguments={"a": 2})},
        {"encoder": changed_encoder(weights_digest="ab")},
        {"encoder": changed_encoder(random_weights=True)},
        {"encoder": preprocess(mean=(0.1, 0.2, 0.4))},
        {"encoder": preprocess(std=(1.0, 1.0, 2.0))},
        {"encoder": geometry(size=31)},
        {"encoder": geometry(resize=37)},
        {"encoder": geometry(crop="squash")},
        {"encoder": geometry(interpolation="bilinear")},
        {"encoder": geometry(fill=(1, 1, 1))},
        {"views": view_set("flip")},
        {"precision": "bf16"},
        {"backbone": replace(BACKBONE, layers="unprojected")},
        {"backbone": replace(BACKBONE, tower="text")},
        {"backbone": replace(BACKBONE, decode="fast")},
        {"encoder": geometry(decode="fast")},
        {"policy": {"version": 99}},
        {"versions": {"torch": "9.9"}},
        {"format": 99},
    ],
    ids=str,
)
def test_every_field_tells_two_caches_apart(monkeypatch, change) -> None:
    def digest(backbone=BACKBONE, encoder=ENCODER, views=CENTER, precision="fp32"):
        return fingerprint_digest(fingerprint(backbone, encoder, views, precision))

    base = digest()
    assert digest() == base
    given = {k: v for k, v in change.items() if k in ("backbone", "encoder", "views", "precision")}
    monkeypatch.setattr(decoding, "POLICY", change.get("policy", decoding.POLICY))
    monkeypatch.setattr(module, "FORMAT", change.get("format", module.FORMAT))
    if "versions" in change:
        monkeypatch.setattr(module, "versions", lambda _: change["versions"])
    assert digest(**given) != base


def test_paths_labels_and_weights_files_are_no_part_of_it(tmp_path) -> None:
    def text(backbone):
        return canonical(fingerprint(backbone, ENCODER, view_set("center"), "fp32"))

    base = text(BACKBONE)
    assert text(replace(BACKBONE, weights=str(tmp_path / "w.safetensors"))) == base
    assert str(tmp_path).encode() not in base


def test_versions_are_major_and_minor_only() -> None:
    found = versions(BACKBONES["resnet18"])
    assert set(found) == {"torch", "timm", "open_clip_torch", "pillow"}
    assert all(version.count(".") == 1 and "+" not in version for version in found.values())
    assert set(versions(BACKBONES["hog"])) == {"scikit-image", "pillow"}


def test_a_request_knows_the_file_by_size_and_date(task, tmp_path) -> None:
    file = tmp_path / "w.safetensors"
    backbone = replace(BACKBONE, weights=str(file))
    seen = [request(task, backbone)]
    for content, date in ((b"one", 1), (b"one", 2), (b"four", 2)):
        file.write_bytes(content)
        os.utime(file, ns=(date, date))
        seen.append(request(task, backbone))
        assert request(task, backbone) == seen[-1]
    assert len({canonical(one) for one in seen}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"model": "resnet34"},
        {"tag": "a2_in1k"},
        {"library": "open_clip"},
        {"arguments": {"a": 2}},
        {"weights": "random"},
        {"name": "other"},
    ],
    ids=str,
)
def test_a_request_knows_what_is_asked_for(task, change) -> None:
    assert request(task, replace(BACKBONE, **change)) != request(task, BACKBONE)


def test_a_request_can_be_written_down(task) -> None:
    assert canonical(request(task, BACKBONES["clip-vit-b32"]))


def test_another_version_of_the_descriptor_is_another_request(task, monkeypatch) -> None:
    before = request(task, BACKBONES["hog"])
    monkeypatch.setattr(module, "VERSION", 99)
    assert request(task, BACKBONES["hog"]) != before
