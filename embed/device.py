"""Which device computes: named by the user, or the best at hand."""

import os
import re
from pathlib import Path

from archiveprobe.base.errors import InputError


def default_device() -> str:
    """Return "cuda" where a GPU is at hand, without loading torch where there can be none."""
    has_device_file = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if not has_device_file and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: not "cpu", "cuda" or "cuda:N", or no such GPU.
    """
    if device == "cpu":
        return
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if not match:
        raise InputError(f"unknown device {device!r}: use cpu, cuda or cuda:N")
    import torch

    count = torch.cuda.device_count()
    if int(match[1] or 0) >= count:
        raise InputError(f"no device {device!r}: torch sees {count} GPUs; use --device cpu")
