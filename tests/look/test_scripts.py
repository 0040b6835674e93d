"""The scripts are one: what two of them name alike at the top would silently replace each other."""

import re
from collections import Counter

from archiveprobe.look import page as look_page

_NAMED = re.compile(r"^(?:async )?(?:function\*?|const|let|class) +(\w+)", re.MULTILINE)


def test_no_two_scripts_name_anything_alike() -> None:
    files = (look_page._HERE / "static").glob("*.js")
    names = Counter(name for file in files for name in _NAMED.findall(file.read_text("utf-8")))
    assert len(names) > 50
    assert [name for name, number in names.items() if number > 1] == []
