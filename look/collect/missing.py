"""From an error of one line to what is missing on a page, and the command that brings it."""

import re
import shlex
from collections.abc import Iterable

from archiveprobe.base.errors import InputError
from archiveprobe.look.collect.parts import Missing

_COMMAND = re.compile("`(archiveprobe [^`]+)`")
# How a message goes on before the command, or without one.
_LEAD = re.compile(r"(: [^:]*\b(run|with)|,)? *$")
_AGAIN = ": run that system again"


def missing_of(error: InputError, otherwise: str = "", *, what: str = "") -> Missing:
    """Part a message into what is missing and the first command that it names, else `otherwise`.

    `what` goes before it.
    """
    text = " ".join(str(error).split())
    named = _COMMAND.search(text)
    told = text.removesuffix(_AGAIN) if named is None else _LEAD.sub("", text[: named.start()])
    return Missing(f"{what}: {told}" if what else told, named[1] if named else otherwise)


# What a command makes, those behind it need.
_ORDER = ("embed", "probe", "finetune", "ensemble")


def in_order(missing: Iterable[Missing], place: str) -> list[Missing]:
    """Join what one command brings, and put first what the other commands need.

    `place` is the path of the task, for messages that call it TASK.
    """
    joined: dict[str, dict[str, None]] = {}
    alone = []
    for gap in missing:
        if not gap.command:
            alone.append(gap)
            continue
        command = re.sub(r"\bTASK\b", lambda _: shlex.quote(place), gap.command)
        joined.setdefault(command, {})[gap.what] = None
    gaps = [Missing("; ".join(what), command) for command, what in joined.items()]
    return sorted(gaps, key=lambda gap: _rank(gap.command)) + list(dict.fromkeys(alone))


def _rank(command: str) -> int:
    name = command.split()[1]
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)
