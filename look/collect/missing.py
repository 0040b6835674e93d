"""From an error of one line to what is missing on a page, and the command that brings it."""

import re

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
