"""From a review to a certificate and an estimate, from the command line."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from reviewed import POSITIVE, begin, copy_of, review_all, truth

from archiveprobe.cli import main
from archiveprobe.review.decisions import DRAW, Decision
from archiveprobe.review.drawing import draw_images
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task


def run(*words: object) -> str:
    """Run a command; return its stdout."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def read(*words: object) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run(*words, "--json"))
    return record


def fault(*words: object) -> str:
    """Run a command that is refused; return the one line that says why."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 1 and not done.stdout, done.stdout
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    return done.stderr


def stopped(task: Task, looks: int = 8, **wish: object) -> None:
    """Review so many looks, and stop."""
    queue = Queue(begin(task, **wish))
    review_all(queue, "Ann", most=looks)
    Reviewing(queue, "Ann").stop()


def review_draw(task: Task, most: int = 1000, answer: Any = truth) -> None:
    """Review the images drawn, at most so many."""
    review_all(Queue(find_review(task)), "Ben", answer, most)


@pytest.mark.proves("certificate")
@pytest.mark.usefixtures("known_seed")
def test_from_a_stop_to_a_certificate(task: Task) -> None:
    stopped(task)
    # All that was seen is positive, so most of the rest is expected to be.
    refused = fault("certify", task.file, "--plan", "--recall", "0.5")
    assert "review more first" in refused and "--expect-recall says otherwise" in refused
    words = ("--plan", "--recall", "0.5", "--power", "0.5", "--expect-recall", "0.9")
    planned = read("certify", task.file, *words)
    assert 0 < planned["draw"] <= planned["unseen"]
    drawn = read("certify", task.file, "--draw", "10")
    assert len(set(drawn["images"])) == 10
    assert "is not finished: 0 of 10 images" in fault("certify", task.file)
    review_draw(task, 9)
    assert "is not finished: 9 of 10 images" in fault("certify", task.file)
    review_draw(task)
    sentence = run("certify", task.file)
    record = read("certify", task.file)
    assert sentence.strip() == record["sentence"]
    state = find_review(task).state
    found = len(state.found)
    positive = sum(each.answer == POSITIVE for each in state.parts[DRAW].values())
    assert (record["found"], record["positive"], record["drawn"]) == (found, positive, 10)
    assert record["unseen"] == state.opened["images"] - len(state.reviewed)
    assert record["recall_at_least"] == found / (found + record["missed_at_most"])
    every = [truth(name) for name in _names(task)]
    assert record["recall_at_least"] <= found / every.count(POSITIVE)
    assert record["seed"] == drawn["seed"]
    assert record["snapshot"] == state.opened["snapshot"]
    assert "the reviewers are right" in record["sentence"]
    by_group = any(each.shown == "group" for each in state.reviewed.values())
    assert ("near-duplicates decided at one look" in record["sentence"]) == by_group
    groups = sum(each.shown == "group" for each in state.reviewed.values())
    assert record["decided_by_group"] == groups
    assert (f"not looked at by anybody: {groups} image" in record["sentence"]) == by_group
    assert {each["reviewer"]: each["decisions"] for each in record["reviewers"]}["Ben"] == 10
    assert record["log"] == find_review(task).log.head
    # The same certificate again is no further line.
    assert [line.kind for line in find_review(task).log.lines].count("certificate") == 1


def _names(task: Task) -> list[str]:
    population = find_review(task).population
    return [population.name(at) for at in range(len(population))]


def test_nobody_can_know_what_will_be_drawn(task: Task) -> None:
    stopped(task)
    review = find_review(task)
    assert "seed" not in review.state.stops[-1].content
    queue, seeds = Queue(review), []
    for _ in range(2):
        seeds.append(read("certify", task.file, "--draw", "5")["seed"])
        review_draw(task)
        Reviewing(queue, "Ann").resume()
        Reviewing(queue, "Ann").stop()
    assert seeds[0] != seeds[1]


def test_the_draw_follows_from_its_seed(task: Task) -> None:
    stopped(task)
    drawn = read("certify", task.file, "--draw", "5")
    review = find_review(task)
    unseen = [
        review.population.digest(at)
        for at in range(len(review.population))
        if review.population.digest(at) not in review.state.reviewed
    ]
    ranked = sorted(unseen, key=lambda each: sha256(f"{drawn['seed']}:{each}".encode()).digest())
    assert drawn["images"] == ranked[:5]


def test_all_that_is_not_reviewed_can_be_drawn(task: Task) -> None:
    stopped(task, 20)
    unseen = find_review(task).state.stops[-1].content["unseen"]
    run("certify", task.file, "--draw", unseen)
    review_draw(task)
    record = read("certify", task.file)
    assert record["missed_at_most"] == record["positive"]


def test_everything_reviewed_needs_no_draw(task: Task) -> None:
    stopped(task, 1000)
    record = read("certify", task.file)
    assert (record["unseen"], record["recall_at_least"]) == (0, 1.0)
    # Nothing is left to chance, so nothing is said of it.
    assert "confidence" not in record["sentence"] and "random" not in record["sentence"]
    shares = read("estimate", task.file)
    found, images = shares["found"], shares["images"]
    assert shares["low"] == shares["estimate"] == shares["high"] == found / images


def test_an_early_look_says_that_more_was_drawn(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "10", "--looks", "2")
    review_draw(task, 7)
    sentence = read("certify", task.file)["sentence"]
    assert "5 were drawn" in sentence and "10 images were drawn; that these first 5" in sentence
    review_draw(task)
    assert "that these first" not in read("certify", task.file)["sentence"]


def test_answers_that_were_taken_back_are_said(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "5")
    review_draw(task, answer=lambda name: POSITIVE)
    assert "taken back" not in read("certify", task.file)["sentence"]
    queue = Queue(find_review(task))
    image = queue.review.state.open_draw.content["images"][0]
    Reviewing(queue, "Ben").undo(image, DRAW)
    review_draw(task, answer=lambda name: "bright")
    record = read("certify", task.file)
    assert "Answers to images drawn were taken back: 1 time." in record["sentence"]
    assert (record["withdrawn"], record["positive"]) == (1, 4)


def test_images_with_other_bytes_are_named(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "5")
    review_draw(task)
    population = (review := find_review(task)).population
    drawn = review.state.open_draw.content["images"]
    name = population.name(int(population.places(drawn[:1])[0]))
    file = task.root / name
    before = file.read_bytes()
    file.write_bytes(copy_of(98))
    for words in (("certify", task.file), ("estimate", task.file)):
        assert f"{name} has other bytes than were answered" in fault(*words)
    file.write_bytes(before)
    assert read("certify", task.file)["compared"] == 5
    # A laptop may have the task without its images.
    task.root.rename(task.root.with_name("elsewhere"))
    record = read("certify", task.file)
    assert record["compared"] == 0 and "bytes were not compared" in record["sentence"]


def test_nothing_found_cannot_be_planned_for(task: Task) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", lambda name: "bright", 3)
    Reviewing(queue, "Ann").stop()
    assert "where nothing was found: review more" in fault("certify", task.file, "--plan")


def test_nothing_found_certifies_nothing(task: Task) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", lambda name: "bright", 3)
    Reviewing(queue, "Ann").stop()
    run("certify", task.file, "--draw", "5")
    review_draw(task)
    record = read("certify", task.file)
    assert (record["found"], record["recall_at_least"]) == (0, 0.0)
    assert "at least 0.00 %" in record["sentence"]


def test_no_positive_in_the_draw_still_bounds_what_is_missed(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "10")
    review_draw(task, answer=lambda name: "bright")
    record = read("certify", task.file)
    assert record["positive"] == 0 < record["missed_at_most"]


def test_unsure_answers_count_on_the_safe_side(task: Task) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", lambda name: "unsure", 1)
    review_all(queue, "Ann", most=7)
    Reviewing(queue, "Ann").stop()
    run("certify", task.file, "--draw", "10")
    review_draw(task, answer=lambda name: "unsure")
    record = read("certify", task.file)
    assert record["undecided"] >= 1
    assert record["positive"] == 10
    assert "had no certain answer" in record["sentence"]


def test_strata_looks_and_sequences_are_declared_with_the_draw(task: Task) -> None:
    stopped(task)
    drawn = read("certify", task.file, "--draw", "12", "--strata", "--looks", "2")
    assert sum(each["drawn"] for each in drawn["strata"]) == 12
    review_draw(task, 6)
    first = read("certify", task.file)
    assert (first["drawn"], first["looks"], len(first["strata"])) == (6, 2, len(drawn["strata"]))
    review_draw(task)
    assert read("certify", task.file)["drawn"] == 12


def test_a_sequence_may_be_looked_at_after_every_image(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "12", "--any-time")
    for count in (1, 2, 12):
        review_draw(task, count - len(find_review(task).state.parts[DRAW]))
        record = read("certify", task.file)
        assert record["drawn"] == count
        assert record["method"].startswith("confidence sequence")


@pytest.mark.proves("certificate")
def test_a_draw_that_was_looked_at_too_early_is_refused(task: Task) -> None:
    stopped(task)
    review = find_review(task)
    image = next(
        review.population.digest(at)
        for at in range(len(review.population))
        if review.population.digest(at) not in review.state.reviewed
    )
    Reviewing(Queue(review), "Ben").show([image])
    unseen = review.state.stops[-1].content["unseen"]
    said = fault("certify", task.file, "--draw", unseen)
    assert f"{image} was looked at (line" in said and "before the draw was declared" in said
    assert not find_review(task).state.draws


@pytest.mark.proves("certificate")
def test_reviewing_that_goes_on_is_refused(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "5")
    review_draw(task)
    review = find_review(task)
    other = next(
        review.population.digest(at)
        for at in range(len(review.population))
        if review.population.digest(at) not in {*review.state.reviewed, *review.state.drawn}
    )
    review.file.append([Decision(other, POSITIVE, "Ann")])
    assert "reviewing went on after it had stopped in line" in fault("certify", task.file)


def test_going_on_needs_a_new_stop_and_draw_and_spends_confidence(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "5")
    assert "one stop has one draw" in fault("certify", task.file, "--draw", "5")
    review_draw(task)
    run("certify", task.file)
    queue = Queue(find_review(task))
    reviewing = Reviewing(queue, "Ann")
    reviewing.resume()
    assert "has not stopped" in fault("certify", task.file)
    reviewing.stop()
    assert "nothing was drawn since" in fault("certify", task.file)
    before = set(queue.review.state.draws[-1].content["images"])
    drawn = read("certify", task.file, "--draw", "5")
    assert not before & set(drawn["images"])
    review_draw(task)
    record = read("certify", task.file)
    assert record["confidence_of_all_draws"] == pytest.approx(0.9)
    assert "draw 2 of this review" in record["sentence"]


def test_a_source_that_changed_is_named(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "5")
    review_draw(task)
    (task.folder / "images" / "new.png").write_bytes(copy_of(99))
    with (task.folder / "labels.csv").open("a") as table:
        table.write("\nnew.png,")
    run("embed", task.file)
    for words in (("certify", task.file), ("estimate", task.file)):
        assert f"the rows to predict of {task.file} have changed" in fault(*words)


@pytest.mark.proves("certificate")
@pytest.mark.usefixtures("known_seed")
def test_an_edited_log_is_named(task: Task) -> None:
    stopped(task)
    run("certify", task.file, "--draw", "5")
    review_draw(task)
    file = find_review(task).log.file
    file.write_bytes(file.read_bytes().replace(b'"bright"', b'"darker"', 1))
    assert f"{file}: line " in (said := fault("certify", task.file)) and "was changed" in said


def test_a_draw_that_its_seed_does_not_give_is_refused(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(task)

    def draw_others(review: Any, seed: str, *rest: Any) -> Any:
        return draw_images(review, seed + "0", *rest)

    with monkeypatch.context() as patch:
        patch.setattr("archiveprobe.review.drawing.draw_images", draw_others)
        run("certify", task.file, "--draw", "5")
    review_draw(task)
    assert "is not what its seed gives" in fault("certify", task.file)


@pytest.mark.usefixtures("known_seed")
def test_reviewers_errors_enter_through_second_looks(task: Task) -> None:
    queue = Queue(begin(task, twice=0.5))
    review_all(queue, "Ann", most=12)
    Reviewing(queue, "Ann").stop()
    assert "wait for a second reviewer" in fault("certify", task.file, "--draw", "5")
    # Ann leaves: her last image is leased to nobody any more.
    queue.next("Ann", 0)
    review_all(queue, "Ben", lambda name: "bright")
    run("certify", task.file, "--draw", "5")
    assert "nobody has settled" in fault("certify", task.file)
    settle = Reviewing(queue := Queue(find_review(task)), "Cleo")
    population = queue.review.population
    for image in queue.review.state.disputed():
        name = population.name(int(population.places([image])[0]))
        settle.decide([Given(image, truth(name), settles=True)])
    review_draw(task)
    record, trusted = (read("certify", task.file, *more) for more in ((), ("--trust-reviewers",)))
    assert record["double_review"]["hits"] > 0 and trusted["double_review"] is None
    assert record["recall_at_least"] < trusted["recall_at_least"]
    assert record["kappa"] is None or record["kappa"] < 1
    # Ben called bright what was destroyed, and Cleo settled it: so it stays found.
    assert trusted["found"] == record["found"] == read("estimate", task.file)["found"]
    assert "settled answers are right" in record["sentence"]


def test_plans_of_an_archive_that_nobody_reviewed_yet(task: Task) -> None:
    words = "--plan --images 3000000 --prevalence 0.01 --expect-recall 0.99".split()
    planned = read("certify", task.file, *words)
    assert (planned["found"], planned["missed"], planned["unseen"]) == (29_700, 300, 2_970_300)
    assert planned["draw"] == 14_701 and planned["positive_at_most"] == 3
    assert "Draw 14701 of the 2970300 images" in run("certify", task.file, *words)
    hundred = ("certify", task.file, "--plan", "--images", "100", "--prevalence")
    assert "expected prevalence nan" in fault(*hundred, "nan")
    assert "1000 of 100 images cannot have been" in fault(*hundred, "0.1", "--reviewed", "1000")
    refused = fault(*hundred, "0")
    assert "expected prevalence 0.0" in refused
    assert "--images needs --prevalence" in fault("certify", task.file, "--plan", "--images", "9")
    low = fault("certify", task.file, *words[:-1], "0.9")
    assert "no draw can certify recall 0.95 where recall 0.9 is expected" in low


def test_a_plan_expects_what_the_answers_suggest(task: Task) -> None:
    stopped(task, 18)
    suggested = read("certify", task.file, "--plan", "--recall", "0.5")
    assert suggested["found"] == len(find_review(task).state.found)
    told = read("certify", task.file, "--plan", "--recall", "0.5", "--expect-recall", "1")
    assert told["missed"] == 0 and told["draw"] <= suggested["draw"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--plan --draw 5", "--plan and --draw exclude each other"),
        ("--recall 0.9", "--recall needs --plan or --draw"),
        ("--draw 5 --power 0.9", "--power needs --plan"),
        ("--draw 5 --any-time --looks 2", "--any-time goes with neither"),
        ("--plan --trust-reviewers", "--plan knows of no reviewers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(task: Task, words: str, said: str) -> None:
    done = CliRunner().invoke(main, ["certify", str(task.file), *words.split()])
    assert done.exit_code == 2 and said in done.stderr


def test_too_large_a_draw_and_no_review_are_refused(task: Task) -> None:
    assert "no review in" in fault("certify", task.file, "--draw", "5")
    stopped(task)
    assert "cannot draw 500 of" in fault("certify", task.file, "--draw", "500")


@pytest.mark.usefixtures("known_seed")
def test_an_estimate_from_scores_and_a_draw(task: Task) -> None:
    stopped(task, 4)
    assert "nothing was drawn" in fault("estimate", task.file)
    run("estimate", task.file, "--draw", "20")
    assert "is not finished" in fault("estimate", task.file)
    review_draw(task)
    record = read("estimate", task.file)
    names = _names(task)
    share = [truth(name) for name in names].count(POSITIVE) / len(names)
    assert record["low"] <= share <= record["high"]
    assert record["images"] == len(names) and record["threshold_alone"] is not None
    assert record["sample_alone"]["low"] <= share <= record["sample_alone"]["high"]
    shown = run("estimate", task.file)
    assert "the threshold alone" in shown and "the sample alone" in shown
    assert find_review(task).log.lines[-1].kind == "estimate"


@pytest.mark.usefixtures("known_seed")
def test_an_estimate_in_strata_without_any_review(task: Task) -> None:
    stopped(task, 0)
    run("estimate", task.file, "--draw", "24", "--strata")
    review_draw(task, answer=lambda name: "unsure" if name == "21.png" else truth(name))
    record = read("estimate", task.file)
    assert record["reviewed"] == 0 and record["low"] < record["estimate"] < record["high"]
    assert record["sample_alone"] is None
    assert (
        "needs --draw" in CliRunner().invoke(main, ["estimate", str(task.file), "--strata"]).stderr
    )


def test_an_empty_folder_has_nothing_to_certify(tmp_path: Path) -> None:
    assert "task.toml" in fault("certify", tmp_path / "task.toml", "--plan")
