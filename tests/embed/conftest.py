"""Drawn archives, and an encoder that counts what it is asked to embed."""

from counted import (  # noqa: F401
    archive,
    bench,
    draw,
    make_backbone,
    mixed,
    shared,
    tiny_clip,
    tree,
    wordy_clip,
)
