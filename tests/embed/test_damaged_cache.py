"""A damaged cache that nothing uses is shown, named, removed, and in nobody's way."""

import shutil
from pathlib import Path

import pytest
from striped_archive import result_of, striped_archive
from stripes import run

from archiveprobe.cache import log, spec


@pytest.fixture(scope="module")
def two_caches(tmp_path_factory) -> Path:
    """An archive with a cache in use, probed, and one of other views that nothing uses."""
    folder = striped_archive(tmp_path_factory.mktemp("stripes"), labelled=24, to_predict=3)
    task = folder / "task.toml"
    text = task.read_text()
    task.write_text(text.replace('"center"', '"flip"'))
    assert run("embed", folder).exit_code == 0
    task.write_text(text)
    assert run("embed", folder).exit_code == 0
    result_of("probe", folder, "--probe", "ridge", "--probe", "lda")
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGE = {
    "record flipped": lambda cache: flip(cache / spec.FILE),
    "record gone": lambda cache: (cache / spec.FILE).unlink(),
    "record empty": lambda cache: (cache / spec.FILE).write_bytes(b""),
    "log flipped": lambda cache: flip(cache / log.COMMITS),
    "shard gone": lambda cache: next((cache / "shards").glob("*.h5")).unlink(),
    "shard cut": lambda cache: next((cache / "shards").glob("*.h5")).write_bytes(b"short"),
}


@pytest.mark.proves("damage")
@pytest.mark.parametrize("how", DAMAGE)
def test_it_is_shown_named_and_removed(two_caches, tmp_path, how) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(two_caches, folder)
    caches = {line["cache"]: line for line in result_of("cache", "show", folder)["caches"]}
    assert {line["state"] for line in caches.values()} == {"ok"}
    [unused] = [name for name, line in caches.items() if not line["in_use"]]
    [in_use] = [name for name, line in caches.items() if line["in_use"]]
    DAMAGE[how](folder / "work" / "cache" / unused)

    shown = run("cache", "show", folder)
    assert shown.exit_code == 0
    [line] = [line for line in shown.stdout.splitlines() if line.startswith(unused)]
    assert line.endswith("damaged")
    reason, remedy = shown.stderr.splitlines()
    assert reason.startswith(f"damaged: {unused}: ")
    assert remedy.startswith(f"nothing uses {unused}: `archiveprobe cache prune ")
    caches = {line["cache"]: line["state"] for line in result_of("cache", "show", folder)["caches"]}
    assert caches[in_use] == "ok" and caches[unused] in reason

    verified = run("cache", "verify", folder)
    assert verified.exit_code == 1 and f"\n{unused}: " in verified.stdout
    assert f"nothing uses {unused}" in verified.stderr

    # Nothing else minds.
    assert [row["state"] for row in result_of("list", "systems", folder)["systems"]] == ["ok"] * 3
    out = ("-o", folder / "out.csv", "--system", "greedy")
    for words in (
        ("submit", folder, *out),
        ("leaderboard", folder),
        ("probe", folder, "--probe", "ridge"),
        ("embed", folder),
        ("audit", folder),
        ("cache", "export", folder, "-o", folder / "all.h5"),
    ):
        done = run(*words)
        assert done.exit_code == 0, (words, done.stderr)

    items = result_of("cache", "prune", folder)["items"]
    assert [Path(item["path"]).name for item in items] == [unused]
    assert items[0]["reason"] == "damaged, and nothing uses it" and items[0]["bytes"] > 0
    assert run("cache", "prune", folder, "--yes").exit_code == 0
    assert [path.name for path in (folder / "work" / "cache").iterdir()] == [in_use]
    assert run("cache", "verify", folder).exit_code == 0


@pytest.mark.proves("damage")
@pytest.mark.parametrize("how", ["record flipped", "record gone"])
def test_one_that_is_in_use_is_never_offered(two_caches, tmp_path, how) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(two_caches, folder)
    [in_use] = [c["cache"] for c in result_of("cache", "show", folder)["caches"] if c["in_use"]]
    DAMAGE[how](folder / "work" / "cache" / in_use)
    shown = {line["cache"]: line for line in result_of("cache", "show", folder)["caches"]}
    assert shown[in_use]["in_use"] and shown[in_use]["state"] != "ok"
    offered = [Path(item["path"]).name for item in result_of("cache", "prune", folder)["items"]]
    assert in_use not in offered
    assert "nothing uses" not in run("cache", "show", folder).stderr
