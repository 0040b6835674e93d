"""Captions and prompts belong to the state of systems that learn from them."""

import pytest
from counted import wordy_clip  # noqa: F401
from shelf import LABELS, image

from archiveprobe.base.errors import InputError
from archiveprobe.embed.run import Options, embed
from archiveprobe.evaluate.system_status import overview
from archiveprobe.predict.submission import submit
from archiveprobe.probe.run import Options as ProbeOptions
from archiveprobe.probe.run import run_probes
from archiveprobe.task.config import Task, load_task

TASK = """name = "words"
labels = ["intact", "destroyed"]
[images]
root = "."
table = "labels.csv"
id = "image"
text = "caption"
[folds]
count = 2
repeats = 1
[embed]
backbones = ["hog", "words"]
views = "center"
[prompts]
intact = ["an intact street"]
destroyed = ["{prompt}"]
[backbone.words]
library = "open_clip"
name = "{model}"
weights = "random"
"""


@pytest.fixture
def written(tmp_path, wordy_clip):  # noqa: F811
    for seed in range(14):
        (tmp_path / f"{seed}.png").write_bytes(image(seed, LABELS[seed % 2]))

    def written(*, caption: str = "a street", prompt: str = "rubble") -> Task:
        """A task whose first row has this caption."""
        lines = ["image,label,caption"]
        for seed in range(14):
            label = LABELS[seed % 2] if seed < 12 else ""
            lines.append(f"{seed}.png,{label},{caption if seed == 0 else f'words {seed % 3}'}")
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        (tmp_path / "task.toml").write_text(TASK.format(model=wordy_clip, prompt=prompt))
        return load_task(tmp_path)

    return written


def run(task: Task) -> None:
    embed(task, Options(workers=0, device="cpu", precision="fp32"))


def probe(task: Task) -> None:
    for features in ("hog", "words-text"):
        run_probes(task, ProbeOptions(("ridge",), (features,), workers=1))
    run_probes(task, ProbeOptions(("zeroshot",), workers=1))


def states(task: Task) -> dict[str, str]:
    return {one.system: one.state for one in overview(task)}


SYSTEMS = ("ridge-hog", "ridge-words-text", "zeroshot-words")


@pytest.mark.parametrize("change", [{"caption": "all of it rubble"}, {"prompt": "a ruin"}])
def test_other_texts_put_systems_of_texts_out_of_date(written, change, tmp_path) -> None:
    run(written())
    probe(written())
    assert states(written()) == dict.fromkeys(SYSTEMS, "ok")
    task = written(**change)
    old = {name: "out of date: texts" for name in SYSTEMS if "words" in name}
    assert states(task) == {"ridge-hog": "ok", **old}
    with pytest.raises(InputError, match=r"out of date \(texts"):
        submit(task, "ridge-words-text", tmp_path / "answers.csv")
    submit(task, "ridge-hog", tmp_path / "answers.csv")
    with pytest.raises(InputError, match=r"not (embedded|in the cache).* run `archiveprobe embed"):
        probe(task)
    run(task)
    probe(task)
    assert states(task) == dict.fromkeys(SYSTEMS, "ok")
    # Back as it was: what is stored now was learnt from other texts.
    assert states(written())["ridge-words-text"] == "out of date: texts"
