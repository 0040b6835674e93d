"""docs/statuses.md explains every status, and no other."""

import re
from pathlib import Path

from archiveprobe.task.decoding import FLAGS, PASSING, PIXEL_LIMIT, REJECTIONS, TINY

STATUSES = (Path(__file__).parents[2] / "docs" / "statuses.md").read_text("utf-8")
SECTION = STATUSES.split("## Images")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) ?\|$", SECTION, re.MULTILINE)


def test_every_status_is_explained_once():
    explained = [status for status, _, _ in ROWS]
    assert sorted(explained) == sorted({"ok", *FLAGS, *REJECTIONS})
    assert set(explained[:4]) == {"ok", *FLAGS}
    assert "The first four have embeddings" in SECTION


def test_every_rejection_has_a_remedy():
    assert all(remedy for status, _, remedy in ROWS if status != "ok")


def test_statuses_that_are_tried_again_say_so():
    assert {status for status, _, remedy in ROWS if remedy.endswith("tried again")} == PASSING


def test_the_limits_are_those_of_the_code():
    meanings = {status: meaning for status, meaning, _ in ROWS}
    assert f"{PIXEL_LIMIT // 1_000_000} million pixels" in meanings["too_many_pixels"]
    assert f"{TINY} pixels" in meanings["tiny"]
