"""Fuzz file formats with atheris: python tests/fuzz/fuzz.py [TARGET ...] --seconds 60.

Every target runs in a process of its own, which ends at the first fault; the input that causes it
is kept below --keep, with the traceback. Exit status 1 when there was one.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ONE = Path(__file__).with_name("fuzz_one.py")
NAMES = (
    "task table corrections starter manifest folds image commits failures fingerprint shard lock "
    "safetensors torch"
).split()


def main() -> int:
    """Parse, fuzz every target in turn, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {' '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="most inputs for each target")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), metavar="FOLDER")
    options = parser.parse_args()
    unknown = set(options.targets) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {' '.join(sorted(unknown))}")
    print(f"{'target':<12} {'runs':>9} {'per second':>10} {'coverage':>8} {'features':>8}  found")
    results = [
        in_a_process(name, options.seconds, options.runs, options.keep.absolute())
        for name in options.targets or NAMES
    ]
    return int(not all(results))


def in_a_process(name: str, seconds: int, runs: int, keep: Path) -> bool:
    """Fuzz one target, print its line, and say whether all went well."""
    found = keep / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        command = [sys.executable, ONE, name, scratch, f"-artifact_prefix={found}/"]
        command += [f"-max_total_time={seconds}", f"-runs={runs}"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    output = done.stdout.decode("utf-8", "replace")
    progress = re.findall(r"^#(\d+).*? cov: (\d+) ft: (\d+)", output, re.MULTILINE)
    executed, coverage, features = progress[-1] if progress else ("0", "0", "0")
    final = dict(re.findall(r"stat::(\w+):\s+(\d+)", output))
    executed = final.get("number_of_executed_units", executed)
    speed = final.get("average_exec_per_sec", "-")
    said = "nothing"
    if done.returncode:
        (found / "output.txt").write_text(output, "utf-8")
        said = f"exit status {done.returncode}, see {found}"
    print(f"{name:<12} {executed:>9} {speed:>10} {coverage:>8} {features:>8}  {said}", flush=True)
    return not done.returncode


if __name__ == "__main__":
    sys.exit(main())
