"""A backbone as a transformer gives what `embed` gives, and is an estimator like others."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import archiveprobe as ap
from archiveprobe.embed.precision import cosines
from archiveprobe.embed.run import Options, embed
from archiveprobe.task.config import load_task

TINY = """
[backbone.tiny]
library = "timm"
name = "test_resnet"
weights = "{weights}"
{more}
"""


def with_backbone(archive: Path, weights: str, more: str = "", precision: str = "fp32") -> ap.Task:
    """Embed thirty rows of the archive through a tiny network."""
    table = archive / "labels.csv"
    lines = table.read_text("utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:31]), "utf-8")
    file = archive / "task.toml"
    text = file.read_text("utf-8").replace('["hog"]', '["tiny"]')
    file.write_text(text + TINY.format(weights=weights, more=more), "utf-8")
    embed(load_task(archive), Options(workers=0, device="cpu", precision=precision))
    return ap.open(archive)


def assert_same(rows: np.ndarray, wanted: np.ndarray) -> None:
    assert rows.dtype == np.float32 and rows.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(rows), np.isnan(wanted))
    known = np.isfinite(wanted).all(1)
    assert known.any() and cosines(rows[known], wanted[known]).min() > 0.9999


def test_the_files_of_an_archive_give_its_embeddings(task: ap.Task) -> None:
    files = task.files()
    embedder = ap.Embedder("hog", views="flip", errors="nan")
    assert_same(embedder.transform(files[:50]), task.embeddings("hog")[:50])
    mirrored = clone(embedder).set_params(view="center-mirrored", batch_size=3)
    assert_same(mirrored.transform(files[:20]), task.embeddings("hog", view="center-mirrored")[:20])
    named = ap.Embedder("hog", task=task.file.parent, errors="nan")
    assert_same(named.transform([str(file) for file in files[:20]]), task.embeddings("hog")[:20])


def test_opened_images_are_decoded_as_files_are(task: ap.Task) -> None:
    """The archive has turned, transparent, grey 16-bit and animated ones."""
    rows, files = task.rows(), task.files()
    whole = [file for file, status in zip(files, rows.status, strict=True) if status == "ok"]
    odd = (rows.orientation.fillna(1) != 1) | (rows.frames.fillna(1) > 1) | (rows.format == "PNG")
    chosen = [file for file, use in zip(files, odd & (rows.status == "ok"), strict=True) if use]
    assert (rows.orientation.fillna(1) != 1).any() and len(chosen) > 5
    embedder = ap.Embedder("hog")
    wanted = embedder.transform(chosen)
    np.testing.assert_array_equal(embedder.transform([Image.open(file) for file in chosen]), wanted)
    plain = [file for file in whole if file.suffix == ".jpg"][:5]
    arrays = [np.asarray(Image.open(file)) for file in plain if not Image.open(file).getexif()]
    assert len(arrays) >= 2
    upright = [Image.fromarray(array) for array in arrays]
    np.testing.assert_array_equal(embedder.transform(arrays), embedder.transform(upright))


@pytest.mark.filterwarnings("ignore:.*RANDOM WEIGHTS")
def test_a_network_gives_its_embeddings_too(archive: Path) -> None:
    import torch

    task = with_backbone(archive, "random")
    threads = torch.get_num_threads()
    embedder = ap.Embedder("timm:test_resnet", weights="random", views="flip", errors="nan")
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS"):
        rows = embedder.transform(task.files())
    assert_same(rows, task.embeddings("tiny"))
    assert torch.get_num_threads() == threads
    # The network stays loaded, and is not copied.
    network = embedder._loaded
    embedder.transform(task.files()[:1])
    assert embedder._loaded is network and network is not None
    assert copy.deepcopy(embedder)._loaded is clone(embedder)._loaded is None


def test_weights_from_a_file_of_the_tasks_own(archive: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from archiveprobe.embed.libraries import make_torchvision_importable

    make_torchvision_importable()
    import timm

    torch.manual_seed(7)
    save_file(timm.create_model("test_resnet").state_dict(), archive / "mine.safetensors")
    more = "preprocess = { size = 32, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }"
    task = with_backbone(archive, "mine.safetensors", more)
    rows = ap.Embedder("tiny", task=archive, errors="nan").transform(task.files())
    assert_same(rows, task.embeddings("tiny"))
    file = archive / "mine.safetensors"
    with pytest.warns(
        UserWarning, match="no preprocess is given, so the library's own is used: size"
    ):
        other = ap.Embedder("timm:test_resnet", weights=file).transform(task.files()[:1])
    assert not np.allclose(other, rows[:1], atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*RANDOM WEIGHTS")
def test_the_precision_of_a_cache_gives_its_numbers(archive: Path) -> None:
    task = with_backbone(archive, "random", precision="bf16")
    given = {"task": archive, "errors": "nan"}
    rows = ap.Embedder("tiny", precision="bf16", **given).transform(task.files())
    assert_same(rows, task.embeddings("tiny"))
    exact = ap.Embedder("tiny", **given).transform(task.files())
    distance = [np.nanmax(np.abs(x - task.embeddings("tiny"))) for x in (rows, exact)]
    assert distance[0] < distance[1]


def test_it_works_where_estimators_work(task: ap.Task) -> None:
    rows = task.rows()
    known = rows[(rows.label.notna() & (rows.status == "ok")).to_numpy()].index[:24]
    files, y = np.array([str(file) for file in task.files()])[known], rows.label[known]
    pipeline = make_pipeline(ap.Embedder("hog"), ap.probes.Ridge())
    scores = cross_val_score(pipeline, files, y, cv=2)
    by_hand = cross_val_score(ap.probes.Ridge(), task.embeddings("hog", "center")[known], y, cv=2)
    np.testing.assert_array_equal(scores, by_hand)
    search = GridSearchCV(pipeline, {"ridge__alphas": [(1.0,), (1e3,)]}, cv=2)
    assert search.fit(files[:12], y[:12]).best_params_["ridge__alphas"] in ((1.0,), (1e3,))
    copied = clone(pipeline)
    assert copied[0].get_params() == pipeline[0].get_params() == ap.Embedder("hog").get_params()
    framed = clone(pipeline[0]).set_output(transform="pandas").transform(files[:2])
    assert framed.columns[[0, -1]].tolist() == ["embedder0", "embedder1859"]
    # As a ColumnTransformer and pandas hand columns over.
    column = rows.assign(file=task.files()).loc[known[:3], ["file"]]
    wanted = ap.Embedder("hog").transform(list(files[:3]))
    for given in (column, column["file"], column.to_numpy(), iter(column["file"])):
        np.testing.assert_array_equal(ap.Embedder("hog").fit_transform(given), wanted)


@pytest.mark.proves("images")
def test_what_cannot_be_read_is_named_or_nan(task: ap.Task, tmp_path: Path, fault_of) -> None:
    good = task.files()[task.rows().status.eq("ok").argmax()]
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:900])
    embedder = ap.Embedder("hog")
    for bad, status in (
        (cut, "truncated"),
        (tmp_path / "gone.jpg", "missing_file"),
        (tmp_path, "not_a_file"),
        (shutil.copy(__file__, tmp_path / "page.jpg"), "not_an_image"),
    ):
        fault_of(lambda bad=bad: embedder.transform([good, bad]), str(bad), status, 'errors="nan"')
        rows = ap.Embedder("hog", errors="nan").transform([bad, good, bad])
        assert np.isnan(rows[[0, 2]]).all() and np.isfinite(rows[1]).all()
    assert np.isnan(ap.Embedder("hog", errors="nan").transform([cut])).all()
    huge = Image.new("L", (9000, 9000))
    fault_of(lambda: embedder.transform([good, huge]), "image 1 ", "too_many_pixels")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.jpg", "this is one image: put it into a list"),
        (np.zeros((8, 8, 3), np.uint8), "this is one image"),
        ([], "no images to embed"),
        (None, "images must be a list, got None: each is a path"),
        (np.array(3), r"images must be a list, got array\(3\)"),
        ([3.5], "image 0 is of the type float: give a path, a PIL image or an array"),
        ([np.zeros((8, 8), np.uint8)], r"image 0 is an array \(8, 8\) of uint8"),
        ([np.zeros((8, 8, 3))], r"image 0 is an array \(8, 8, 3\) of float64"),
        (np.zeros((4, 2)), "a table of 2 columns"),
    ],
)
def test_what_is_no_list_of_images_is_refused(given: object, message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.Embedder("hog").transform(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "hgo"}, r"unknown backbone 'hgo' \(did you mean 'hog'\?\) in ap.Embedder"),
        ({"views": "crops7"}, "unknown views 'crops7'.*did you mean"),
        ({"view": "centre"}, r"unknown view 'centre' \(did you mean 'center'\?\): hog has center"),
        ({"precision": "fp8"}, "precision must be fp32 or tf32 or bf16 or fp16, got 'fp8'"),
        ({"precision": "fp16", "device": "cpu"}, "use the precision bf16 or fp32 on cpu$"),
        ({"device": "cuda:99"}, "torch sees .* GPUs; use the device cpu$"),
        ({"workers": -1}, "workers must be a whole number from 0, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1, got 0"),
        ({"batch_size": "8"}, "batch_size must be a whole number from 1, got '8'"),
        ({"view": None}, "view must be a name, got None"),
        ({"views": 3}, "views must be a name, got 3"),
        ({"backbone": None}, "backbone must be a name, got None"),
        ({"weights": 3}, "weights must be a path, got 3"),
        ({"task": 3}, "task must be a path, got 3"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"errors": "skip"}, "errors must be raise or nan"),
        ({"weights": "random"}, "hog is a descriptor, it has no weights"),
        ({"task": "nowhere"}, "no task file at"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(settings: dict, message: str) -> None:
    embedder = ap.Embedder(**{"backbone": "hog", **settings})
    with pytest.raises(ap.InputError, match=message):
        embedder.fit()
    with pytest.raises(ap.InputError, match=message):
        embedder.transform(["a.jpg"])
