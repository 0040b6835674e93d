"""The checks of a GPU, walked through on a CPU at toy size, and the command that runs them all."""

import json
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
import torch
from click.testing import CliRunner

from archiveprobe.cli import main as command

DOCS = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
HERE = ("--device", "cpu", "--tiny")


@pytest.fixture
def here(monkeypatch, start):
    """Run the commands of a check in this process."""
    work = start("gpu.work")

    def attempt_here(*words: Any, limit: float, **_: Any) -> Any:
        assert limit > 0
        done = CliRunner().invoke(command, [*map(str, words), *_workers(words[0])])
        return work.Attempt(done.exit_code, done.stdout, done.stderr, 1.0)

    def run_here(*words: Any) -> None:
        done = attempt_here(*words, limit=1)
        assert done.status == 0, done.err

    def here(name: str) -> Any:
        check = start(name)
        monkeypatch.setattr(check, "attempt", attempt_here, raising=False)
        monkeypatch.setattr(check, "run", run_here, raising=False)
        return check

    return here


def _workers(name: str) -> tuple[str, ...]:
    return ("--workers", "0") if name in ("embed", "finetune", "predict") else ()


def test_agreement(start, figures_of) -> None:
    figures = figures_of(start("gpu.agreement"), *HERE)
    for network in ("tiny-vit", "tiny-conv"):
        assert figures[f"least cosine to the CPU, {network}, fp32"]["met"]
        assert figures[f"finite when stored, {network}, fp32"]["met"]
        assert f"least cosine to the CPU, {network}, fp16" not in figures


def test_forward_rates(start, figures_of) -> None:
    words = (*HERE, "--seconds", "0", "--batches", "2")
    figures = figures_of(start("gpu.forward_rates"), *words)
    assert figures["resident, tiny-vit, weights in bf16, batches of 2"]["value"] > 0
    assert figures["as embed calls it, tiny-conv, fp32, batches of 2"]["value"] > 0


def test_decoding(start, figures_of) -> None:
    decoding = start("gpu.decoding")
    figures = figures_of(decoding, *HERE, "--images", "4", "--forms", "JPEG")
    assert figures["decoded, JPEG, crops6 384, 0 cores"]["value"] > 0
    left_out = "left out: only a GPU with CUDA decodes, and this run is on cpu"
    assert figures["decoded on the card"]["value"] == left_out


def test_decoding_on_a_card(start, figures_of, monkeypatch) -> None:
    decoding = start("gpu.decoding")
    monkeypatch.setattr(decoding, "jpeg_decoder", lambda _: decode_here)
    figures = figures_of(decoding, *HERE, "--images", "4", "--forms", "JPEG")
    assert figures["decoded on the card, JPEG, center 224, 0 cores"]["value"] > 0
    assert figures["decoded on the card, of those tried"]["value"] == "4 of 4"
    assert figures["levels off Pillow's pixels, mean"]["value"] < 1


def decode_here(files: Any) -> list[torch.Tensor]:
    """Decode JPEGs in the form that a card gives."""
    pixels = [simplejpeg.decode_jpeg(file, "RGB", fastupsample=False) for file in files]
    return [torch.from_numpy(image).permute(2, 0, 1) for image in pixels]


def test_recipes(here, figures_of) -> None:
    words = (*HERE, "--images", "18", "--epochs", "1")
    figures = figures_of(here("gpu.recipes"), *words)
    for precision in ("fp32", "bf16"):
        assert figures[f"outcome, demo-tiny, {precision}"]["met"]
        assert figures[f"loss is a number, demo-tiny, {precision}"]["met"]


def test_answers(here, figures_of) -> None:
    figures = figures_of(here("gpu.answers"), *HERE, "--images", "18", "--new", "3")
    assert len(figures) == 7
    assert [figure for figure in figures.values() if figure["met"] is False] == []


def test_memory_needs_a_gpu_and_says_so(start, figures_of) -> None:
    figures = figures_of(start("gpu.faults"), *HERE, "--only", "memory")
    assert figures["memory that ends"]["value"] == "left out: needs a GPU with CUDA"


