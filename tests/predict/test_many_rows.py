"""Systems of fewer repeats than the folds have, as many rows get them, answer as all others do."""

import json

import numpy as np
from click.testing import CliRunner

from archiveprobe.cli import main
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict import systems
from archiveprobe.predict.systems import load_system
from archiveprobe.probe import run


def test_few_repeats_are_said_stored_and_answered(draw, monkeypatch) -> None:
    monkeypatch.setattr(run, "_ENOUGH_ANSWERS", 0)
    archive = draw()
    file = archive.folder / "task.toml"
    file.write_text(file.read_text().replace("repeats = 2\n", ""))
    words = ["probe", str(file), "--probe", "ridge", "--probe", "lda", "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    assert "72 labelled rows: probes use 2 of the 5 repeats of the folds" in done.stderr
    assert {"ridge-hog", "lda-hog", "greedy"} <= {
        line["system"] for line in json.loads(done.stdout)["leaderboard"]
    }
    assert load_run(archive.task, "greedy").predictions().fold.shape == (2, 72)
    dataset = load_dataset(archive.task)
    system = load_system(dataset, "greedy")
    answers = system.answer(dataset.unlabelled)
    assert system.agree(answers.proba, system.stored.test).all()
    out = str(archive.folder / "mistakes.csv")
    for words in (["leaderboard"], ["mistakes", "--system", "greedy", "-o", out]):
        found = CliRunner().invoke(main, [words[0], str(file), *words[1:]])
        assert found.exit_code == 0, found.stderr


def test_logits_of_half_precision_in_blocks_are_the_plain_product(draw) -> None:
    archive = draw(broken=(3,))
    run.run_probes(archive.task, run.Options(probes=("ridge",)))
    stored = load_run(archive.task, "ridge-hog")
    model = systems.model_of(stored.record, stored.arrays())
    x = np.random.default_rng(0).normal(size=(7000, 1, 6)).astype(np.float16)
    x[5] = np.nan
    arrays = stored.arrays()
    coef, intercept = (np.tensordot(arrays["weights"], arrays[name], 1) for name in
                       ("coef", "intercept"))  # fmt: skip
    found = systems.logits_of_matrix(model, systems.parse_choice("hog"), x, 2)
    np.testing.assert_allclose(found, x[:, 0].astype(np.float64) @ coef + intercept, atol=1e-12)
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [5]
