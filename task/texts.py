"""Prompts and captions: the texts of a task, and the keys and caches of their embeddings."""

import hashlib
from collections.abc import Sequence

from archiveprobe.task.config import TUNED, Task
from archiveprobe.task.rows import Row


def text_key(text: str) -> bytes:
    """Return the key of a text's embedding: the SHA-256 of its UTF-8 bytes."""
    return hashlib.sha256(text.encode()).digest()


def text_cache(backbone: str) -> str:
    """Return the name under which the text tower of a backbone keeps its cache."""
    return f"{backbone}-text"


def is_text_cache(name: str) -> bool:
    """Return whether a name is that of a text tower's cache."""
    # A fine-tuned system may be called anything.
    return name.endswith(text_cache("")) and not name.startswith(TUNED)


def has_texts(task: Task) -> bool:
    """Return whether the task has prompts or captions at all."""
    return bool(task.prompts) or task.images.text is not None


def texts(task: Task, rows: Sequence[Row]) -> dict[str, str]:
    """Collect the texts to embed under their keys (hexadecimal): prompts, then captions, each once.

    Blank captions are no texts.
    """
    prompts = [text for wordings in task.prompts.values() for text in wordings]
    captions = [row.text for row in rows if row.text and row.text.strip()]
    return {text_key(text).hex(): text for text in [*prompts, *captions]}
