"""Networks of a fine-tuned system as backbones: `tuned:SYSTEM`, `tuned:SYSTEM/fold-0` and so on.

Embeddings of two networks lie in two spaces, and a network knows the labels of the rows that it was
trained on. So a probe that is to answer for fold K sees all rows, those it learns from and those of
the fold, as the network of fold K does, which was trained without that fold. The final network, of
all labelled rows, gives the embeddings that the final probe learns from and answers new rows by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.caches import whole_name
from archiveprobe.evaluate.dataset import Dataset, survey_dataset
from archiveprobe.evaluate.system_status import check_up_to_date, command_again
from archiveprobe.evaluate.system_store import Run, load_run
from archiveprobe.task.config import TUNED, Task


@dataclass(frozen=True)
class TunedNetwork:
    """A trained network of a system: its part, and the file of its weights with the SHA-256.

    `model` are the settings under [model] of its recipe, `made_of` says what it started from.
    """

    system: str
    part: str
    file: Path
    sha256: str
    model: Mapping[str, Any]
    made_of: Mapping[str, Any]

    @property
    def is_whole(self) -> bool:
        """Return whether the file holds the backbone in whole."""
        return self.model["unfreeze"] == "all" and self.model.get("lora_rank") is None

    def record(self) -> dict[str, str]:
        """Return what names it in a fingerprint."""
        return {"system": self.system, "part": self.part, "sha256": self.sha256}


@dataclass(frozen=True)
class TunedNetworks:
    """The networks of a system: that of all labelled rows, and one for every fold, in order."""

    final: TunedNetwork
    folds: Sequence[TunedNetwork]


def is_tuned(name: str) -> bool:
    """Return whether a backbone's name is that of fine-tuned networks."""
    return name.startswith(TUNED)


def fold_name(name: str, fold: int) -> str:
    """Return the name of the network that was trained without a fold."""
    return f"{name}/fold-{fold}"


def network_named(task: Task, name: str) -> TunedNetwork:
    """Return the network of a name: the final one, or that of a fold.

    Raises:
        InputError: no such system or fold, it cannot be used as a backbone, or it is damaged.
    """
    networks = _networks(task, load_run(task, _system(name)))
    _, slash, part = name.partition("/")
    if not slash:
        return networks.final
    for network in networks.folds:
        if network.part == part:
            return network
    raise InputError(
        f"{name}: {networks.final.system} has no {part!r}: use {whole_name(name)}, which names all "
        "of its networks"
    )


def names_of_networks(task: Task, name: str) -> list[str]:
    """Return the names of all backbones that a name stands for: more than one for `tuned:SYSTEM`.

    Raises:
        InputError: the system cannot be used as a backbone, or is out of date.
    """
    if not is_tuned(name) or name != whole_name(name):
        return [name]
    networks = current_networks(survey_dataset(task), name)
    return [name, *(fold_name(name, fold) for fold in range(len(networks.folds)))]


def current_networks(dataset: Dataset, name: str) -> TunedNetworks:
    """Return the networks of a system, which were trained on the folds as they are now.

    Raises:
        InputError: they were not, the name is that of a single network, or there is no such system.
    """
    if name != whole_name(name):
        raise InputError(
            f"{name} has been trained on rows of all other folds, so a figure on it would be too "
            f"good: use {whole_name(name)}, which gives every fold its own network"
        )
    run = load_run(dataset.task, _system(name))
    networks = _networks(dataset.task, run)
    check_up_to_date(run, dataset)
    if len(networks.folds) != dataset.folds:
        raise _again(dataset.task, run, f"has {len(networks.folds)} folds, not {dataset.folds}")
    return networks


def _system(name: str) -> str:
    return whole_name(name).removeprefix(TUNED)


def _networks(task: Task, run: Run) -> TunedNetworks:
    record = run.record
    if record.get("kind") != "finetune":
        raise InputError(
            f"{TUNED}{run.system}: {run.system} is no system of finetune: name one that is, see "
            f"`archiveprobe list systems {task.shell_path}`"
        )
    try:
        recipe = record["recipe"]
        model, made_of = dict(recipe["model"]), dict(record["made_of"])
        seeds = recipe.get("seeds", {"count": 1})
        finals, folds = (
            [
                TunedNetwork(
                    run.system,
                    str(entry["part"]),
                    network_file(task.work, str(entry["file"])),
                    str(entry["sha256"]),
                    model,
                    made_of,
                )
                for entry in record[key]
            ]
            for key in ("networks", "folds")
        )
    except (KeyError, TypeError, ValueError):
        raise _again(task, run, "was stored by another version") from None
    if model["unfreeze"] == "none":
        raise InputError(
            f"{run.system} left its backbone as it was: use {model['backbone']} itself"
        )
    if seeds["count"] > 1 and seeds["combine"] == "mean":
        raise InputError(
            f"{run.system} averages the probabilities of {seeds['count']} networks, whose "
            'embeddings lie in as many spaces: use a recipe with seeds.combine = "soup"'
        )
    if len(finals) != 1:
        full = f"{command_again(run, task)} --full"
        raise InputError(
            f"{run.system} has no network of all labelled rows, which new rows are embedded by: "
            f"run `{full}`"
        )
    return TunedNetworks(finals[0], folds)


def _again(task: Task, run: Run, why: str) -> InputError:
    return InputError(f"{run.system} {why}: run `{command_again(run, task)}`")


def network_file(work: Path, file: str) -> Path:
    """Return where a network lies that a record names.

    Raises:
        ValueError: it would lie outside the work folder.
    """
    if "\0" in file or ".." in Path(file).parts or Path(file).is_absolute():
        raise ValueError(f"{file!r} is no file of a network")
    return work / file
