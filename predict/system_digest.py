"""One digest over all that a stored system computes with, its members' too."""

import hashlib
import json

from archiveprobe.evaluate.system_store import MODEL, load_run
from archiveprobe.task.config import Task

# What differs from run to run though every answer stays the same. The predictions hold answers for
# rows to predict, of which there may be others by now.
_PASSING = ("seconds", "snapshot", "members")


def system_digest(task: Task, system: str) -> str:
    """Digest a system (SHA-256, hex): equal digests mean equal answers for every image.

    Raises:
        InputError: no such system, or a damaged one.
    """
    run = load_run(task, system)
    parts = {
        "record": {key: value for key, value in run.record.items() if key not in _PASSING},
        "model": hashlib.sha256(run.files.get(MODEL, b"")).hexdigest(),
        "members": [
            [system_digest(task, str(member["system"])), member.get("weight")]
            for member in run.record.get("members", ())
        ],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
