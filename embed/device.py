"""Which device computes: named by the user, or the best at hand."""

import os
import re
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries


def default_device() -> str:
    """Give "cuda" where a GPU is at hand, without loading torch where there can be none."""
    here = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if not here and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return "cpu"
    return "cuda" if libraries.torch().cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: not "cpu", "cuda" or "cuda:N", or no such GPU.
    """
    if device == "cpu":
        return
    named = re.fullmatch(r"cuda(?::(\d+))?", device)
    if not named:
        raise InputError(f"unknown device {device!r}: use cpu, cuda or cuda:N")
    there = libraries.torch().cuda.device_count()
    if int(named[1] or 0) >= there:
        raise InputError(f"no device {device!r}: torch sees {there} GPUs; use --device cpu")
