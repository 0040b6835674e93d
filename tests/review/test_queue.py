"""The queue: its order, groups, several reviewers, images shown twice, stopping, draws."""

from itertools import pairwise

import numpy as np
import pytest
from reviewed import COPIES, OPEN, begin, digest_of_image, review_all, truth

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.predict.images import answer_images
from archiveprobe.review.decisions import DRAW, UNSURE
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.state import is_shown_twice
from archiveprobe.review.store import Review, Wish, find_review, open_review
from archiveprobe.task.config import Task

ALL, FORTY = OPEN + COPIES, digest_of_image("40.png")
NAMES = [*(f"{at:02}.png" for at in range(20, 50)), *(f"copy-{at:02}.png" for at in range(20, 26))]


def test_the_likeliest_comes_first_and_one_look_decides_a_group(task: Task) -> None:
    review = begin(task)
    assert review.state.opened["images"] == ALL
    assert review.state.opened["outside"] == 1
    queue = Queue(review)
    items = queue.next("Ann", 100)
    assert len(items) == OPEN
    assert sum(item.images for item in items) == ALL
    assert [item.position for item in items] == list(range(1, OPEN + 1))
    scores = [item.score or 0.0 for item in items]
    assert all(first >= second for first, second in pairwise(scores))
    answers = answer_images(load_dataset(task), "ridge-hog")
    of_system = {e.id: p[1] for e, p in zip(answers.entries, answers.proba, strict=True)}
    assert [of_system[item.id] for item in items] == pytest.approx(scores)

    pair = next(item for item in items if item.images == 2)
    decided = Reviewing(queue, "Ann").decide([Given(pair.image, "dark", "unblurred")])
    assert [each.shown for each in decided] == ["unblurred", "group"]
    assert {each.id[-6:] for each in decided} == {pair.id[-6:]}
    assert [item.image for item in queue.next("Ann", 100)] == [
        item.image for item in items if item is not pair
    ]


def test_without_likeness_only_equal_files_are_one(task: Task) -> None:
    assert len(Queue(begin(task, similarity=1.0)).next("Ann", 100)) == ALL


def test_the_least_certain_are_mixed_in(task: Task) -> None:
    review = begin(task)
    population = review.population
    items = Queue(review, uncertain=0.5).next("Ann", 100)
    assert len({item.image for item in items}) == OPEN
    margins = population.margins[population.places([item.image for item in items])]
    assert margins[1] == population.margins.min()
    assert items[0].position == 1
    rest = [item for item in items if item.image != items[1].image]
    assert margins[3] == min(population.margins[population.places([i.image for i in rest[1:]])])


@pytest.mark.proves("review")
def test_two_reviewers_are_not_shown_the_same_images(task: Task) -> None:
    queues = Queue(begin(task)), Queue(find_review(task))
    ann, bob = queues[0].next("Ann", 10), queues[1].next("Bob", 10)
    assert not {item.image for item in ann} & {item.image for item in bob}
    Reviewing(queues[0], "Ann").decide([Given(ann[0].image, "dark")])
    with pytest.raises(InputError, match=r"was decided by Ann already \(dark\)"):
        Reviewing(queues[1], "Bob").decide([Given(ann[0].image, "bright")])
    shown = [*review_all(queues[1], "Bob"), *review_all(queues[0], "Ann")]
    assert len(shown) == len(set(shown)) == OPEN - 1
    state = find_review(task).state
    assert len(state.reviewed) == ALL
    first = state.reviewed[ann[0].image]
    assert all(truth(each.id) == each.answer or each.group == first.group
               for each in state.reviewed.values())  # fmt: skip


def test_a_share_is_shown_twice_image_by_image(task: Task) -> None:
    review = begin(task, twice=0.4)
    seed = review.state.opened["seed"]
    chosen = {name for name in NAMES if is_shown_twice(seed, digest_of_image(name), 0.4)}
    queue = Queue(review)
    assert len(review_all(queue, "Ann")) == OPEN
    assert queue.twice_left() == len(chosen)
    assert set(review.state.waiting_for_second()) == {digest_of_image(name) for name in chosen}
    assert set(review_all(queue, "Bob", lambda name: "dark")) == chosen
    pairs = review.state.pairs()
    assert {one.id for one, _ in pairs} == chosen
    assert {two.reviewer for _, two in pairs} <= {"Bob"}
    disputed = set(review.state.disputed())
    assert disputed == {digest_of_image(name) for name in chosen if truth(name) != "dark"}
    for item in queue.next("Cem", 100, settle=True):
        Reviewing(queue, "Cem").decide([Given(item.image, truth(item.id), settles=True)])
    assert not review.state.disputed()
    assert all(review.state.settled(one.image) == truth(one.id) for one, _ in pairs)


