"""`review`: open the queue, and do what is asked of it; say how far a review is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.review.correcting import correct_task, write_decided
from archiveprobe.review.decisions import DRAW, QUEUE, SETTLE, TWICE
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.reviewing import Reviewing
from archiveprobe.review.serve import serve_review
from archiveprobe.review.sheet import export_sheet, import_sheet
from archiveprobe.review.state import ReviewState
from archiveprobe.review.store import Wish, open_review
from archiveprobe.task.config import Task


@dataclass(frozen=True)
class Done:
    """What an action came to: the form of `--json`, a sentence, and lines of a table for people."""

    record: dict[str, Any]
    summary: str
    lines: list[dict[str, Any]]


def open_queue(
    task: Task,
    wish: Wish,
    *,
    uncertain: float = 0.0,
    draw: bool = False,
    begin: bool = True,
    check: bool = True,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Queue:
    """Open a review, begun where it is new, and its queue.

    Raises:
        InputError: see `open_review`; or a draw is asked for and none was declared.
    """
    review = open_review(
        task, wish, begin=begin and not draw, check=check, notify=notify, progress=progress
    )
    if draw and review.state.open_draw is None:
        raise InputError(
            f"no draw of the review {review.name} is declared: stop reviewing (--stop), then run "
            f"`archiveprobe certify {review.named} --draw N`"
        )
    return Queue(review, uncertain=uncertain)


def serve(
    queue: Queue,
    reviewer: str,
    *,
    refit: int | None = None,
    port: int | None = None,
    language: str = "en",
    progress: Progress = silent,
    show: Callable[[str], object],
    notify: Notify,
) -> None:
    """Show the queue on a page until interrupted; with `refit`, the probe learns as it grows.

    Raises:
        InputError: see `Refits` and `serve_review`.
    """
    refits = None
    if refit is not None:
        refits = Refits(queue, refit, notify=notify, progress=progress)
        refits.run_if_due()
    with queue.review.log.locked():
        queue.sync()
    state, left = queue.review.state, number_of(queue.looks_left(), "look")
    notify(f"review {queue.review.name} to find {state.positive}: {_stage(state)}, {left} left")
    serve_review(
        queue,
        refits=refits,
        reviewer=reviewer,
        port=port or 0,
        language=language,
        show=show,
        notify=notify,
    )


def export(
    queue: Queue, reviewer: str, file: Path, top: int | None, *, settle: bool = False
) -> Done:
    """Write the queue as a table. Raises InputError."""
    sheet = export_sheet(queue, reviewer, file, most=top, settle=settle)
    looks, images = number_of(sheet.rows, "look"), number_of(sheet.images, "image")
    label = queue.review.state.positive
    said = f"{looks} at {images} to find {label}, in {sheet.file}: fill in `answer`"
    return Done(sheet.record(), said, [])


def take_in(queue: Queue, reviewer: str, file: Path, notify: Notify, *, replace: bool) -> Done:
    """Record the answers of a table. Raises InputError."""
    sheet = import_sheet(queue, file, reviewer=reviewer, replace=replace, notify=notify)
    known = f", {sheet.known} were recorded before" if sheet.known else ""
    said = f"{number_of(sheet.images, 'image')} decided by {sheet.file}{known}"
    return Done(sheet.record(), said, [])


def undo(queue: Queue, reviewer: str, name: str) -> Done:
    """Take back what a reviewer has decided last of an image. Raises InputError."""
    image, id_ = queue.review.find_image(name)
    reviewing, state = Reviewing(queue, reviewer), queue.review.state
    mine = [
        part
        for part in (SETTLE, TWICE, DRAW, QUEUE)
        if (before := state.parts[part].get(image)) is not None
        and before.reviewer == reviewing.reviewer
        and (part != DRAW or image in state.drawn)
    ]
    withdrawn = reviewing.undo(image, mine[0] if mine else QUEUE)
    said = f"taken back: {number_of(len(withdrawn), 'answer')} of {reviewing.reviewer} to {id_}"
    return Done({"image": image, "withdrawn": len(withdrawn)}, said, [])


def correct(queue: Queue, notify: Notify) -> Done:
    """Record the answers as corrections of the task, and say what they do. Raises InputError."""
    with queue.review.log.locked():
        queue.sync()
        used = correct_task(queue.review)
    for remark in read_state(queue.review.task).corrections.remarks():
        notify(remark)
    return Done(used.record(), used.summary(), [])


def write_answers(queue: Queue, file: Path) -> Done:
    """Write the answers that count as a table. Raises InputError."""
    with queue.review.log.locked():
        queue.sync()
        used = write_decided(queue.review, file)
    return Done(used.record(), used.summary(), [])


def stop(queue: Queue, reviewer: str) -> Done:
    """Declare that reviewing ends. Raises InputError."""
    said = Reviewing(queue, reviewer).stop()
    return Done(status(queue).record, said, [])


def resume(queue: Queue, reviewer: str) -> Done:
    """Go on with a review that was stopped. Raises InputError."""
    said = Reviewing(queue, reviewer).resume()
    return Done(status(queue).record, said, [])


def status(queue: Queue) -> Done:
    """Say how far a review is, who decided what, and how two reviewers agree.

    Raises:
        InputError: the log was edited.
    """
    with queue.review.log.locked():
        queue.sync()
        state = queue.review.state
        record = {
            "review": queue.review.name,
            "label": state.positive,
            "stage": _stage(state),
            "images": state.opened["images"],
            "reviewed": len(state.reviewed),
            "found": len(state.found),
            "looks_left": queue.looks_left(),
            "drawn": len(state.drawn),
            "drawn_reviewed": len(state.drawn & state.parts[DRAW].keys()),
            "twice": len(state.pairs()),
            "twice_left": queue.twice_left(),
            "disputed": len(state.disputed()),
            "kappa": state.kappa(),
            "reviewers": state.reviewers(),
            "log": queue.review.log.head,
        }
    lines = [
        {"what": name, "value": _shown(value)}
        for name, value in record.items()
        if name != "reviewers"
    ]
    for each in state.reviewers():
        decisions = number_of(each["decisions"], "decision")
        said = f"{decisions}, {each['shown_unblurred']} shown unblurred"
        lines.append({"what": f"reviewer {each['reviewer']}", "value": said})
    return Done(record, "", lines)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _stage(state: ReviewState) -> str:
    if state.open_draw is not None:
        left = len(state.drawn - state.parts[DRAW].keys())
        return "a random draw is looked at" if left else "a random draw was looked at: certify"
    return "stopped" if state.is_stopped else "open"
