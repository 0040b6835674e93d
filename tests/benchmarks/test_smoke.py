"""Every benchmark runs from end to end at a tiny size; what it measures is not judged here."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from counted import register_clip

from archiveprobe.cli import main as command
from archiveprobe.evaluate.threshold_curve import score_at

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}


def named(figures: dict[str, dict[str, Any]], words: str) -> list[dict[str, Any]]:
    return [figure for name, figure in figures.items() if words in name]


def test_archive_sources(start, figures_of):
    words = ("--files", "150", "--members", "20", "--rows", "50")
    figures = figures_of(start("archive_sources"), *words)
    counts = {kind: figures[f"{kind}: images"]["value"] for kind in ("folder tree", "tar", "CSV")}
    assert counts == {"folder tree": 150, "tar": 20, "CSV": 50}


def test_embed_speed(start, figures_of) -> None:
    speed = start("embed_speed")
    words = "--images 3 --repeats 1 --workers 0 --networks tiny --formats JPEG".split()
    figures = figures_of(speed, *words)
    assert len(named(figures, "embed / (decode + forward)")) == 1
    assert len(named(figures, "a stand-in for a GPU")) == 1
    [decodes] = named(figures, "decodes per image")
    assert decodes["value"] == 1.0
    assert decodes["met"]


def test_embed_of_checkouts(start, figures_of, monkeypatch) -> None:
    compared, roots = start("embed_of_checkouts"), []

    def run_here(words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        roots.append((how["cwd"] / "archiveprobe").resolve())
        command([*words[3:], "--workers", "0"], standalone_mode=False)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(compared.subprocess, "run", run_here)
    monkeypatch.setattr(compared, "processor_of_children", count().__next__)
    words = (str(ROOT), str(ROOT / "docs"), "--images", "2", "--repeats", "2", "--formats", "JPEG")
    figures = figures_of(compared, *words)
    assert roots == [ROOT, ROOT / "docs"] * 3
    [ratio] = named(figures, "wall time, hog, center, JPEG, new / old")
    assert ratio["value"] > 0
    assert figures["processor time, hog, center, JPEG, new / old"]["value"] == 1.0


def test_peer_loop(start, figures_of, monkeypatch, tmp_path) -> None:
    peers, drawn = start("peer_loop"), start("drawn")
    config = tmp_path / "peer-smoke.json"
    config.write_text(json.dumps(TINY_CLIP))
    register_clip(config)
    monkeypatch.setattr(peers, "MODEL", config.stem)
    monkeypatch.setitem(drawn.NETWORKS, "clip", drawn.NETWORKS["tiny"])

    def run_here(*words: str | Path, program: Any = None) -> tuple[None, float]:
        if program is None:
            command([*map(str, words), "--workers", "0"], standalone_mode=False)
        else:
            assert Path(words[0]).samefile(peers.__file__)
            peers.main([str(word) for word in words[1:]])
            assert Path(words[-1]).stat().st_size > 3 * 16 * 4
        return None, 1.0

    monkeypatch.setattr(peers, "run", run_here)
    words = "--images 3 --decoded 2 --repeats 1 --formats JPEG".split()
    figures = figures_of(peers, *words)
    assert figures["times as fast as the peers' loop, whole run, JPEG"]["value"] == 1.0
    assert len(named(figures, "decoded images")) == 3


def test_cache_rates(start, figures_of) -> None:
    figures = figures_of(
        start("cache_rates"), *"--images 2 --network tiny".split(), "--megabytes", "1"
    )
    [share] = named(figures, "share of wall time")
    assert 0 < share["value"] < 100
    assert len(named(figures, "opened and read")) == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_memory_growth(start, figures_of) -> None:
    growth = start("memory_growth")
    figures = figures_of(growth, *"--sizes 2 3 --labelled 0".split())
    assert len(named(figures, "growth, ")) == 4
    peak = figures["peak, first run, 3 images, process"]["value"]
    assert 20 < peak < 1000
    assert growth.peak_of(f"/proc/{os.getpid()}/status") > 0


def test_evaluate_speed(start, figures_of) -> None:
    figures = figures_of(start("evaluate_speed"), *"--rows 60 --systems 2".split())
    assert figures["all thresholds of 60 rows"]["value"] > 0
    assert len(named(figures, "ensemble of 2")) == 6


def test_interval_truth(start, figures_of, monkeypatch) -> None:
    benchmark, drawn = start("interval_truth"), start("drawn_archives")
    monkeypatch.setattr(drawn, "FRESH", 2000)
    words = ["plain, 150 rows", "10 uneven groups"]
    named_archives = [word for name in words for word in ("--archive", name)]
    figures = figures_of(benchmark, "--tasks", "2", "--workers", "0", *named_archives)
    assert len(named(figures, ": cover of the refitted model")) == 2 * 5
    for name in words:
        assert 0 <= figures[f"{name}, model selection (nested): cover"]["value"] <= 1
        assert 0.5 < figures[f"{name}, ridge a: mean truth"]["value"] < 0.95
    rng = np.random.default_rng(0)
    source = drawn.Source(20_000, mislabelled=0.0)
    rows = source.archive(1)
    x = rows.x - 0.1 * rng.standard_normal(rows.x.shape[1])
    p = np.stack([x[:, 8], np.ones(len(x))])
    mine = benchmark.true_scores(p, np.array([0.1, 0.0]), rows)
    known = [score_at(rows.y == 1, each, cut) for each, cut in zip(p, (0.1, 0.0), strict=True)]
    assert mine == pytest.approx(known)


def test_recall_truth(start, figures_of, monkeypatch) -> None:
    benchmark = start("recall_truth")
    monkeypatch.setattr(benchmark, "IMAGES", 4000)
    monkeypatch.setattr(benchmark, "FIXED", 300)
    monkeypatch.setattr(benchmark, "EVERY", 1)
    words = ("--kind", "exchangeable", "--kind", "near-duplicate bursts")
    figures = figures_of(benchmark, "--archives", "2", *words)
    assert 0 <= figures["exchangeable: after the tuned threshold, one draw: false"]["value"] <= 1
    assert figures["near-duplicate bursts: 50 in a row: images"]["value"] > 50
    truth = np.arange(400) % 100 == 3
    assert (benchmark.row_stop(truth), benchmark.row_stop(~truth)) == (54, 400)


def test_prevalence_truth(start, figures_of, monkeypatch) -> None:
    benchmark = start("prevalence_truth")
    monkeypatch.setattr(benchmark, "IMAGES", 3000)
    figures = figures_of(benchmark, "--archives", "1")
    assert len(named(figures, ": cover")) == len(benchmark.KINDS) * 3 * 2


def test_threshold_aims(start, figures_of, monkeypatch) -> None:
    benchmark, drawn = start("threshold_aims"), start("drawn_archives")
    monkeypatch.setattr(drawn, "FRESH", 2000)
    words = ["--tasks", "2", "--workers", "0", "--archive", "plain, 400 rows"]
    figures = figures_of(benchmark, *words)
    assert len(named(figures, ", holds")) >= 2 and len(named(figures, "rows to review")) == 2
    for figure in named(figures, "rows to review"):
        assert 0 < figure["value"] < 1


def test_drawn_archives_are_what_they_say(start) -> None:
    drawn = start("drawn_archives")
    for name, source in drawn.SOURCES.items():
        rows = source.archive(0)
        again = source.archive(0)
        assert np.array_equal(rows.x, again.x) and len(rows.x) == len(rows.y) == len(rows.groups)
        assert abs(len(rows.y) - source.rows) <= 0.1 * source.rows + 20, name
        if source.groups:
            assert len(np.unique(rows.groups)) == source.groups
        elif not source.copies:
            assert len(np.unique(rows.groups)) == source.rows
    copies = drawn.SOURCES["plain, 1200 rows"].archive(0)
    first = copies.groups != np.arange(1200)
    assert 0.15 < first.mean() < 0.25
    assert np.array_equal(copies.y[first], copies.y[copies.groups[first]])
    near = (copies.x[first] * copies.x[copies.groups[first]]).mean()
    assert near > 0.8 * (copies.x**2).mean()


def test_finetune_tokens(start, figures_of, monkeypatch, tmp_path) -> None:
    benchmark = start("finetune_tokens")
    config = tmp_path / "tokens-smoke.json"
    config.write_text(json.dumps(TINY_CLIP))
    register_clip(config)
    tiny = benchmark.Backbone("clip-vit-b32", "open_clip", config.stem)
    monkeypatch.setattr(benchmark, "BACKBONES", {tiny.name: tiny})
    figures = figures_of(benchmark, "--images", "32", "--repeats", "1", "--views", "2")
    assert len(named(figures, "from cached tokens")) == 2
    [same] = named(figures, "tokens in fp32")
    assert same["met"]
    [rounded] = named(figures, "as cached")
    assert 0 < rounded["value"] < 0.01


def test_finetune_loader(start, figures_of, monkeypatch) -> None:
    benchmark, drawn = start("finetune_loader"), start("drawn")

    def small(*words: Any) -> None:
        drawn.draw_images(*words, width=54, height=68)

    monkeypatch.setattr(benchmark, "draw_images", small)
    monkeypatch.setattr(benchmark, "SIDES", dict.fromkeys(benchmark.SIDES, 32))
    tiny = benchmark.Model(backbone="timm:test_vit", weights="random", size=32)
    monkeypatch.setattr(benchmark, "SMALL", tiny)
    figures = figures_of(benchmark, *"--images 4 --repeats 1 --device cpu".split())
    assert len(named(figures, "times as fast as decoding in every epoch")) == 2
    ratios = named(figures, "on resident tensors, a small network, cpu, processes: ")
    default = benchmark.default_drawing("cpu", 10_000)
    for ratio in ratios:
        assert ratio["value"] > 0
        bounded = ratio["name"].endswith(f"processes: {default}")
        assert ratio["target"] == ("<= 1.2" if bounded else "")
    times = np.array([[1.0, 1.1], [1.0, 1.3], [2.0, 2.2]])
    bounded = next(benchmark.training_figures("x", 10, [2], times, 2))
    assert (bounded.value, bounded.met) == (1.1, True)


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_real_images(start, figures_of) -> None:
    figures = figures_of(start("real_images"), "--images", "25")
    assert [figure["value"] for figure in named(figures, "rows, ")] == [25, 25]
    assert all(figure["met"] for figure in named(figures, "worst cosine"))


def test_a_failing_command_ends_the_benchmark(start) -> None:
    with pytest.raises(SystemExit, match="no task file"):
        start("common").run("embed", "nowhere/task.toml")


def test_figures_say_whether_their_target_is_met(start) -> None:
    common = start("common")
    assert common.at_most("a", 1.1, 1.1).met
    assert not common.at_most("a", 1.11, 1.1).met
    assert common.at_least("a", 3.0, 3.0).met
    assert not common.at_least("a", 2.99, 3.0).met
    assert not common.exactly("a", 2, 1).met
    assert common.Figure("a", 1).met is None


COMMANDS = ["tiny", "probe", "predict", "finetune"]


def test_shared_cores(start, figures_of, monkeypatch, tmp_path) -> None:
    shared = start("shared_cores")
    monkeypatch.setattr(shared, "IMAGES", tmp_path / "absent")
    in_a_process = shared.run

    def run(work: Any, loops: int) -> Any:
        """Start the first command only as a process; the others run once, in this one."""
        if work.name == COMMANDS[0]:
            return in_a_process(work, loops)
        if not work.made.exists():
            done = CliRunner().invoke(command, list(map(str, work.words)))
            assert done.exit_code == 0, done.output
        return shared.Run(1.0, 1.0, 0.0)

    monkeypatch.setattr(shared, "run", run)
    words = "--images 2 --repeats 1 --busy 1 --network tiny --rows 60 --epochs 2".split()
    figures = figures_of(shared, *words)
    for what in ("over its share of the cores", "processor time alone"):
        found = named(figures, what)
        assert [figure["name"].split()[0].strip(",") for figure in found] == COMMANDS
        assert all(figure["value"] > 0 for figure in found)
    assert len(named(figures, "cores that other programs used")) == len(COMMANDS)


def test_submit_speed(start, figures_of) -> None:
    words = "--labelled 60 --rows 9 --width 8 --repeats 1".split()
    figures = figures_of(start("submit_speed"), *words)
    written = named(figures, "rows written")
    assert len(written) == 3 and all(figure["met"] for figure in written)


def test_the_leaderboard_of_probe_speed(start, monkeypatch, tmp_path) -> None:
    benchmark = start("probe_speed")
    monkeypatch.setattr(benchmark, "_BACKBONES", {"drawn-a": 12, "drawn-b": 8})
    benchmark.draw_task(tmp_path, 90, 9)
    measured = benchmark.leaderboard(tmp_path)
    assert measured["seconds"] > 0 and {"ridge", "logistic"} <= set(measured["costs"])


def test_large_task(start, monkeypatch, tmp_path) -> None:
    benchmark = start("large_task")
    benchmark.draw_table(tmp_path / "table", 60, 40)
    assert benchmark.measure_folds(tmp_path / "table")["folds"] >= 0
    assert benchmark.measure_embed(tmp_path / "table") == {"reused": 60}
    benchmark.draw_embeddings(tmp_path / "labelled", 90, 9, {"drawn-a": 12, "drawn-b": 8})
    found = benchmark.measure_leaderboard(tmp_path / "labelled")
    assert {"ridge", "knn"} <= set(found["costs"]) and not found["said"]
    assert benchmark.measure_audit(tmp_path / "labelled")["warnings"] >= 0
    [advice] = benchmark.advice_figures(2000)
    assert advice.value >= 0
    rate, farthest = benchmark.scoring_figures(5000, 16)
    assert rate.value > 0 and farthest.met


@pytest.mark.browser
def test_look_million(start, tmp_path) -> None:
    if not any(map(shutil.which, start("look_million")._CHROMIUM)):
        pytest.skip("no browser")
    file = tmp_path / "figures.json"
    # A process of its own: Playwright runs once in each, and other tests have it open.
    words = [
        ROOT / "benchmarks" / "look_million.py",
        *"--rows 200 --images 60 --json".split(),
        file,
    ]
    subprocess.run([sys.executable, *words], check=True, env=_paths())
    figures = {each["name"]: each for each in json.loads(file.read_text())["figures"]}
    [tiles] = named(figures, "tiles in the document")
    assert 0 < tiles["value"] < 200
    [memory] = named(figures, "memory of the server at most")
    assert memory["met"]
    [size] = named(figures, "size")
    assert size["met"]


def _paths() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_cache_million(start, figures_of, tmp_path) -> None:
    figures = figures_of(start("cache_million"), "--rows", "40000", "--folder", str(tmp_path))
    assert figures["rows in the end"]["met"]
    assert figures["right answers"]["met"]
    assert figures["rows after the kill"]["met"]
    assert list(tmp_path.glob("tmp*")) == []


def test_review_million(start, figures_of) -> None:
    figures = figures_of(start("review_million"), "--images", "300", "--decisions", "40")
    assert figures["images"]["value"] == 300
    assert named(figures, "refit on 40 decisions")


def test_review_demo(start, tmp_path, capsys) -> None:
    from archiveprobe.demo.archive import write_demo
    from archiveprobe.embed.run import Options as EmbedOptions
    from archiveprobe.embed.run import embed
    from archiveprobe.probe.run import Options, run_probes
    from archiveprobe.task.config import load_task

    write_demo(tmp_path / "demo", count=80)
    task = load_task(tmp_path / "demo")
    embed(task, EmbedOptions(workers=0))
    run_probes(task, Options(probes=("ridge",), workers=1))
    for _ in range(2):
        start("review_demo").main([str(tmp_path / "demo"), "--system", "ridge-hog"])
        shown = capsys.readouterr().out
        assert "of all positive images" in shown
        assert "known to the script only: recall" in shown
    with pytest.raises(SystemExit, match="error: no file"):
        (tmp_path / "demo" / "test_labels.csv").unlink()
        start("review_demo").main([str(tmp_path / "demo")])


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_review_real(start, figures_of) -> None:
    words = ("--seeds", "1", "--labelled", "60", "--images", "140")
    figures = figures_of(start("review_real"), *words)
    assert figures["reviews"]["value"] == 1
    assert 0 < figures["true recall, mean"]["value"] <= 1
