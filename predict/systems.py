"""Stored systems, ready to answer: reloaded, and held against what they were trained on."""

from functools import partial

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.calibration import Calibration
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.system_status import check_up_to_date
from archiveprobe.evaluate.system_store import Run, load_run
from archiveprobe.predict.ensembles import ensemble_source
from archiveprobe.predict.probes import probe_source
from archiveprobe.predict.system import Means, Source, System, making
from archiveprobe.predict.tuned import tuned_source


def load_system(dataset: Dataset, name: str, means: Means | None = None) -> System:
    """Reload a system by name, with all its members if it is an ensemble.

    Raises:
        InputError: no such system, a damaged or foreign one, or one that is out of date.
    """
    return _load(dataset, (), means or Means(), name)


def _load(dataset: Dataset, above: tuple[str, ...], means: Means, name: str) -> System:
    run = load_run(dataset.task, name)
    _check(run, dataset)
    try:
        calibration = Calibration(**run.record["calibration"])
        source = _source(dataset, run, above, means)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(
            f"{run.folder} holds no system of this version ({reason}): run that system again"
        ) from None
    kind, stored = str(run.record["kind"]), run.predictions()
    return System(dataset.task, name, kind, stored, dataset.unreadable, calibration, source)


def _source(dataset: Dataset, run: Run, above: tuple[str, ...], means: Means) -> Source:
    kind = run.record["kind"]
    if kind == "probe":
        return probe_source(dataset.task, run)
    if kind == "finetune":
        return tuned_source(dataset, run, means)
    if kind == "ensemble" and run.system not in above:
        member = partial(_load, dataset, (*above, run.system), means)
        return ensemble_source(dataset.task, run, member)
    raise ValueError(f"a system of the kind {kind!r} is unknown")


def _check(run: Run, dataset: Dataset) -> None:
    task, record = dataset.task, run.record
    again = f"run `archiveprobe {making(task, str(record.get('kind')), run.system)}` again"
    if record.get("system") != run.system:
        raise InputError(
            f"{run.folder} holds the system {record.get('system')!r}: give the folder that name, "
            "or run that system again"
        )
    if record.get("task") != task.name:
        raise InputError(
            f"{run.folder} was trained for the task {record.get('task')!r}, not {task.name!r}: "
            f"move it away and {again}"
        )
    if record.get("kind") == "ensemble":
        again = f"run `archiveprobe ensemble {task.file} --method {record.get('method')}` again"
    check_up_to_date(run, dataset, again)
