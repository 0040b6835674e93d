"""LoRA: what starts, learns, is stored, mixed and answered; from the command line too."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import save

import archiveprobe.finetune.checkpoint_writer as writer
from archiveprobe.base.errors import InputError
from archiveprobe.embed.tuned import load_tuned
from archiveprobe.evaluate.tuned import TunedNetwork
from archiveprobe.finetune.mixing import mixture_of
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.tokens import token_network, tokens_of
from archiveprobe.finetune.train import Trainer, train
from archiveprobe.finetune.trained_parts import origin_of

Command = Callable[..., Result]
EVA = {"img_size": 32, "embed_dim": 64, "depth": 3, "num_heads": 2}
NAMES = ["clip", "test_vit", "vit_small_patch16_dinov3", "test_convnext2"]


@pytest.fixture
def backbone(request, tiny, tiny_clip):
    if request.param == "clip":
        return tiny_clip
    eva = EVA if "dinov3" in request.param else {}
    return tiny(request.param, arguments=eva)


def every(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("backbone", names, indirect=True)


def pixels(count: int = 4, seed: int = 0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def learn(network: Network, steps: int = 4) -> None:
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    network.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network(pixels(seed=step)), torch.tensor([0, 1, 0, 1])
        )
        loss.backward()
        optimizer.step()
    network.eval()


@every(NAMES)
def test_the_first_answers_are_those_of_the_pretrained_network(backbone, network_of) -> None:
    plain = network_of(backbone, size=32)
    network = network_of(backbone, size=32, lora_rank=4)
    with torch.no_grad():
        assert torch.equal(network(pixels()), plain(pixels()))
    assert network.digest == plain.digest


@every(NAMES)
def test_a_and_b_and_the_head_alone_are_trained_and_stored(backbone, network_of) -> None:
    network = network_of(backbone, size=32, lora_rank=4)
    before = network.state()
    learn(network)
    after, stored = network.state(), network.state(whole=False)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rpartition(".")[2] for name in stored if name.startswith("body.")} == {
        "up",
        "down",
    }
    # Under a small layer scale the gradient of A is lost among its bits.
    assert moved <= set(stored) <= moved | {name for name in stored if name.endswith(".down")}
    # Every A and B of the state counts: another network answers the same with them.
    other = network_of(backbone, size=32, lora_rank=4)
    other.load_state(stored)
    with torch.no_grad():
        assert torch.equal(other(pixels()), network(pixels()))
        assert not torch.equal(network_of(backbone, size=32)(pixels()), network(pixels()))


def test_the_change_of_a_weight_by_hand(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4, lora_alpha=8.0)
    learn(network)
    state = network.state()
    place = "body.transformer.resblocks.1.attn.parametrizations.in_proj_weight"
    down, up = state[f"{place}.0.down"], state[f"{place}.0.up"]
    assert (down.shape, up.shape) == ((4, 32), (96, 4))
    # alpha / r is 2.
    wanted = state[f"{place}.original"] + 2 * up @ down
    weight = network.body.transformer.resblocks[1].attn.in_proj_weight
    torch.testing.assert_close(weight, wanted)
    assert up.abs().max() > 0


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({}, {"attn", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"}),
        ({"lora_layers": "attention"}, {"attn", "attn.out_proj"}),
        ({"lora_layers": "mlp", "unfreeze": "last-2"}, {"mlp.c_fc", "mlp.c_proj"}),
    ],
)
def test_layers_and_blocks_are_chosen(settings, layers, tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4, **settings)
    places = {name.partition("resblocks.")[2].partition(".parametr")[0] for name in network.trained}
    first = 1 if "unfreeze" in settings else 0
    wanted = {f"{block}.{layer}" for block in range(first, 3) for layer in layers}
    assert places - {""} == wanted


def test_what_has_no_layers_or_too_low_a_width_is_refused(tiny, tiny_clip, network_of) -> None:
    with pytest.raises(InputError, match="have no linear layers for LoRA: leave out"):
        network_of(tiny("test_resnet"), lora_rank=4)
    with pytest.raises(InputError, match=r"lora_rank = 32 is no low rank for .*less than 32"):
        network_of(tiny_clip, lora_rank=32)


def test_answering_computes_every_weight_once(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4)
    learn(network)
    layer = network.body.transformer.resblocks[0].mlp.c_fc
    with torch.no_grad():
        merged = network(pixels())
        assert layer.weight is layer.weight
        states = network.state(whole=False), network_of(tiny_clip, lora_rank=4).state(whole=False)
        # States take turns, and every one is merged.
        network.load_state(states[1])
        assert not torch.equal(network(pixels()), merged)
        network.load_state(states[0])
        assert torch.equal(network(pixels()), merged)
    assert layer.weight is not network.train().body.transformer.resblocks[0].mlp.c_fc.weight


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_mixture_is_that_of_the_weights(alpha, tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4)
    first, start = network.state(whole=False), network.body.transformer.resblocks[0].mlp.c_fc
    before = start.weight.detach().clone()
    learn(network)
    tuned, after = network.state(whole=False), start.weight.detach().clone()
    network.load_state(mixture_of(first, tuned, alpha))
    torch.testing.assert_close(start.weight, before.lerp(after, alpha))
    assert not torch.equal(before, after)


def test_an_average_of_the_weights_learns_and_answers(tiny_clip, noise, network_for) -> None:
    recipe = changed(
        load_recipe("clip-lora"),
        {
            "model.backbone": "own", "model.head_init": "random", "ema.decay": 0.5,
            "interpolate.alphas": [0.0, 0.5, 1.0], "schedule.epochs": 3,
            "optimizer.batch_size": 8, "optimizer.lr": 1e-2,
        },
    )  # fmt: skip
    network = network_for(recipe, tiny_clip)
    before = network.state(whole=False)
    done = train(network, noise(24, validation=8), recipe)
    assert len(done.history) == 3 and done.alpha is not None
    assert done.state.keys() == before.keys()
    other = network_for(recipe, tiny_clip)
    other.load_state(done.state)
    with torch.no_grad():
        assert torch.equal(other(pixels()), network(pixels()))


def test_the_last_block_learns_by_lora_from_tokens(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4, unfreeze="last-block")
    learn(network)
    with torch.no_grad():
        torch.testing.assert_close(
            token_network(network)(tokens_of(network, pixels())), network(pixels())
        )
    with pytest.raises(InputError, match="no other block can be trained"):
        token_network(network_of(tiny_clip, lora_rank=4))


def test_embed_reads_the_changed_weights(tiny_clip, network_of, tmp_path: Path) -> None:
    network = network_of(tiny_clip, lora_rank=4, lora_alpha=8.0)
    learn(network)
    content = save(network.state(whole=False))
    (tmp_path / "weights.safetensors").write_bytes(content)
    settings = {"unfreeze": "all", "lora_rank": 4, "lora_alpha": 8.0}
    tuned = TunedNetwork(
        "lora", "full", tmp_path / "weights.safetensors", hashlib.sha256(content).hexdigest(),
        settings, origin_of(network),
    )  # fmt: skip
    assert not tuned.is_whole
    with torch.no_grad():
        torch.testing.assert_close(
            load_tuned(tiny_clip, tuned).module(pixels()), network.body(pixels())
        )


class Killed(BaseException):
    """As SIGKILL: nothing of this project may catch it."""


CLIP = '[backbone.clip]\nlibrary = "open_clip"\nname = "{}"\nweights = "random"\n'
RECIPE = """
[model]
backbone = "{}"
lora_rank = 4
lora_alpha = 16.0
[optimizer]
lr = 5e-3
head_lr = 5e-3
batch_size = 8
[schedule]
epochs = 10
monitor = "none"
[augment]
crop_scale = [0.9, 1.0]
"""


@pytest.mark.proves("killed")
@pytest.mark.parametrize("name", ["clip", "tiny"])
def test_thirty_steps_lower_the_loss_and_go_on_after_a_kill(
    name: str, archive: Path, tiny_clip, run: Command, finetune: Command,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    task = archive / "task.toml"
    task.write_text(task.read_text() + CLIP.format(tiny_clip.model))
    if name == "clip":
        assert run("embed", archive, "--backbone", "clip", "--workers", "0").exit_code == 0
    monkeypatch.setattr(writer, "SECONDS", 0.0)
    for system in ("whole", "killed"):
        (archive / f"{system}.toml").write_text(RECIPE.format(name))
    once = finetune(archive, "--fold", "all", recipe=str(archive / "whole.toml"))
    assert once.exit_code == 0, once.stderr
    curves = archive / "work/finetune/whole/fold-0/curves.csv"
    losses = [float(line.split(",")[1]) for line in curves.read_text().splitlines()[1:]]
    # Ten epochs of three steps.
    assert len(losses) == 10 and losses[-1] < losses[0] - 0.1

    epoch = Trainer.train_epoch

    def dying(self: Trainer, batches):
        if len(self.history) == 5:
            raise Killed
        return epoch(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_epoch", dying)
        with pytest.raises(Killed):
            finetune(archive, "--fold", "all", recipe=str(archive / "killed.toml"))
    again = finetune(archive, "--fold", "all", recipe=str(archive / "killed.toml"))
    assert again.exit_code == 0, again.stderr
    assert "goes on after epoch" in again.stderr
    files = [archive / f"work/finetune/{name}/fold-0/weights.safetensors" for name in
             ("whole", "killed")]  # fmt: skip
    assert files[0].read_bytes() == files[1].read_bytes()

    answers = []
    for system in ("whole", "killed"):
        out = tmp_path / f"{system}.csv"
        done = run("predict", archive, "--system", system, "--images", archive, "-o", out)
        assert done.exit_code == 0, done.stderr
        answers.append(out.read_text())
    assert answers[0] == answers[1]