def test_a_second_look_waits_for_nobodys_lease(task: Task) -> None:
    queue = Queue(begin(task, twice=1.0))
    first = queue.next("Ann")[0]
    Reviewing(queue, "Ann").decide([Given(first.image, "dark")])
    assert queue.next("Bob")[0].image == first.image


def test_shares_are_random_and_of_their_size() -> None:
    hits = sum(is_shown_twice("seed", f"{at:064x}", 0.1) for at in range(20_000))
    assert abs(hits / 20_000 - 0.1) < 0.01


def test_a_decision_is_taken_back_with_its_group(task: Task) -> None:
    queue = Queue(begin(task))
    items = queue.next("Ann", 100)
    pair = next(item for item in items if item.images == 2)
    ann = Reviewing(queue, "Ann")
    ann.decide([Given(pair.image, UNSURE)])
    with pytest.raises(InputError, match="Bob has not decided"):
        Reviewing(queue, "Bob").undo(pair.image)
    assert len(ann.undo(pair.image)) == 2
    assert queue.next("Ann", 100) == items
    ann.decide([Given(pair.image, "dark")])
    assert len(find_review(task).state.found) == 2


def test_stopping_is_declared_and_holds(task: Task) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", most=10)
    ann, rest = Reviewing(queue, "Ann"), queue.next("Ann", 1)[0]
    said = ann.stop()
    stop = queue.review.state.stops[0].content
    assert stop["found"] == len(queue.review.state.found)
    assert stop["reviewed"] + stop["unseen"] == ALL
    assert f"{stop['found']} of {stop['reviewed']} images" in said
    assert queue.next("Ann") == []
    with pytest.raises(InputError, match="reviewing was stopped"):
        ann.decide([Given(rest.image, "dark")])
    decided = next(iter(queue.review.state.reviewed))
    with pytest.raises(InputError, match="reviewing was stopped"):
        ann.undo(decided)
    with pytest.raises(InputError, match="stopped already"):
        ann.stop()
    ann.resume()
    assert queue.next("Ann")[0].image == rest.image


def log_draw(queue: Queue, images: list[str]) -> None:
    """Declare a draw of these very images."""
    strata = [{"size": ALL, "drawn": len(images), "lowest_score": None}]
    wish = {"size": len(images)}
    content = {"seed": "1", "wish": wish, "expected_share": None, "strata": strata}
    queue.review.log.append("draw", [{**content, "images": images}])


def test_a_draw_is_shown_alone_and_in_its_order(task: Task) -> None:
    queue = Queue(begin(task))
    ann = Reviewing(queue, "Ann")
    names = ["copy-21.png", "33.png", "21.png"]
    images = [digest_of_image(name) for name in names]
    ann.stop()
    log_draw(queue, images)
    items = queue.next("Ann", 10)
    assert [item.id for item in items] == names
    assert [item.position for item in items] == [1, 2, 3]
    assert [item.images for item in items] == [1, 1, 1]
    assert len(ann.decide([Given(images[0], "dark")])) == 1
    with pytest.raises(InputError, match="not among the images drawn"):
        ann.decide([Given(FORTY, "dark")])
    ann.undo(images[0], DRAW)
    assert review_all(queue, "Ann") == names
    assert list(queue.review.state.parts[DRAW]) == images


def test_images_seen_unblurred_are_counted_for_each_reviewer(task: Task) -> None:
    queue = Queue(begin(task))
    items = queue.next("Ann", 3)
    ann = Reviewing(queue, "Ann")
    assert ann.show([items[0].image, items[0].image]) == 1
    assert ann.show([items[0].image, items[1].image]) == 2
    ann.decide([Given(items[2].image, "dark", "unblurred")])
    state = find_review(task).state
    assert {name: len(images) for name, images in state.unblurred.items()} == {"Ann": 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Given("0" * 64, "dark"), "is no image of the review ridge-hog"),
        (Given("../x", "dark"), "'../x' is no image"),
        (Given(FORTY, "drak"), "unknown answer 'drak': use one of bright, dark, unsure"),
        (Given(FORTY, "dark", settles=True), "no two reviewers differ"),
    ],
)
def test_what_cannot_be_is_refused(task: Task, given: Given, said: str) -> None:
    queue = Queue(begin(task))
    good = Given(digest_of_image("41.png"), "dark")
    with pytest.raises(InputError, match=said):
        Reviewing(queue, "Ann").decide([good, given])
    with pytest.raises(InputError, match="is answered twice"):
        Reviewing(queue, "Ann").decide([good, good])
    assert [line.kind for line in find_review(task).log.lines] == ["opened"]


def test_a_source_that_changed_is_named(task: Task) -> None:
    begin(task)
    table = task.folder / "labels.csv"
    table.write_text(table.read_text().replace("\n30.png,", "\n30.png,dark"))
    with pytest.raises(InputError, match=r"have changed \(images gone: 1, new: 0\)"):
        open_review(task, Wish(name="ridge-hog"))


