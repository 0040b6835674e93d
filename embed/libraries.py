"""torch, timm and open_clip, imported where they are used and made to work together.

The package index serves torchvision as a CUDA build. Beside a torch without CUDA its compiled
operators cannot load, and `import torchvision`, hence timm and open_clip, dies with "operator
torchvision::nms does not exist". Nothing here uses those operators: once their two schemas are
declared, the import works. Everything of this project gets the libraries from here.
"""

import importlib
import os
import sys
import warnings
from functools import cache
from types import ModuleType
from typing import Any

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")
# The declarations live as long as this object.
_declared: list[Any] = []


def torch() -> ModuleType:
    """The torch module, whose threads sleep while they wait for each other.

    Those that spin take twenty times as long as soon as another process has a core. Asked of
    OpenMP by its environment, which it reads when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return importlib.import_module("torch")


@cache
def timm() -> ModuleType:
    """The timm module, behind a torchvision that imports."""
    make_torchvision_importable()
    return importlib.import_module("timm")


def timm_part(name: str) -> Any:
    """A part of timm that `import timm` leaves out, or may: "optim", "scheduler", "data.mixup"."""
    return importlib.import_module(f"{timm().__name__}.{name}")


@cache
def open_clip() -> ModuleType:
    """The open_clip module, behind a torchvision that imports."""
    make_torchvision_importable()
    return importlib.import_module("open_clip")


def make_torchvision_importable() -> None:
    """Import torchvision, declaring the operators that a mismatched build fails to load.

    Raises:
        ImportError, RuntimeError: torchvision fails for another reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        else:
            return
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch().library.Library("torchvision", "DEF")
        for operator in _OPERATORS:
            library.define(f"{operator}{_SCHEMA}")
        _declared.append(library)
        importlib.import_module("torchvision")
