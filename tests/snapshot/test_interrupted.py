"""Rows that embed has not come to are no unreadable rows: figures are refused, or say partial."""

from collections.abc import Callable

import pytest
from shelf import Shelf, image, killed_embed, plain

from archiveprobe.base.errors import InputError
from archiveprobe.cli import main
from archiveprobe.evaluate.choose_threshold import report_threshold
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.probe.audit.run import run_audit

ENDED = "run `archiveprobe embed"


def commands(shelf: Shelf) -> dict[str, Callable[[], object]]:
    """Everything that gives a figure or an answer."""
    return {
        "probe": shelf.probe,
        "ensemble": lambda: run_ensemble(shelf.task, "mean", name="both"),
        "audit": lambda: run_audit(shelf.task),
        "audit --apply": lambda: run_audit(shelf.task, apply=True),
        "threshold": lambda: report_threshold(shelf.task, "ridge-eye"),
        "submit": lambda: shelf.submission("ridge-eye"),
        "predict": lambda: shelf.prediction("ridge-eye"),
        "export": shelf.export,
    }


def all_refuse(shelf: Shelf, *words: str) -> None:
    for name, command in commands(shelf).items():
        with pytest.raises(InputError) as caught:
            command()
        message = str(caught.value)
        assert len(message.splitlines()) == 1, name
        for word in (*words, ENDED):
            assert word in message, f"{name}: {message}"


def all_work(shelf: Shelf) -> None:
    for command in commands(shelf).values():
        command()


@pytest.fixture
def probed(shelf: Shelf) -> Shelf:
    """Embedded, with two probes and an ensemble."""
    shelf.embed()
    shelf.probe()
    shelf.probe(kind="knn")
    run_ensemble(shelf.task, "mean")
    assert set(shelf.states().values()) == {"ok"}
    return shelf


@pytest.mark.proves("state")
@pytest.mark.parametrize("moment", ["decode", "commit"])
def test_killed_in_the_middle(probed: Shelf, moment: str, tmp_path) -> None:
    probed.fill(labelled=10, to_predict=2, start=100)
    assert killed_embed(probed, 5, moment)
    all_refuse(probed, "of 27 rows wait for embed" if moment == "decode" else "of 27 rows")
    assert all(state.startswith("out of date: rows") for state in probed.states().values())
    probed.embed()
    board = probed.probe()
    assert plain(board) == plain(probed.fresh(tmp_path / "fresh").probe())
    assert probed.states()["knn-eye"].startswith("out of date: rows")
    probed.probe(kind="knn")
    all_work(probed)


def test_the_first_run_killed(shelf: Shelf, tmp_path) -> None:
    assert killed_embed(shelf, 1)
    with pytest.raises(InputError, match="15 of 15 rows wait for embed"):
        shelf.probe()
    assert killed_embed(shelf, 9)
    with pytest.raises(InputError, match="of 15 rows wait for embed"):
        shelf.probe()
    shelf.embed()
    assert plain(shelf.probe()) == plain(shelf.fresh(tmp_path / "fresh").probe())


@pytest.mark.proves("state")
def test_rows_added_and_embed_forgotten(probed: Shelf) -> None:
    probed.fill(labelled=2, to_predict=0, start=100)
    all_refuse(probed, "2 of 17 rows wait for embed ('100.png', '101.png')")
    assert all(state.startswith("out of date: rows") for state in probed.states().values())
    probed.embed()
    probed.probe()
    probed.probe(kind="knn")
    all_work(probed)


@pytest.mark.proves("state")
def test_one_row_to_predict_added(probed: Shelf) -> None:
    """Systems have not learnt from it, so they stay; but nobody has looked at it yet."""
    probed.fill(labelled=0, to_predict=1, start=101)
    said = "1 of 16 rows waits for embed ('101.png')"
    all_refuse(probed, said)
    assert all(state.startswith(said) for state in probed.states().values())
    probed.embed()
    assert set(probed.states().values()) == {"ok"}
    assert "101.png" in probed.submission("ridge-eye")
    probed.probe(kind="knn")  # What ensembles combine must be about the same rows to predict.
    all_work(probed)


@pytest.mark.proves("state")
def test_an_ensemble_made_after_rows_to_predict_came(shelf: Shelf) -> None:
    """Its members have not answered them: it is stored without, and asks them when it has to."""
    shelf.embed()
    for kind in ("ridge", "knn"):
        shelf.probe(kind=kind)
    stored = load_run(shelf.task, "knn-eye").predictions()
    shelf.fill(labelled=0, to_predict=1, start=101)
    shelf.embed()
    run_ensemble(shelf.task, "mean")
    run = load_run(shelf.task, "mean")
    assert run.predictions().test_ids.tolist() == stored.test_ids.tolist()
    member = load_run(shelf.task, "knn-eye").record["snapshot"]
    assert run.record["snapshot"]["to predict"] == member["to predict"]
    assert "101.png" in shelf.submission("mean")


@pytest.mark.proves("state")
def test_files_renamed(probed: Shelf) -> None:
    before = plain(probed.probe())
    probed.rename("003.png", "renamed.png")
    all_refuse(probed, "1 of 15 rows waits for embed ('renamed.png')")
    assert all(state.startswith("out of date: rows") for state in probed.states().values())
    folds = probed.fold_of()
    probed.embed()
    assert probed.bench.crops == 0
    assert probed.fold_of()["renamed.png"] == folds["003.png"]
    assert plain(probed.probe()) == before


def test_rows_removed(probed: Shelf, tmp_path) -> None:
    """What is left was looked at, so nothing waits; systems have learnt from other rows."""
    probed.drop("003.png")
    assert all(state.startswith("out of date: rows") for state in probed.states().values())
    without = plain(probed.probe())
    probed.embed()
    assert plain(probed.probe()) == without == plain(probed.fresh(tmp_path / "fresh").probe())


