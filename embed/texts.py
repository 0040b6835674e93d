"""The texts' share of an embed run: prompts and captions through the text towers of the CLIPs."""

from collections.abc import Mapping, Sequence

import numpy as np

from archiveprobe.base.progress import Progress
from archiveprobe.embed.job import Job, Notify
from archiveprobe.embed.text_tower import TextEncoder
from archiveprobe.embed.views import Rendered

_AT_ONCE = 1024


def embed_texts(
    jobs: Sequence[Job], texts: Mapping[str, str], notify: Notify, progress: Progress
) -> None:
    """Bring the text caches up to date; `texts` lie under their keys (hexadecimal).

    Raises:
        InputError: weights or tokenizer are missing, or do not fit.
        InputError: a cache cannot be written.
    """
    for job in jobs:
        if job.missing(texts):
            with job:
                _embed(job, texts, notify, progress)


def _embed(job: Job, texts: Mapping[str, str], notify: Notify, progress: Progress) -> None:
    job.load()
    encoder = job.encoder
    assert isinstance(encoder, TextEncoder)
    keys, too_long = job.missing(texts), 0
    with progress("embedding texts", len(keys)) as advance:
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            words = [texts[key] for key in part]
            too_long += encoder.too_long(words)
            for key, tokens in zip(part, encoder.tokens(words), strict=True):
                job.push(key, as_rendered(tokens))
                advance()
        job.finish()
    if too_long:
        length = encoder.preprocess.length
        notify(f"{job.backbone.cache}: {too_long} texts are longer than {length} tokens: cut there")


def as_rendered(tokens: np.ndarray) -> Rendered:
    """The tokens (length,) of one text in the form of an image with a single view."""
    return Rendered(tokens[None], (0,), (False,))
