"""The process of one target: python fuzz_one.py TARGET SCRATCH [libFuzzer's own options]."""

import os
import sys
from pathlib import Path

import atheris

INSTRUMENTED = ["task", "cache", "embed", "tomllib", "PIL"]
LIMITS = ["-timeout=20", "-rss_limit_mb=4096", "-max_len=16384"]

with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
    from targets import TARGETS


def fuzz(name: str, scratch: Path, options: list[str]) -> None:
    """Give mutated inputs to the target until a limit or a fault; never returns."""
    os.fsync = lambda descriptor: None  # What is fuzzed is content, not durability.
    target = TARGETS[name]
    corpus, folder, words = (scratch / part for part in ("corpus", "folder", "words"))
    corpus.mkdir()
    folder.mkdir()
    words.write_text("\n".join(map(quoted, target.words)))
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed{number}").write_bytes(data)
    options = [*LIMITS, f"-dict={words}", "-print_final_stats=1", "-seed=1", *options]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: target.run(data, folder))
    atheris.Fuzz()


def quoted(word: bytes) -> str:
    """The word as libFuzzer's dictionaries write it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'


if __name__ == "__main__":
    fuzz(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
