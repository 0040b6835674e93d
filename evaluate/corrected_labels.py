"""What corrections of labels did to the figures: the same answers, held against both labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.leaderboard import Leaderboard, leaderboard
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions


@dataclass(frozen=True)
class LabelComparison:
    """Macro-F1 of one system's nested decisions against both labels, on the same rows.

    `rows` have a label in the table and a corrected one, which differ in `changed` of them;
    `left_out` is how many have the corrected one only.
    """

    system: str
    macro_f1: float
    macro_f1_table: float
    rows: int
    changed: int
    left_out: int

    def sentence(self) -> str:
        """Say what the corrections did."""
        rows = number_of(self.left_out, "row")
        also = f"; {rows} that only a correction labels left out here" if self.left_out else ""
        return (
            f"corrections changed {self.changed} of {number_of(self.rows, 'label')}: {self.system} "
            f"scores {self.macro_f1:.3f} with them, {self.macro_f1_table:.3f} against the labels "
            f"of the table (same answers{also})"
        )


def compare_labels(dataset: Dataset, system: Predictions) -> LabelComparison | None:
    """Score a system's decisions against the table's labels; None where the table has no label."""
    both = dataset.table_labels >= 0
    if not both.any():
        return None
    table, k = dataset.table_labels[both], len(system.classes)
    decision, labels = system.decision[:, both], system.labels[both]
    return LabelComparison(
        system.system,
        macro_f1(labels, decision, k),
        macro_f1(table, decision, k),
        int(both.sum()),
        int((table != labels).sum()),
        int((~both).sum()),
    )


def leaderboard_of(
    dataset: Dataset,
    systems: Sequence[Predictions],
    *,
    seconds: float,
    warnings: Sequence[str] = (),
    caution: float = 1.0,
) -> Leaderboard:
    """Rank systems of a dataset, and say what was corrected and what that did to the figures.

    Compared is the recommended system, or the first where none is recommended.

    Raises:
        InputError: see `leaderboard`.
    """
    digest = dataset.snapshot_digest
    board = leaderboard(
        systems, seconds=seconds, warnings=warnings, caution=caution, snapshot=digest
    )
    if dataset.partial is not None:
        # Systems that were stored before rows came which wait for embed do not know of them.
        selection = board.selection and replace(board.selection, features=dataset.partial)
        board = replace(board, selection=selection, partial=dataset.partial)
    said, record = dataset.corrections.remarks(), dataset.corrections.record()
    if record is None:
        return replace(board, warnings=[*said, *board.warnings])
    name = board.best or board.lines[0].system
    found = compare_labels(dataset, next(one for one in systems if one.system == name))
    if found is not None and (found.changed or found.left_out):
        said.append(found.sentence())
    in_table = None if found is None else found.macro_f1_table
    corrections = {**record, "macro_f1_table": in_table}
    return replace(board, corrections=corrections, warnings=[*said, *board.warnings])
