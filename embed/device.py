"""Which device computes: named by the user, or the best at hand."""

import os
import re
import sys
from pathlib import Path

from archiveprobe.base.errors import InputError

_DEVICES = Path("/dev")
# Of NVIDIA, of Windows' subsystem for Linux, and of AMD, whose builds of torch say "cuda", too.
_DEVICE_FILES = ("nvidia[0-9]*", "dxg", "kfd")


def default_device() -> str:
    """Return "cuda" or "mps" where a GPU is at hand; torch is not loaded where none can be."""
    if sys.platform == "darwin":
        import torch

        return "mps" if torch.backends.mps.is_available() else "cpu"
    has_device_file = any(file for name in _DEVICE_FILES for file in _DEVICES.glob(name))
    if not has_device_file and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device_name(device: str) -> None:
    """Refuse what names no device anywhere, without loading torch.

    Raises:
        InputError: not "cpu", "cuda", "cuda:N" or "mps".
    """
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise InputError(f"unknown device {device!r}: use cpu, cuda, cuda:N or mps")


def check_device(device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: not "cpu", "cuda", "cuda:N" or "mps", or no such GPU.
    """
    check_device_name(device)
    if device == "cpu":
        return
    import torch

    if device == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("no device 'mps': torch sees no GPU of Apple; use the device cpu")
        return
    count = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= count:
        raise InputError(f"no device {device!r}: torch sees {count} GPUs; use the device cpu")


def has_tensor_cores(device: str) -> bool:
    """Return whether a device multiplies bf16 and TF32 itself: NVIDIA's since Ampere."""
    if not device.startswith("cuda"):
        return False
    import torch

    # `is_bf16_supported` would ask the current GPU, which may be another.
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)
