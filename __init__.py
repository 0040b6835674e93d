"""Classify the images of an archive: embed once, probe on the cached embeddings, fine-tune last.

In a notebook: `import archiveprobe as ap`, then `ap.open("my/photographs")`, `ap.probes.Ridge()`
and `ap.Embedder("clip-vit-b32")`. What `__all__` names is promised, and nothing else; libraries
load when it is first used. docs/notebook.md shows it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archiveprobe.api import probes
    from archiveprobe.api.embedder import Embedder
    from archiveprobe.api.task import Task
    from archiveprobe.api.task import open_task as open  # noqa: A004
    from archiveprobe.base.errors import InputError

__all__ = ["Embedder", "InputError", "Task", "open", "probes"]

_PLACES = {
    "Embedder": "api.embedder:Embedder",
    "InputError": "base.errors:InputError",
    "Task": "api.task:Task",
    "open": "api.task:open_task",
    "probes": "api.probes:",
}


if not TYPE_CHECKING:  # Else every name would have the type Any.

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _PLACES[name].partition(":")
        loaded = import_module(f"{__name__}.{module}")
        return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return __all__
