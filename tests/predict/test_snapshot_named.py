"""Whatever is computed names the one state that it was computed from."""

import json
from pathlib import Path

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.images import predict
from archiveprobe.predict.submission import submit
from archiveprobe.probe.audit.run import run_audit


def test_every_record_names_the_snapshot(archive, tmp_path: Path) -> None:
    task = archive.task
    digest = load_dataset(task).snapshot_digest
    named = {name: load_run(task, name).record["snapshot"]["digest"] for name in systems(task)}
    assert set(named.values()) == {digest} and len(named) > 3
    assert submit(task, "mean", tmp_path / "s.csv").record()["snapshot"] == digest
    assert predict(task, "mean", tmp_path / "p.csv").record()["snapshot"] == digest
    assert run_audit(task).record()["snapshot"] == digest
    assert json.loads((task.work / "audit" / "audit.json").read_text())["snapshot"] == digest


def test_another_label_is_another_snapshot(archive) -> None:
    before = load_dataset(archive.task).snapshot_digest
    archive.truth[0] = "destroyed"
    archive._write_table()
    assert load_dataset(archive.task).snapshot_digest != before