def test_reviews_are_found_by_name(task: Task) -> None:
    with pytest.raises(InputError, match=r"no review in .*archiveprobe review"):
        find_review(task)
    begin(task)
    assert find_review(task).name == "ridge-hog"
    begin(task, name="second")
    with pytest.raises(InputError, match="several reviews: name one of ridge-hog, second"):
        find_review(task)
    with pytest.raises(InputError, match=r"no review 'secnod'.*second"):
        find_review(task, "secnod")
    with pytest.raises(InputError, match="has system ridge-hog, not lda-hog"):
        begin(task, system="lda-hog", name="second")
    with pytest.raises(InputError, match="cannot name a review"):
        begin(task, name="../x")


def test_a_changed_file_of_images_is_named(task: Task) -> None:
    review = begin(task)
    file = review.folder / f"{review.state.opened['population']}-images.parquet"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"images.parquet was changed"):
        Queue(Review(task, review.name))


def test_places_find_every_digest(task: Task) -> None:
    population = begin(task).population
    digests = [population.digest(at) for at in range(len(population))]
    assert digests == sorted(digests)
    assert population.places([*digests, "0" * 64]).tolist() == [*range(len(digests)), -1]
    assert np.isfinite(population.scores).all()


def answered_draw(task: Task, names: list[str]) -> Queue:
    """Review six looks, stop, and let Ann answer a draw truthfully; then reviewing goes on."""
    queue = Queue(begin(task))
    review_all(queue, "Ann", most=6)
    ann = Reviewing(queue, "Ann")
    ann.stop()
    images = [digest_of_image(name) for name in names]
    assert not queue.review.state.reviewed.keys() & set(images)
    log_draw(queue, images)
    review_all(queue, "Ann")
    ann.resume()
    return queue


@pytest.mark.proves("review")
def test_what_was_decided_of_a_draw_is_not_asked_again(task: Task) -> None:
    scores = begin(task).population.scores
    population = find_review(task).population
    unlikely = [population.name(int(at)) for at in np.argsort(scores)[:5]]
    queue = answered_draw(task, unlikely)
    for each in (queue, Queue(find_review(task))):
        rest = each.preview("Bob")
        assert not {item.id for item in rest} & set(unlikely)
        with pytest.raises(InputError, match="was decided by Ann already"):
            Reviewing(each, "Bob").decide([Given(digest_of_image(unlikely[0]), "dark")])
    review_all(queue, "Bob")
    assert len(queue.review.state.reviewed) == ALL
    assert queue.looks_left() == 0
    Reviewing(queue, "Bob").stop()
    assert queue.review.state.stops[-1].content["unseen"] == 0
    assert len(find_review(task).state.answers()) == ALL


def test_what_rests_on_an_answer_goes_with_it(task: Task) -> None:
    queue = Queue(begin(task, twice=1.0, similarity=1.0))
    image = queue.next("Ann")[0].image
    ann, bob, dina = (Reviewing(queue, name) for name in ("Ann", "Bob", "Dina"))
    ann.decide([Given(image, "dark")])
    bob.decide([Given(image, "bright")])
    dina.decide([Given(image, "dark", settles=True)])
    ann.undo(image)
    state = queue.review.state
    assert (state.pairs(), state.settled(image), queue.twice_left()) == ([], None, 0)
    bob.decide([Given(image, "dark")])
    assert state.reviewed[image].reviewer == "Bob"
    assert state.waiting_for_second() == [image]
    assert queue.twice_left() == 1
    with pytest.raises(InputError, match="was decided by Bob already"):
        bob.decide([Given(image, "dark")])
    ann.decide([Given(image, "dark")])
    assert [(one.reviewer, two.reviewer) for one, two in state.pairs()] == [("Bob", "Ann")]


@pytest.mark.proves("review")
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_answers_given_together_that_a_kill_cut_short_are_all_given_again(
    task: Task, share: float
) -> None:
    """Even those of near-duplicates, which no table names."""
    queue = Queue(begin(task))
    given = [Given(item.image, truth(item.id), "file") for item in queue.next("Ann", 100)]
    before = len(queue.review.log.file.read_bytes())
    whole = Reviewing(queue, "Ann").decide(given)
    assert len(whole) > len(given)
    log = queue.review.log.file
    content = log.read_bytes()
    log.write_bytes(content[: before + int(share * (len(content) - before))])
    queue.review.file.file.unlink()
    again = Queue(find_review(task))
    assert not again.review.state.reviewed
    assert len(Reviewing(again, "Ann").decide(given)) == len(whole)
    assert len(find_review(task).state.reviewed) == len(whole)
    assert [line.kind for line in again.review.log.lines][:2] == ["opened", "mended"]
