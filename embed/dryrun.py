"""What an embed run would do: counts, weights, disk and an estimate of the time, measured here."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone
from archiveprobe.embed.encoder import Encoder
from archiveprobe.embed.encoders import make_encoder
from archiveprobe.embed.inventory import towers
from archiveprobe.embed.job import Job
from archiveprobe.embed.plan import Options, Plan, plan
from archiveprobe.embed.prepare import Order, Prepared, prepare
from archiveprobe.embed.preprocess import geometry_of
from archiveprobe.embed.text_tower import TextEncoder, load_tokenizer
from archiveprobe.embed.weights import fetch, locate
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import paths_by_digest

_SAMPLE = 6
_ROW_OVERHEAD = 48
_THUMBNAIL_BYTES = 15_000


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
    """What is to do. Seconds are rough: measured on a few images on this machine."""

    images: int
    to_decode: int
    backbones: list[JobEstimate]
    bytes: int
    free_bytes: int
    seconds: float


def dry_run(task: Task, options: Options) -> Estimate:
    """Find out what `embed` would do, writing nothing.

    Raises:
        InputError: a fault in what the user gave; missing weights are reported, not raised.
    """
    work = plan(task, options)
    todo = {job.backbone.name: set(job.missing(work.keys)) for job in work.jobs}
    decode = set(work.undecoded).union(*todo.values())
    paths = paths_by_digest(work.rows, work.entries)
    sample = [(path, key) for key, path in paths.items() if key in decode][:_SAMPLE]
    jobs, decoding = [], 0.0
    for job in work.jobs:
        wanted = len(todo[job.backbone.name])
        encoder = _trial_encoder(job.backbone, work.device) if wanted else None
        seconds, decoding, width = _measure(work, encoder, sample, decoding)
        jobs.append(_job_estimate(job, wanted, width, seconds))
    jobs += [_text_estimate(job, work) for job in work.text_jobs]
    total = decoding * len(decode) + sum(job.seconds or 0.0 for job in jobs)
    return Estimate(
        images=len(work.entries),
        to_decode=len(decode),
        backbones=jobs,
        bytes=sum(job.bytes for job in jobs) + _THUMBNAIL_BYTES * len(work.undecoded),
        free_bytes=shutil.disk_usage(task.folder).free,
        seconds=round(total, 1),
    )


def _job_estimate(job: Job, missing: int, width: int, seconds: float) -> JobEstimate:
    """The estimate for `missing` rows that take `seconds` each."""
    row = len(job.views) * (2 * (job.width or width) + 5) + _ROW_OVERHEAD
    return JobEstimate(
        job.backbone.cache,
        missing,
        _weights(job.backbone) if missing else "not needed",
        row * missing,
        round(seconds * missing, 1),
    )


def _text_estimate(job: Job, work: Plan) -> JobEstimate:
    missing = job.missing(work.texts)
    if not missing:
        return _job_estimate(job, 0, 0, 0.0)
    encoder = _trial_encoder(job.backbone, work.device)
    assert isinstance(encoder, TextEncoder)
    tokens = encoder.tokens([work.texts[key] for key in missing[:_SAMPLE]])
    seconds, width = _timed(encoder, tokens, np.zeros(len(tokens), bool))
    return _job_estimate(job, len(missing), width, seconds / len(tokens))


def _timed(encoder: Encoder, crops: np.ndarray, mirror: np.ndarray) -> tuple[float, int]:
    """The seconds of a second forward pass, and the width of what it gives."""
    width = encoder.encode(crops, mirror).shape[-1]
    started = time.perf_counter()
    encoder.encode(crops, mirror)
    return time.perf_counter() - started, width


def _weights(backbone: Backbone) -> str:
    if backbone.library == "descriptor":
        return "none needed"
    if backbone.weights == RANDOM:
        return RANDOM
    if backbone.weights != PRETRAINED:
        there = Path(backbone.weights).is_file()
        return backbone.weights if there else f"MISSING: no file {backbone.weights}"
    found = locate(backbone)
    return str(found) if found else "MISSING: to be downloaded"


def _trial_encoder(backbone: Backbone, device: str) -> Encoder:
    """The network without its weights, which do not change how long it takes."""
    encoder = make_encoder(backbone, device, untrained=True)
    fast = encoder.candidates()
    return encoder.at(fast[0]) if fast else encoder


def _measure(
    work: Plan, encoder: Encoder | None, sample: Sequence[tuple[str, str]], decoding: float
) -> tuple[float, float, int]:
    """Measure an encoder on a few images.

    Returns:
        Its seconds per image, those of decoding (the slowest geometry so far), its width.
    """
    if encoder is None or not sample:
        return 0.0, decoding, 0
    views = {geometry_of(encoder.preprocess): work.jobs[0].views}
    order = Order(work.task.root, views)
    started = time.perf_counter()
    items = [prepare(path, digest, order) for path, digest in sample]
    decoding = max(decoding, (time.perf_counter() - started) / len(items))
    crops, mirror = _passes([item for item in items if item.views])
    if not len(crops):
        return 0.0, decoding, 0
    seconds, width = _timed(encoder, crops, mirror)
    return seconds / len(items), decoding, width


def _passes(items: Sequence[Prepared]) -> tuple[Any, Any]:
    crops, mirror = [], []
    for item in items:
        for rendered in item.views.values():
            looks = dict.fromkeys(zip(rendered.crop, rendered.mirror, strict=True))
            crops += [rendered.crops[at] for at, _ in looks]
            mirror += [mirrored for _, mirrored in looks]
    return np.array(crops), np.array(mirror)


@dataclass(frozen=True)
class WeightsLine:
    """A backbone's weights and the file they lie in."""

    backbone: str
    weights: str
    file: str


def check_weights(task: Task) -> list[WeightsLine]:
    """Fetch the weights of every backbone of the task and say where they lie.

    Raises:
        InputError: some are neither here nor reachable.
    """
    lines, faults = [], []
    for backbone in towers(task):
        try:
            lines.append(_weights_line(backbone))
        except InputError as error:
            faults.append(str(error))
    if faults:
        here = ", ".join(line.backbone for line in lines) or "none"
        more = f" ({len(faults) - 1} more are missing; here: {here})"
        raise InputError(faults[0] + (more if len(faults) > 1 or lines else ""))
    return lines


def _weights_line(backbone: Backbone) -> WeightsLine:
    needed = backbone.library != "descriptor" and backbone.weights != RANDOM
    file = str(fetch(backbone)) if needed else "none needed"
    if backbone.tower == "text":
        load_tokenizer(backbone)
    return WeightsLine(backbone.cache, backbone.described, file)
