"""`prove`: one image's way through a review, and its answer computed again from its bytes."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archiveprobe.archive.references import Reference
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.cache.reader import Reader
from archiveprobe.embed.device import default_device
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.precision import AGREEMENT, cosines
from archiveprobe.embed.prepare import prepare_reference
from archiveprobe.embed.unit_encoder import UnitEncoder
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.dataset import Rows, load_dataset
from archiveprobe.predict.content import UnitContent
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.systems import Resources, load_system
from archiveprobe.review.images import images_of
from archiveprobe.review.store import Review

# How far two computations of a score may lie apart: other batches and other processors round
# differently, by up to 2e-7 in the cosine of two embeddings.
_NEAR = 1e-2


@dataclass
class Proof:
    """An image's way, fact by fact, and what in it is not as it was (`faults`)."""

    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Return whether everything is as it was."""
        return not self.faults

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {"ok": self.ok, **self.facts, "faults": self.faults}

    def lines(self) -> list[dict[str, Any]]:
        """Return a line for every fact, for people."""
        lines = []
        for name, value in self.facts.items():
            if isinstance(value, list):
                lines += [{"what": name, "value": _sentence(each)} for each in value]
            else:
                lines.append({"what": name, "value": "-" if value is None else str(value)})
        return [*lines, *({"what": "FAULT", "value": fault} for fault in self.faults)]


def prove(review: Review, name: str, *, notify: Notify = lambda _: None) -> Proof:
    """Tell the way of an image, named by its id or its SHA-256, and compute its answer again.

    The log, the CSV of decisions and the list of images were proved when the review was opened.

    Raises:
        InputError: no such image in the review.
    """
    image, id_ = review.find_image(name)
    opened = review.state.opened
    [place] = review.population.places([image])
    proof = Proof({"image": image, "id": id_, "system": opened["system"]})
    proof.facts |= {
        "score": float(review.population.scores[place]),
        "threshold": opened["threshold"],
        "group": review.population.digest(int(review.population.groups[place])),
        "log": review.log.head,
        "decisions": [
            {"line": line.number, "kind": line.kind, "time": line.time, **line.content}
            for line in review.log.lines
            if line.content.get("image") == image
        ],
    }
    checks: dict[str, Callable[[], None]] = {
        "the system": lambda: _check_system(review, proof),
        "the answer": lambda: _check_answer(review, image, id_, proof, notify),
    }
    for what, check in checks.items():
        try:
            check()
        except InputError as error:
            proof.faults.append(f"{what}: {error}")
    return proof


def _check_system(review: Review, proof: Proof) -> None:
    opened = review.state.opened
    now = system_digest(review.task, opened["system"])
    proof.facts["system_sha256"] = now
    if now != opened["system_digest"]:
        proof.faults.append(
            f"the system {opened['system']} is not the one of the review: it was "
            f"{opened['system_digest']}, now {now}"
        )


class _Bytes:
    """One image as an archive of its own, for what reads archives."""

    name = "the image"

    def __init__(self, content: bytes) -> None:
        self._content = content

    def identity(self) -> dict[str, Any]:
        return {"kind": "bytes", "place": hashlib.sha256(self._content).hexdigest()}

    def references(self, *, notify: Notify) -> Any:  # noqa: ARG002
        return iter(())

    def read(self, reference: Reference) -> bytes:  # noqa: ARG002
        return self._content


def _check_answer(review: Review, image: str, id_: str, proof: Proof, notify: Notify) -> None:
    """Compute the embedding and the answer from the bytes, and compare both with the stored."""
    content = images_of(review).content(image)
    proof.facts["bytes"] = len(content)
    dataset = load_dataset(review.task)
    device = default_device()
    system = load_system(dataset, review.state.opened["system"], Resources(device, 0))
    proof.facts["fingerprints"] = [
        {"backbone": name, "sha256": digest} for name, digest in system.source.caches.items()
    ]
    rows = Rows(np.array([id_], np.str_), [bytes.fromhex(image)], [None])
    with ExitStack() as stack:
        threads = ForwardThreads(device, 1)
        encoder = stack.enter_context(
            UnitEncoder(
                review.task,
                system.source.caches,
                device=device,
                threads=threads,
                looks=system.source.looks,
                afresh=True,
                notify=notify,
            )
        )
        stack.callback(threads.restore)
        reference = Reference(id_, "")
        prepared = prepare_reference(reference, _Bytes(content), encoder.preparation)
        [prepared] = encoder.complete([prepared])
        if not prepared.views:
            raise InputError(f"the image cannot be decoded: {prepared.observation.status}")
        embeddings = encoder.encode([prepared])
        found = UnitContent([prepared], encoder.preparation, embeddings, threads)
        proba = system.answer(rows, content=found).proba
        for name, fresh in embeddings.items():
            reader = open_in_use(review.task, dataset.snapshot, name, partial=True)
            _check_embedding(proof, name, reader, rows.keys, fresh.read(rows.keys)[1])
    _compare(review, proof, float(proba[0, dataset.classes.index(review.state.positive)]))


def _check_embedding(
    proof: Proof, name: str, reader: Reader, keys: Sequence[bytes | None], fresh: np.ndarray
) -> None:
    present, stored = reader.read(keys)
    if not present[0]:
        return
    cosine = float(np.min(cosines(fresh[0], stored[0])))
    proof.facts.setdefault("embeddings", []).append({"backbone": name, "cosine": cosine})
    if cosine < AGREEMENT:
        proof.faults.append(
            f"the embedding by {name} is not that of these bytes (cosine {cosine:.6f}): run "
            "`archiveprobe cache verify --deep`"
        )


def _compare(review: Review, proof: Proof, again: float) -> None:
    proof.facts["score_again"] = again
    score = proof.facts["score"]
    if not np.isclose(again, score, rtol=0, atol=_NEAR):
        proof.faults.append(f"the score was {score:.6f}, computed again it is {again:.6f}")
    threshold = review.state.opened["threshold"]
    if threshold is not None:
        proof.facts["above_threshold"] = bool(again > threshold)


def _sentence(facts: Any) -> str:
    kept = {key: value for key, value in facts.items() if key not in ("image", "group", "id")}
    return ", ".join(f"{key} {value}" for key, value in kept.items() if value not in (None, ""))
