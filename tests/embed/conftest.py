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
from fake_hub import hub  # noqa: F401
from streets import streets  # noqa: F401

from archiveprobe.embed.libraries import make_torchvision_importable

# Before a test file imports timm or open_clip.
make_torchvision_importable()
