"""A backbone as a scikit-learn transformer: images in, embeddings out, as `embed` makes them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from archiveprobe.api.arguments import check_choice, check_name, check_resources, path_of
from archiveprobe.api.pixels import GivenImage, list_images, prepared_images
from archiveprobe.api.state import warn
from archiveprobe.base.errors import InputError
from archiveprobe.cache.store import unusable
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone, decoded_on_cpu, resolve
from archiveprobe.embed.device import default_device
from archiveprobe.embed.faults import network_at_work
from archiveprobe.embed.forward import Batch, ForwardThreads, PendingBatches, Rows
from archiveprobe.embed.job import crops_per_pass
from archiveprobe.embed.networks import LoadedBackbone, geometry_of, load_backbone
from archiveprobe.embed.precision import PRECISIONS, check_precision
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import View, place_of_view, view_set
from archiveprobe.embed.views import Rendered
from archiveprobe.task.config import Embed, Task, load_task
from archiveprobe.task.decoding import Observation, rejected

_ERRORS = ("raise", "nan")
# Stands in for a task.toml where none is named; messages call it by this name.
_UNNAMED = Task(file=Path("ap.Embedder"), name="embedder", embed=Embed(views="center"))


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeds images through one backbone, for a Pipeline: decoded, cropped and computed as `embed`.

    Nothing is learned, and nothing is kept but the loaded network: in a cross-validation every fold
    embeds its images again. To try many probes, embed once and cross-validate on the rows.

    Args:
        backbone: a name of `archiveprobe list backbones`, "timm:NAME", "open_clip:ARCH/TAG" or
            either library's "hf-hub:ORG/MODEL".
        views: the views of every image, as in task.toml: "center", "flip", "crops6" and so on;
            None: those of `task`, or "center".
        view: "mean" averages the views; the name of one takes that one.
        weights: "pretrained", "random" or a file; None: what the backbone says, mostly pretrained.
        task: a folder or task.toml, whose own backbones, layers and views count.
        precision: "fp32", "bf16", or on a GPU with CUDA "tf32" or "fp16". `embed` may have
            chosen a faster one than fp32, which `archiveprobe cache show` names: pass it on for the
            same numbers.
        device: "cpu", "cuda", "cuda:N" or "mps"; None: a GPU where there is one.
        batch_size: crops per forward pass; None: what suits the device.
        workers: decoder processes; 0: none, None: one per core for more than a few files.
        errors: "raise" refuses an image that cannot be read, "nan" gives it a row of NaN.

    >>> from sklearn.pipeline import make_pipeline
    >>> rows, files = task.rows(), task.files()
    >>> known = (rows.label.notna() & (rows.status == "ok")).to_numpy().nonzero()[0]
    >>> train, rest = known[:40], known[40:44]
    >>> model = make_pipeline(ap.Embedder("hog"), ap.probes.Ridge())
    >>> model = model.fit([files[at] for at in train], rows.label[train])
    >>> model.predict([files[at] for at in rest]).tolist()
    ['not_destruction', 'not_destruction', 'not_destruction', 'not_destruction']
    """

    _loaded: tuple[tuple[Any, ...], LoadedBackbone] | None = None

    def __init__(
        self,
        backbone: str = "clip-vit-b32",
        *,
        views: str | None = None,
        view: str = "mean",
        weights: str | Path | None = None,
        task: str | Path | None = None,
        precision: str = "fp32",
        device: str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        errors: str = "raise",
    ) -> None:
        self.backbone = backbone
        self.views = views
        self.view = view
        self.weights = weights
        self.task = task
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self.errors = errors

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803, ARG002
        """Check the settings; nothing is learned, and nothing is loaded yet.

        Raises:
            InputError: an unknown backbone, view, precision, device or way with errors.

        >>> ap.Embedder("hog", errors="skip").fit()
        Traceback (most recent call last):
        ...
        archiveprobe.base.errors.InputError: errors must be raise or nan, got 'skip'
        """
        self._checked()
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Embed images: paths, PIL images, or arrays (height, width, 3) uint8.

        Returns:
            (n, width) float32, unnormalised, rounded as a cache stores it; NaN where an image
            cannot be read and `errors` is "nan".

        Raises:
            InputError: an image that cannot be read (named), unless `errors` is "nan"; weights
                that are missing; too little memory.

        >>> import numpy as np
        >>> ap.Embedder("hog").transform([np.zeros((64, 64, 3), np.uint8)]).shape
        (1, 1860)
        """
        backbone, views, device = self._checked()
        images = list_images(X)
        if not images:
            raise InputError("no images to embed: give at least one")
        network = self._network(backbone, device)
        geometry = geometry_of(network)

        def readable() -> Iterator[tuple[int, Rendered]]:
            prepared = prepared_images(images, geometry, views, self.workers)
            for at, image in enumerate(prepared):
                if image.views:
                    yield at, image.views[geometry]
                else:
                    self._refuse(images[at], at, image.observation)

        rows: dict[int, np.ndarray] = {}
        for at, embedding in _embedded(network, readable(), device, self.batch_size):
            with np.errstate(over="ignore"):
                stored = embedding.astype(np.float16).reshape(len(embedding), -1)
            reason = unusable(stored)
            if reason is None:
                rows[at] = self._pooled(stored, views)
            else:
                self._refuse(images[at], at, rejected("bad_embedding", reason))
        width = len(next(iter(rows.values()))) if rows else _width(network, geometry)
        self._n_features_out = width  # scikit-learn's name for what names the columns
        out = np.full((len(images), width), np.nan, np.float32)
        for at, row in rows.items():
            out[at] = row
        return out

    def _checked(self) -> tuple[Backbone, tuple[View, ...], str]:
        """Return the backbone, the views and the device that the settings name."""
        self._check_arguments()
        task = _UNNAMED if self.task is None else load_task(path_of("task", self.task))
        backbone = decoded_on_cpu(resolve(self.backbone, task))
        if self.weights is not None:
            if backbone.library == "descriptor":
                raise InputError(f"{self.backbone} is a descriptor, it has no weights: name none")
            backbone = replace(backbone, weights=str(self.weights))
        views = view_set(self.views or task.embed.views)
        if self.view != "mean":
            place_of_view(self.view, [view.name for view in views], self.backbone)
        check_resources(self.device, self.batch_size, self.workers)
        device = self.device or default_device()
        check_precision(self.precision, device)
        return backbone, views, device

    def _check_arguments(self) -> None:
        """Refuse arguments that no setting could have."""
        check_choice("errors", self.errors, _ERRORS)
        check_choice("precision", self.precision, PRECISIONS)
        check_name("backbone", self.backbone)
        check_name("view", self.view)
        if self.views is not None:
            check_name("views", self.views)
        if self.weights is not None:
            path_of("weights", self.weights)

    def _network(self, backbone: Backbone, device: str) -> LoadedBackbone:
        """Load the network, unless it is the one that was used last."""
        settings = (backbone, device, self.precision)
        if self._loaded is None or self._loaded[0] != settings:
            self._loaded = None
            if backbone.weights == RANDOM:
                warn(f"{backbone.name}: RANDOM WEIGHTS, for trials only")
            network = load_backbone(backbone, device).at(self.precision)
            if backbone.weights not in (PRETRAINED, RANDOM) and backbone.preprocess is None:
                used = ", ".join(f"{k} {value}" for k, value in network.preprocess.record().items())
                warn(
                    f"{backbone.name}: no preprocess is given, so the library's own is used: {used}"
                )
            self._loaded = settings, network
        return self._loaded[1]

    def _pooled(self, embedding: np.ndarray, views: Sequence[View]) -> np.ndarray:
        """Return the mean of the views (views, width), or one of them, as float32."""
        if self.view == "mean":
            return np.asarray(embedding.mean(0, dtype=np.float32))
        names = [view.name for view in views]
        return np.asarray(embedding[names.index(self.view)], np.float32)

    def _refuse(self, image: GivenImage, at: int, seen: Observation) -> None:
        """Raise, unless rows of NaN are wanted for images that cannot be read."""
        if self.errors == "nan":
            return
        name = str(image) if isinstance(image, Path) else f"image {at}"
        detail = f", {seen.detail}" if seen.detail else ""
        raise InputError(
            f'{name} has no embedding ({seen.status}{detail}): leave it out, or set errors="nan"'
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_loaded"}

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _embedded(
    network: LoadedBackbone,
    images: Iterable[tuple[int, Rendered]],
    device: str,
    batch_size: int | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of every image with its embedding (views, *shape)."""
    threads = ForwardThreads(device)
    pending = PendingBatches(threads, f"{network.name} on {device}")
    batch = Batch(crops_per_pass(device, batch_size), warn)
    try:
        for at, views in images:
            if not batch.has_room(views):
                yield from _numbered(pending.results(threads.ahead - 1))
                pending.submit(batch, network)
                batch = Batch(batch.size, warn)
            batch.add(at.to_bytes(8, "big"), views)
        if not batch.empty:
            pending.submit(batch, network)
        yield from _numbered(pending.results())
    finally:
        for _ in pending.results_after_fault():
            pass
        threads.restore()


def _numbered(results: Iterable[tuple[Batch, Rows]]) -> Iterator[tuple[int, np.ndarray]]:
    for _, rows in results:
        for key, embedding in rows:
            yield int.from_bytes(key, "big"), embedding


def _width(network: LoadedBackbone, geometry: Geometry) -> int:
    """Return the length of an embedding, where no image tells it."""
    blank = np.zeros((1, geometry.size, geometry.size, 3), np.uint8)
    with network_at_work(network.name, "embed"):
        return int(network.embed(blank, np.zeros(1, bool)).size)
