"""Learning curves given to TensorBoard, trackio and Weights & Biases, which need not be here."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result

Command = Callable[..., Result]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def curves(archive: Path) -> list[dict[str, float]]:
    file = archive / "work/finetune/quick/fold-0/curves.csv"
    header, *lines = file.read_text().splitlines()
    return [
        dict(zip(header.split(","), map(float, line.split(",")), strict=True)) for line in lines
    ]


def test_curves_are_drawn_where_tensorboard_is_asked_for(
    archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(archive / "work/finetune/quick/fold-0/events")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            drawn.append((name, value, step))

        def flush(self) -> None:
            pass

        def close(self) -> None:
            drawn.append(("closed", 0.0, 0))

    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=Writer)
    # Both words mean the same, once.
    done = finetune(archive, "--fold", "0", "--tensorboard", "--track", "tensorboard")
    assert done.exit_code == 0, done.stderr
    losses = [value for name, value, _ in drawn if name == "loss"]
    assert losses == pytest.approx([epoch["loss"] for epoch in curves(archive)], abs=1e-6)
    assert [step for name, _, step in drawn if name == "macro-F1"] == [1, 2]
    assert drawn[-1][0] == "closed"


class Board:
    """A library with `init`, whose runs have `log` and `finish`; `broken` fails at that call."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def _call(self, name: str) -> None:
        # Where the result belongs.
        print(f"board: {name}")  # noqa: T201
        if name == self.broken:
            raise RuntimeError("the board\nis full")

    def init(self, **how: Any) -> "Board":
        self._call("init")
        self.started.append(how)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self._call("log")
        self.logged.append((step, figures))

    def finish(self) -> None:
        self._call("finish")
        self.finished += 1


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_board_gets_every_epoch_of_every_part(
    name: str, archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board()
    stand_in(monkeypatch, name, init=board.init)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    words = ("--fold", "all", "--track", name, "--set", "optimizer.lr=0.001", "--json")
    done = finetune(archive, *words)
    assert done.exit_code == 0, done.stderr
    # What the library prints is not the result.
    record = json.loads(done.stdout)
    system = "quick+optimizer.lr=0.001"
    assert record["system"] == system
    assert [how["name"] for how in board.started] == [f"{system}/fold-{k}" for k in range(3)]
    for how in board.started:
        assert how["project"] == "stripes" and how["group"] == system
        assert how["config"]["optimizer"]["lr"] == 0.001
        assert how["config"]["model"]["backbone"] == "timm:test_convnext2"
        # Offline by default.
        assert how.get("mode") == ("offline" if name == "wandb" else None)
    assert [step for step, _ in board.logged] == [1, 2] * 3
    assert set(board.logged[0][1]) == {"loss", "lr", "macro-F1"}
    for fold, part in enumerate(record["parts"]):
        _, figures = board.logged[2 * fold + part["epoch"] - 1]
        assert figures["loss"] == part["loss"] and figures["macro-F1"] > 0
    assert board.finished == 3
    # What is finished is not tracked again.
    finetune(archive, *words)
    assert len(board.started) == 3


def test_wandb_goes_online_where_the_user_says_so(
    archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board()
    stand_in(monkeypatch, "wandb", init=board.init)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert finetune(archive, "--fold", "0", "--track", "wandb").exit_code == 0
    (how,) = board.started
    assert how["mode"] == "online"
    assert Path(how["dir"]) == archive / "work/finetune/quick/fold-0"


@pytest.mark.parametrize("broken", ["log", "finish"])
@pytest.mark.proves("training")
def test_a_board_that_fails_does_not_end_the_training(
    broken: str, archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(broken)
    stand_in(monkeypatch, "trackio", init=board.init)
    done = finetune(archive, "--fold", "0", "--track", "trackio")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("fold-0: trackio takes no more figures (the board is full)") == 1
    assert len(curves(archive)) == 2


def test_a_board_that_cannot_start_is_one_line(
    archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "wandb", init=Board("init").init)
    done = finetune(archive, "--fold", "0", "--track", "wandb")
    assert done.exit_code == 1 and not done.stdout
    assert "error: wandb cannot start for quick/fold-0 (the board is full)" in done.stderr
    assert "leave out --track wandb" in done.stderr


@pytest.mark.parametrize(
    ("words", "module", "package"),
    [
        (("--tensorboard",), "torch.utils.tensorboard", "'archiveprobe[tensorboard]'"),
        (("--track", "wandb"), "wandb", "'archiveprobe[tracking]'"),
        (("--track", "trackio"), "trackio", "trackio"),
    ],
)
def test_a_tracker_that_is_not_here_is_one_line_before_any_training(
    words: tuple[str, ...],
    module: str,
    package: str,
    archive: Path,
    finetune: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = finetune(archive, "--fold", "0", *words)
    assert done.exit_code == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert line.endswith(f"needs a package that is not here: pip install {package}")
    assert not (archive / "work/finetune").exists()


def test_another_tracker_is_wrong_usage(archive: Path, finetune: Command) -> None:
    done = finetune(archive, "--track", "mlflow")
    assert done.exit_code == 2
    assert "'tensorboard', 'trackio', 'wandb'" in done.stderr


def test_the_real_library_keeps_its_run_on_this_machine(
    archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra `tracking` is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    done = finetune(archive, "--fold", "0", "--track", "wandb", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["system"] == "quick"
    (folder,) = (archive / "work/finetune/quick/fold-0/wandb").glob("offline-run-*")
    assert any(folder.iterdir())
