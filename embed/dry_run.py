"""What an embed run would do: counts, weights, disk and an estimate of the time, measured here."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.wording import duration, file_size
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone, decoded_on_cpu
from archiveprobe.embed.faults import network_at_work
from archiveprobe.embed.forward import Batch
from archiveprobe.embed.job import Job, Options
from archiveprobe.embed.networks import LoadedBackbone, geometry_of, load_backbone
from archiveprobe.embed.plan import Plan, plan
from archiveprobe.embed.prepare import Preparation, prepare
from archiveprobe.embed.text_tower import TextNetwork
from archiveprobe.embed.views import render_tokens
from archiveprobe.embed.weights import locate
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import paths_by_digest

_SAMPLE = 6
_ROW_OVERHEAD = 48
_THUMBNAIL_BYTES = 15_000
_MINUTE = 60


@dataclass(frozen=True)
class JobEstimate:
    """One backbone's missing rows, its weights, and what the run would take."""

    backbone: str
    missing: int
    weights: str
    bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What is to do. Seconds are rough: measured on a few images on this machine.

    `bytes` and `seconds` are those of all backbones, of the thumbnails and of the decoding.
    """

    images: int
    to_decode: int
    backbones: list[JobEstimate]
    thumbnail_bytes: int
    decoding_seconds: float
    bytes: int
    free_bytes: int
    seconds: float

    def lines(self) -> list[dict[str, str | int]]:
        """Return a table for people, whose last line adds up the others."""
        # Rounded first, so that the sum of what is shown is what is shown below.
        digits = 0 if self.seconds >= _MINUTE else 1
        decoding = round(self.decoding_seconds, digits)
        seconds = [round(job.seconds or 0.0, digits) for job in self.backbones]
        return [
            _line("decoding", self.to_decode, "-", self.thumbnail_bytes, decoding),
            *(
                _line(job.backbone, job.missing, job.weights, job.bytes, rounded)
                for job, rounded in zip(self.backbones, seconds, strict=True)
            ),
            _line("in all", "", "", self.bytes, decoding + sum(seconds)),
        ]


def _line(
    step: str, missing: int | str, weights: str, size: int, seconds: float
) -> dict[str, str | int]:
    return {
        "step": step,
        "missing": missing,
        "weights": weights,
        "disk": file_size(size),
        "time": duration(seconds),
    }


def dry_run(task: Task, options: Options) -> Estimate:
    """Find out what `embed` would do, writing nothing.

    Raises:
        InputError: a fault in what the user gave; missing weights are reported, not raised.
    """
    work = plan(task, options)
    missing = [job.missing(work.keys) for job in work.jobs]
    decode = set(work.undecoded).union(*missing)
    paths = paths_by_digest(work.rows, work.entries)
    sample = [(path, key) for key, path in paths.items() if key in decode][:_SAMPLE]
    jobs, decoding = [], 0.0
    for job, keys in zip(work.jobs, missing, strict=True):
        batch, seconds, width = Batch(_SAMPLE, lambda _: None), 0.0, 0
        if keys and sample:
            # What a GPU saves as a decoder shows when it runs.
            loaded = _load_untrained(decoded_on_cpu(job.backbone), work.device)
            geometry = geometry_of(loaded)
            preparation = Preparation(work.task.root, {geometry: job.views}, decode=geometry.decode)
            started = time.perf_counter()
            for path, key in sample:
                for rendered in prepare(path, key, preparation).views.values():
                    batch.add(bytes.fromhex(key), rendered)
            # The slowest geometry counts: all of them are rendered from one decoded image.
            decoding = max(decoding, (time.perf_counter() - started) / len(sample))
            seconds, width = _measure(loaded, batch)
        jobs.append(_estimate(job, len(keys), width, seconds / max(len(sample), 1)))
    jobs += [_estimate_texts(job, work) for job in work.text_jobs]
    thumbnails = _THUMBNAIL_BYTES * len(work.undecoded) if task.embed.thumbnails else 0
    reading = round(decoding * len(decode), 1)
    return Estimate(
        images=len(work.entries),
        to_decode=len(decode),
        backbones=jobs,
        thumbnail_bytes=thumbnails,
        decoding_seconds=reading,
        bytes=sum(job.bytes for job in jobs) + thumbnails,
        free_bytes=shutil.disk_usage(task.folder).free,
        seconds=round(reading + sum(job.seconds or 0.0 for job in jobs), 1),
    )


def _estimate_texts(job: Job, work: Plan) -> JobEstimate:
    missing = job.missing(work.texts)
    if not missing:
        return _estimate(job, 0, 0, 0.0)
    loaded = _load_untrained(job.backbone, work.device)
    assert isinstance(loaded, TextNetwork)
    sample: Sequence[str] = missing[:_SAMPLE]
    batch = Batch(_SAMPLE, lambda _: None)
    for key, tokens in zip(sample, loaded.tokens([work.texts[k] for k in sample]), strict=True):
        batch.add(bytes.fromhex(key), render_tokens(tokens))
    seconds, width = _measure(loaded, batch)
    return _estimate(job, len(missing), width, seconds / len(sample))


def _estimate(job: Job, missing: int, width: int, seconds: float) -> JobEstimate:
    """Return the estimate for `missing` rows that take `seconds` each."""
    # float16 numbers; a norm and a flag for each view; key and checksums.
    row = len(job.views) * (2 * (job.width or width) + 5) + _ROW_OVERHEAD
    return JobEstimate(
        job.backbone.cache,
        missing,
        _weights(job.backbone) if missing else "not needed",
        row * missing,
        round(seconds * missing, 1),
    )


def _measure(loaded: LoadedBackbone, batch: Batch) -> tuple[float, int]:
    """Return the seconds of a second forward pass, and the width of an embedding."""
    if batch.empty:
        return 0.0, 0
    with network_at_work(loaded.name, "embed"):
        width = batch.embed(loaded.embed)[0][1].shape[-1]
        started = time.perf_counter()
        batch.embed(loaded.embed)
        return time.perf_counter() - started, width


def _load_untrained(backbone: Backbone, device: str) -> LoadedBackbone:
    """Load the network without its weights, which do not change how long it takes."""
    loaded = load_backbone(backbone, device, untrained=True)
    faster = loaded.faster_precisions()
    return loaded.at(faster[0]) if faster else loaded


def _weights(backbone: Backbone) -> str:
    if backbone.library == "descriptor":
        return "none needed"
    if backbone.weights == RANDOM:
        return RANDOM
    if backbone.weights != PRETRAINED:
        present = Path(backbone.weights).is_file()
        return backbone.weights if present else f"MISSING: no file {backbone.weights}"
    file = locate(backbone)
    return str(file) if file else "MISSING: to be downloaded"
