"""Make torchvision importable beside a torch of another build, for timm and open_clip.

The package index serves torchvision as a CUDA build. Beside a torch without CUDA its compiled
operators cannot load, and `import torchvision`, hence timm and open_clip, fails with "operator
torchvision::nms does not exist". Nothing here uses those operators: once their two schemas are
declared, the import works.
"""

import importlib
import sys
import warnings
from typing import Any

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# The declarations live as long as this object.
_libraries: list[Any] = []


def make_torchvision_importable() -> None:
    """Import torchvision, declaring the operators that a build without them fails to load.

    Call it before `import timm` or `import open_clip`.

    Raises:
        ImportError, RuntimeError: torchvision fails for another reason.
    """
    if "torchvision" in sys.modules:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        else:
            return
        # The failed import leaves half of its modules behind.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torch

        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}{_SCHEMA}")  # type: ignore[no-untyped-call]
        _libraries.append(library)
        importlib.import_module("torchvision")