def test_a_run_that_is_killed(here, figures_of, monkeypatch) -> None:
    faults = here("gpu.faults")
    monkeypatch.setattr(faults, "kill_after_a_state", lambda *_: True)
    figures = figures_of(faults, *HERE, "--only", "resume", "--images", "18")
    assert figures["largest difference of logits, killed and resumed"]["value"] == 0
    # Nothing was killed here, so nothing went on.
    assert figures["goes on from its state"]["met"] is False


def test_a_small_shm(here, figures_of) -> None:
    faults = here("gpu.faults")
    real = faults.attempt
    faults.attempt = lambda *words, **how: (
        real(*words, **how) if words else type("Probe", (), {"status": 0})
    )
    figures = figures_of(faults, *HERE, "--only", "shm", "--images", "18")
    assert figures["finetune with a /dev/shm of 64 MB: exit status"]["met"]


def test_every_check_of_the_table_names_a_benchmark(start) -> None:
    checks = start("gpu.checks").CHECKS
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        modules = {check.command("cpu", tiny=tiny)[0] for tiny in (True, False)}
        assert len(modules) == 1
        assert hasattr(start(modules.pop()), "main")
        line = f"| {check.name} | {check.part} |"
        assert DOCS.read_text().count(line) == 1, f"docs/gpu.md must list {check.name} once"
    for part in {check.part for check in checks}:
        assert sum(check.limit for check in checks if check.part == part) <= 600


@pytest.fixture
def checks(start, monkeypatch):
    """The command, over a check that ends, one that breaks and one that hangs."""
    gpu, table = start("gpu_checks"), start("gpu.checks")
    work = start("gpu.work")
    figure = {"name": "a|b", "value": 2, "unit": "s", "target": "<= 1", "met": False}

    def attempt(*words: Any, limit: float, program: Any, **_: Any) -> Any:
        if program[1] == "good":
            Path(words[-1]).write_text(json.dumps({"figures": [figure]}))
            return work.Attempt(0, "", "", 1.0)
        if program[1] == "hangs":
            return work.Attempt(None, "", "", limit)
        return work.Attempt(1, "", "Traceback\nRuntimeError: CUDA error\n", 2.0)

    monkeypatch.setattr(gpu, "attempt", attempt)
    names = ("good", "breaks", "hangs")
    three = tuple(table.Check(name, 1 + (name == "hangs"), 5, name, name) for name in names)
    monkeypatch.setattr(gpu, "CHECKS", three)
    return gpu


def run_checks(checks: Any, file: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as ended:
        checks.main([*words, "--device", "cpu", "--json", str(file)])
    return ended.value.code, json.loads(file.read_text()), file.with_suffix(".md").read_text()


def test_a_check_that_fails_costs_itself_only(checks, tmp_path) -> None:
    status, record, text = run_checks(checks, tmp_path / "gpu.json")
    assert status
    outcomes = {each["check"]: each["outcome"] for each in record["checks"]}
    assert outcomes == {"good": "ended", "breaks": "failed", "hangs": "too long"}
    assert "| good | a\\|b | 2 s | <= 1 | **missed** |" in text
    assert "| breaks | failed | (limit 5 s) RuntimeError: CUDA error | | |" in text
    assert record["machine"]["date"] in text and "torch 2" in text and "no GPU" in text


def test_parts_names_and_time(checks, tmp_path) -> None:
    status, record, _ = run_checks(checks, tmp_path / "gpu.json", "--check", "good")
    assert not status and [each["check"] for each in record["checks"]] == ["good"]
    _, record, _ = run_checks(checks, tmp_path / "gpu.json", "--part", "2")
    assert [each["check"] for each in record["checks"]] == ["hangs"]
    status, record, text = run_checks(checks, tmp_path / "gpu.json", "--seconds", "1")
    assert not status and {each["outcome"] for each in record["checks"]} == {"left out"}
    assert "no time was left" in text


def test_an_attempt_is_stopped_at_its_limit_with_its_processes(start) -> None:
    work = start("gpu.work")
    sleeping = "import time; time.sleep(60)"
    done = work.attempt(limit=0.2, program=("-c", sleeping))
    assert done.status is None and not done.in_one_line
    failed = work.attempt(limit=60, program=("-c", "import sys; sys.exit('error: what, where')"))
    assert failed.in_one_line and failed.last_line == "error: what, where"
