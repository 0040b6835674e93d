"""How surely all were found, and how many there are: certify and estimate."""

from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.terminal import (
    command,
    json_option,
    load,
    print_result,
    say,
    task_argument,
)

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_NAME = click.option("--name", metavar="REVIEW", help="Review; default: the only one there is.")
_DRAW_ONLY = ("strata", "any_time")
_PLAN_ONLY = ("power", "prevalence", "images", "reviewed")
_WISHES = ("recall", "confidence", "expect_recall", "looks")


def _draw_options(function: Any) -> Any:
    """Add the options of a draw."""
    for option in (
        click.option(
            "--any-time", is_flag=True, help="Let the draw be looked at after every image."
        ),
        click.option(
            "--strata",
            is_flag=True,
            help="Draw more of the likelier images, in two strata of the score.",
        ),
        click.option(
            "--draw",
            type=click.IntRange(1),
            metavar="N",
            help="Draw N images that were not reviewed, and write them into the log.",
        ),
    ):
        function = option(function)
    return function


@command(
    "certify my/task.toml --plan",
    "certify my/task.toml --plan --images 3000000 --prevalence 0.01 --expect-recall 0.99",
    "certify my/task.toml --draw 2000",
    "certify my/task.toml",
)
@task_argument
@_NAME
@click.option("--plan", is_flag=True, help="Say how many images to draw, and end.")
@_draw_options
@click.option(
    "--looks", type=click.IntRange(1, 100), metavar="L", help="Looks at the draw; default: 1."
)
@click.option("--recall", type=_SHARE, help="Recall to certify; default: 0.95.")
@click.option("--confidence", type=_SHARE, help="Confidence of the certificate; default: 0.95.")
@click.option("--power", type=_SHARE, help="Chance that the plan succeeds; default: 0.9.")
@click.option(
    "--expect-recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="Recall that is expected; default: what the review suggests, else 0.98.",
)
@click.option("--prevalence", type=float, help="Share of positive images that is expected.")
@click.option("--images", type=click.IntRange(1), help="Images of an archive not yet reviewed.")
@click.option("--reviewed", type=click.IntRange(0), help="Images that will have been reviewed.")
@click.option(
    "--trust-reviewers", is_flag=True, help="Take answers as right; leave second looks out."
)
@json_option
def certify(task: Path, name: str | None, plan: bool, as_json: bool, **given: Any) -> None:
    """Certify how much of what is looked for a review has found.

    Plan a draw, draw images once reviewing has stopped, let people review them, and certify.
    """
    draw, trust_reviewers = given.pop("draw"), given.pop("trust_reviewers")
    chosen = _chosen(given)
    _check_modes(plan, draw, trust_reviewers, chosen)
    if plan:
        from archiveprobe.review.planning import PlanWish, plan_certificate

        if "expect_recall" in chosen:
            chosen["expected_recall"] = chosen.pop("expect_recall")
        planned = plan_certificate(load(task), name, PlanWish(**chosen))
        print_result(planned.record(), [], as_json, planned.sentence())
    elif draw is not None:
        _declare(task, name, draw, chosen, as_json, trust_reviewers=trust_reviewers)
    else:
        from archiveprobe.review.certifying import certify_review
        from archiveprobe.review.store import find_review

        done = certify_review(find_review(load(task), name), trust_reviewers=trust_reviewers)
        record = done.record()
        print_result(record, [], as_json, record["sentence"])


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; a number of 0 is one."""
    return {key: value for key, value in given.items() if value is not None and value is not False}


def _check_modes(
    plan: bool, draw: int | None, trust_reviewers: bool, chosen: dict[str, Any]
) -> None:
    """Refuse options that do not go together. Raises click.UsageError."""
    if plan and draw is not None:
        raise click.UsageError("--plan and --draw exclude each other")
    mode = "plan" if plan else "certificate" if draw is None else "draw"
    allowed = {"plan": (*_PLAN_ONLY, *_WISHES), "draw": (*_DRAW_ONLY, *_WISHES), "certificate": ()}
    for option in chosen:
        if option not in allowed[mode]:
            written = f"--{option.replace('_', '-')}"
            needs = [f"--{key}" for key, options in allowed.items() if option in options]
            raise click.UsageError(f"{written} needs {' or '.join(needs)}")
    if trust_reviewers and plan:
        raise click.UsageError("--plan knows of no reviewers: leave --trust-reviewers out")
    if "any_time" in chosen and {"looks", "strata"} & set(chosen):
        raise click.UsageError("--any-time goes with neither --looks nor --strata")


def _declare(
    task: Path,
    name: str | None,
    draw: int,
    chosen: dict[str, Any],
    as_json: bool,
    *,
    trust_reviewers: bool,
    then: str = "certify",
) -> None:
    """Declare a draw, and say how to go on."""
    from archiveprobe.base.wording import number_of
    from archiveprobe.review.drawing import DrawWish, declare
    from archiveprobe.review.store import find_review

    wish = DrawWish(draw, **chosen)
    review = find_review(load(task), name)
    line = declare(review, wish, trust_reviewers=trust_reviewers)
    content = line.content
    record = {"line": line.number, "draw_sha256": line.digest, **content}
    strata = " and ".join(f"{each['drawn']} of {each['size']}" for each in content["strata"])
    said = (
        f"drawn: {number_of(len(content['images']), 'image')} ({strata} not reviewed; line "
        f"{line.number} of the log, seed {content['seed']}): `archiveprobe review {review.named} "
        f"--draw` shows them, then `archiveprobe {then} {review.named}`"
    )
    print_result(record, [], as_json, said)


@command(
    "estimate my/task.toml --draw 500",
    "estimate my/task.toml",
)
@task_argument
@_NAME
@_draw_options
@click.option("--confidence", type=_SHARE, help="Confidence of the interval; default: 0.95.")
@json_option
def estimate(
    task: Path,
    name: str | None,
    draw: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Estimate how many images are positive, from scores and a random draw.

    What the review found counts as known. Beside the estimate stands what the threshold and the
    draw alone would have said.
    """
    chosen = _chosen(given)
    if draw is not None:
        # An estimate knows nothing of second looks.
        _declare(task, name, draw, chosen, as_json, trust_reviewers=True, then="estimate")
        return
    if chosen:
        raise click.UsageError(f"--{next(iter(chosen)).replace('_', '-')} needs --draw")
    from archiveprobe.review.estimating import estimate_share
    from archiveprobe.review.store import find_review

    done = estimate_share(find_review(load(task), name))
    say(f"this holds if {'; '.join(done.about['assumes'])}")
    print_result(done.record(), done.lines(), as_json)
