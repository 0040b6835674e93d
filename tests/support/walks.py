"""Walks in docs/walks: their commands run in a shell, their outputs written down or compared.

A walk begins with `<!-- layout: NAME -->`, which names a function of layouts.py; the archive lies
in the folder `archive` of an otherwise empty one. In its console blocks, lines that begin with `$ `
are commands; everything below one, to the next or to the end of the block, is what it printed.
Run as a program it writes docs/walks anew with the real outputs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from layouts import LAYOUTS, draw

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "walks"
IMAGES = 120
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_MARK = "\x01"


def commands(text: str) -> list[str]:
    """List the commands of a walk in order."""
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


def prepare(text: str, folder: Path) -> None:
    """Write the archive that a walk is about into `folder`/archive."""
    found = re.match(r"<!-- layout: (\w+) -->", text)
    if found is None:
        raise ValueError("a walk begins with <!-- layout: NAME -->")
    images = draw(folder / ".drawn", IMAGES)
    (folder / "archive").mkdir()
    LAYOUTS[found[1]](images, folder / "archive")
    shutil.rmtree(folder / ".drawn")


def run(text: str, folder: Path) -> list[str]:
    """Run the commands of a walk in one shell in `folder`; what each printed, on both streams."""
    script = "".join(f"{command}\nprintf '{_MARK}'\n" for command in commands(text))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }
    done = subprocess.run(
        ["bash", "-s"],
        input=script.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment,
        timeout=500,
        check=False,
    )
    return done.stdout.decode().replace(f"{folder.resolve()}/", "").split(_MARK)[:-1]


def rewritten(text: str, outputs: list[str]) -> str:
    """Return the walk with these outputs below its commands."""
    waiting = iter(outputs)

    def block(found: re.Match[str]) -> str:
        lines = [line for line in found[0].splitlines() if line.startswith("$ ")]
        return "".join(f"{line}\n{_whole_lines(next(waiting))}" for line in lines)

    return _BLOCK.sub(block, text)


def _whole_lines(output: str) -> str:
    return output if not output or output.endswith("\n") else output + "\n"


def comparable(text: str) -> str:
    """Leave out what may differ from machine to machine: figures, and the blanks around them."""
    return re.sub(r"[-\d.,%]*\d[-\d.,%]*|\s+", lambda mark: " " if mark[0].isspace() else "#", text)


def main() -> None:
    """Write the walks anew."""
    for file in sorted(FOLDER.glob("*.md")):
        text = file.read_text("utf-8")
        if not commands(text):
            continue
        with tempfile.TemporaryDirectory() as name:
            prepare(text, Path(name))
            file.write_text(rewritten(text, run(text, Path(name))), "utf-8")
        sys.stderr.write(f"{file.name}\n")


if __name__ == "__main__":
    main()