@pytest.mark.proves("state")
def test_an_image_changed_and_embedded(probed: Shelf) -> None:
    probed.put("003.png", "destroyed", image(500))
    assert set(probed.states().values()) == {"ok"}  # Nobody has seen it yet.
    probed.embed()
    states = probed.states()
    assert all(state.startswith("out of date: images") for state in states.values())
    probed.put("003.png", "destroyed", image(3, "destroyed"))
    probed.embed()
    assert set(probed.states().values()) == {"ok"}


def test_an_image_to_predict_changed_and_the_run_killed(probed: Shelf) -> None:
    probed.put("013.png", "", image(500))
    assert killed_embed(probed, 1, "decode")
    all_refuse(probed, "1 of 15 rows waits for embed ('013.png')")
    probed.embed()
    all_work(probed)


def test_killed_when_all_is_done_but_the_last_mark(probed: Shelf) -> None:
    probed.fill(labelled=1, to_predict=0, start=100)
    assert killed_embed(probed, 1, "commit")
    with pytest.raises(InputError) as caught:
        probed.probe()
    assert ENDED in str(caught.value)
    probed.embed()
    assert probed.bench.crops == 0
    probed.probe()


def test_a_backbone_that_lacks_the_new_rows(shelf: Shelf) -> None:
    """Every row was looked at, but one of the two caches has no embedding of some."""
    shelf.backbones = ("eye", "ear")
    shelf.embed()
    shelf.probe()
    shelf.fill(labelled=2, to_predict=1, start=100)
    shelf.embed(backbones=("eye",))
    for attempt in (shelf.probe, lambda: shelf.probe("ear"), lambda: run_audit(shelf.task)):
        with pytest.raises(InputError, match=r"rows? not in the cache ear-.* run `archiveprobe"):
            attempt()
    with pytest.raises(InputError, match="no embedding by ear yet of 3 images"):
        shelf.export()
    board = shelf.probe(partial=True)
    assert board["leaderboard"][0]["features"].endswith("(partial: 15 of 18 rows)")
    shelf.embed()
    shelf.probe()
    shelf.export()


# --partial


def half_embedded(shelf: Shelf) -> Shelf:
    shelf.fill(labelled=24)
    shelf.embed()
    shelf.fill(labelled=8, to_predict=2, start=100)
    assert killed_embed(shelf, 4)
    return shelf


@pytest.mark.proves("state")
def test_partial_says_so_on_every_line(shelf: Shelf, tmp_path) -> None:
    half_embedded(shelf)
    shelf.probe(partial=True)
    board = shelf.probe(partial=True, kind="knn")
    [line] = board["leaderboard"]
    assert "(partial: " in line["features"] and " of 37 rows)" in line["features"]
    assert "the others wait for embed" in board["warnings"][0]
    both = run_ensemble(shelf.task, "mean", partial=True)
    named = {line.system: line.features for line in both.lines}
    assert all("partial: " in features for features in named.values()), named
    # The folds of a part are not kept: those of the whole are cut with all near-duplicates known.
    assert set(shelf.fold_of()) == {f"{at:03}.png" for at in range(24)}
    assert all(state.startswith("out of date: rows") for state in shelf.states().values())
    shelf.embed()
    assert all(state.startswith("out of date: rows") for state in shelf.states().values())
    board = shelf.probe()
    assert "partial" not in plain(board) and board["warnings"] == []
    assert plain(board) == plain(shelf.fresh(tmp_path / "fresh").probe())


def test_partial_systems_are_not_for_answers(shelf: Shelf) -> None:
    """Rows to predict alone were left out, yet the figures bear the mark."""
    shelf.embed()
    shelf.fill(labelled=0, to_predict=1, start=101)
    [line] = shelf.probe(partial=True)["leaderboard"]
    assert line["features"] == "eye:mean (partial: 15 of 16 rows)"
    shelf.embed()
    assert shelf.states() == {"ridge-eye": "out of date: rows"}
    with pytest.raises(InputError, match="out of date"):
        shelf.submission("ridge-eye")


def test_a_partial_audit_says_so_on_every_line(shelf: Shelf) -> None:
    half_embedded(shelf)
    found = run_audit(shelf.task, partial=True)
    assert all("partial: " in line["about"] for line in found.lines())
    assert found.record()["partial"].endswith(" of 37 rows")
    assert found.warnings[0].startswith("partial: ")
    with pytest.raises(InputError, match="assigned again along all images only"):
        run_audit(shelf.task, partial=True, apply=True)


def test_a_partial_export_says_so(shelf: Shelf, capsys: pytest.CaptureFixture) -> None:
    half_embedded(shelf)
    file = shelf.folder / "some.h5"
    words = ["cache", "export", str(shelf.task.file), "-o", str(file)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1 and not file.exists()
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "of 37 rows wait for embed" in said.err
    with pytest.raises(SystemExit) as ended:
        main([*words, "--partial"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert "partial: " in said.out and "partial: " in said.err
    assert shelf.export(partial=True)["status"].count("new") > 0
    shelf.embed()
    assert "new" not in shelf.export()["status"]


@pytest.mark.parametrize("command", ["probe", "audit"])
def test_people_see_that_a_table_is_partial(
    shelf: Shelf, command: str, capsys: pytest.CaptureFixture
) -> None:
    half_embedded(shelf)
    with pytest.raises(SystemExit):
        main([command, str(shelf.task.file), "--partial"])
    _, *lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if not line.startswith("recommended")]
    assert table and all("partial: " in line for line in table)
