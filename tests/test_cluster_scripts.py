"""The scripts of docs/clusters, run here by stand-ins for Slurm and SkyPilot, and for a bucket."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import yaml
from click.testing import CliRunner
from unit_archive import archive_of, fit, picture, pictured_task

from archiveprobe.cli import main

CLUSTERS = Path(__file__).parents[1] / "docs" / "clusters"
# Notes what it was asked to do, so that the test can do it without starting Python each time.
ARCHIVEPROBE = """\
#!{python}
import json, sys
with open("{calls}", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""
AWS = """\
#!/bin/bash
set -- "${{@: -2}}"
source=${{1/s3:\\/\\//{store}/}} target=${{2/s3:\\/\\//{store}/}}
mkdir -p "$source" "$target"
cp -r "$source/." "$target/"
"""


class Host:
    """Runs scripts as a node would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        task = pictured_task(folder / "my")
        fit(task)
        archive_of(folder / "images", [picture(at) for at in range(200)])
        programs = folder / "bin"
        programs.mkdir()
        stand_ins = {
            "archiveprobe": ARCHIVEPROBE.format(python=sys.executable, calls=self.calls),
            "aws": AWS.format(store=str(folder / "store").replace("/", "\\/")),
        }
        for name, text in stand_ins.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def run(self, script: str, **variables: str) -> list[str]:
        """Run a script; return the words of the command that it gave."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(self.folder), **variables}
        subprocess.run(["bash", "-c", script], env=env, cwd=self.folder, check=True)
        return list(json.loads(self.calls.read_text().splitlines()[-1]))

    def answer(self, words: list[str]) -> str:
        """Do what a command says; return what it printed."""
        words = ["ridge-hog" if word == "greedy" else word for word in words]
        done = CliRunner().invoke(main, [*words, "--device", "cpu"])
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.chdir(tmp_path)
    return Host(tmp_path)


def test_an_array_of_slurm_answers_all(host: Host) -> None:
    script = (CLUSTERS / "slurm.sh").read_text()
    for old, new in (("/archive/images", "images"), ("/archive/answers", "answers")):
        script = script.replace(old, str(host.folder / new))
    for element in ("1", "2"):
        variables = {"SLURM_ARRAY_TASK_ID": element, "SLURM_ARRAY_TASK_COUNT": "3"}
        words = host.run(script, SLURM_CPUS_PER_TASK="1", **variables)
        assert words[words.index("--units") + 1] == f"{element}/3"
        host.answer(words)
    # The third never ran: the job after the array does its share, and merges.
    words = host.run(script, SLURM_CPUS_PER_TASK="1")
    assert "--units" not in words
    host.answer(words)
    assert parquet.read_table(host.folder / "answers" / "parts").num_rows == 200


def test_nodes_of_skypilot_bring_their_parts_together(host: Host) -> None:
    script = yaml.safe_load((CLUSTERS / "skypilot.yaml").read_text())["run"]
    script = script.replace("~/task", str(host.folder / "my"))
    script = script.replace("s3://my-archive/images", str(host.folder / "images"))
    for rank in ("0", "1"):
        home = host.folder / f"node{rank}"
        home.mkdir()
        nodes = {"SKYPILOT_NODE_RANK": rank, "SKYPILOT_NUM_NODES": "2"}
        words = host.run(script, **nodes, HOME=str(home))
        assert words[words.index("--units") + 1] == f"{int(rank) + 1}/2"
        host.answer(words)
        # As the last lines of the script do when the command has ended.
        host.run(script, **nodes, HOME=str(home))
    last = host.folder / "answers"
    for share in (1, 2):
        shutil.copytree(host.folder / f"store/my-answers/share-{share}", last, dirs_exist_ok=True)
    host.answer([*words[: words.index("--units")], "-o", str(last)])
    assert parquet.read_table(last / "parts").num_rows == 200
