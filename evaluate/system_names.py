"""The names of a task's stored systems, found without reading them or loading anything heavy."""

import re
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task, nearest

RECORD = "run.json"
SYSTEM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,@-]{0,199}")


def runs_folder(task: Task) -> Path:
    """Return where the systems of a task lie."""
    return task.work / "runs"


def systems(task: Task) -> list[str]:
    """List the names of the systems of a task, sorted."""
    files = runs_folder(task).glob(f"*/{RECORD}")
    return sorted(file.parent.name for file in files if SYSTEM_NAME.fullmatch(file.parent.name))


def no_system(task: Task, name: str) -> InputError:
    """Return the error of a name that no system has; it names the nearest."""
    return InputError(
        f"no system {name!r} in {runs_folder(task)}{nearest(name, systems(task))}: "
        f"`archiveprobe list systems {task.shell_path}` shows them"
    )
