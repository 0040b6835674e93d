"""Networks with weights from files: what is loaded, what is ignored, what is refused."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from archiveprobe.embed import models, weights
from archiveprobe.embed.models import Model, load_model, read_state, tensor_digest
from archiveprobe.embed.networks import load_backbone
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.task.config import Preprocess as Override

TIMM = ("test_resnet", "test_vit", "test_convnext2")


def foreign(model: str, **arguments: Any) -> Any:
    """A timm model of the library's own making, with other random weights than ours."""
    torch.manual_seed(123)
    return timm.create_model(model, pretrained=False, **arguments).eval()


def run(module: Any, side: int) -> np.ndarray:
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return module(pixels).numpy()


def contiguous(module: Any) -> dict[str, Any]:
    return {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Any]]:
    """The tensors of tiny timm models with their classifiers."""
    return {name: contiguous(foreign(name)) for name in TIMM}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def saved(state: dict[str, Any], name: str = "weights.safetensors") -> Path:
        file = tmp_path / name
        if file.suffix == ".safetensors":
            save_file(state, file)
        else:
            torch.save(state, file)
        return file

    return saved


@pytest.mark.parametrize("name", TIMM)
def test_random_weights_are_the_same_every_time(make_backbone, states, name) -> None:
    first, second = load_model(make_backbone(name)), load_model(make_backbone(name))
    assert first.digest == second.digest
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    load_model(make_backbone(name))
    assert torch.equal(torch.rand(1), before)  # Other people's draws are left alone.
    without = {k: v for k, v in states[name].items() if k in first.module.state_dict()}
    assert tensor_digest(without) != first.digest


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("form", ["safetensors", "pt", "pth"])
def test_timm_weights_from_a_file_are_the_source_bit_by_bit(
    make_backbone, states, saved, name, form
) -> None:
    source = foreign(name, num_classes=0)
    missing, unknown = source.load_state_dict(states[name], strict=False)
    assert not missing
    assert unknown  # The classifier is in the file, and is ignored.
    model = load_model(make_backbone(name, saved(states[name], f"w.{form}")))
    np.testing.assert_array_equal(run(model.module, 64), run(source, 64))
    assert model.digest == tensor_digest(source.state_dict())


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_tensors_in_a_wrapper_and_behind_a_prefix_are_found(
    make_backbone, states, saved, wrapper
) -> None:
    plain = load_model(make_backbone("test_vit", saved(states["test_vit"])))
    inner = {f"module.{name}": tensor for name, tensor in states["test_vit"].items()}
    wrapped = saved({wrapper: inner, "epoch": 3}, "w.pt")
    assert load_model(make_backbone("test_vit", wrapped)).digest == plain.digest


@pytest.fixture(scope="module")
def clip(tiny_clip) -> Any:
    torch.manual_seed(321)
    return open_clip.create_model(tiny_clip, load_weights=False).eval()


@pytest.mark.parametrize("form", ["safetensors", "pt"])
@pytest.mark.parametrize("part", ["whole", "visual"])
def test_open_clip_weights_from_a_file_are_the_source_bit_by_bit(
    make_backbone, clip, tiny_clip, saved, form, part
) -> None:
    file = saved(contiguous(clip if part == "whole" else clip.visual), f"w.{form}")
    model = load_model(make_backbone(tiny_clip, file, library="open_clip"))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = clip.encode_image(pixels).numpy()
    np.testing.assert_array_equal(run(model.module, 32), wanted)
    assert wanted.shape == (2, 16)


def test_a_model_is_in_eval_mode_and_learns_nothing(make_backbone) -> None:
    module = load_model(make_backbone("test_resnet")).module
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("norm.weight"), ("norm.weight is missing",)),
        (lambda s: s.update(extra=torch.ones(2)), ("extra is unknown",)),
        (
            lambda s: s.update({"norm.bias": torch.ones(3)}),
            ("norm.bias is (3,), not (64,)",),
        ),
        (
            lambda s: [s.pop(name) for name in list(s)[:6]],
            ("is missing, ", "and 3 more"),
        ),
    ],
    ids=["missing", "unknown", "misshapen", "many"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    make_backbone, states, saved, fault_of, change, words
) -> None:
    state = dict(states["test_vit"])
    change(state)
    file = saved(state)
    words = (str(file), "timm:test_vit", *words)
    fault_of(lambda: load_model(make_backbone("test_vit", file)), *words)


def test_weights_of_another_model_are_refused(make_backbone, states, saved, fault_of) -> None:
    file = saved(states["test_resnet"])
    message = fault_of(lambda: load_model(make_backbone("test_vit", file)), "do not fit", "more")
    assert len(message) < 600


class Trap:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.proves("hostile")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_never_runs(
    make_backbone, states, tmp_path, fault_of, form
) -> None:
    file, trap = tmp_path / "w.pt", tmp_path / "trapped"
    if form == "torch":
        torch.save({**states["test_vit"], "trap": Trap(trap)}, file)
    else:
        file.write_bytes(pickle.dumps({"trap": Trap(trap)}))
    fault_of(lambda: load_model(make_backbone("test_vit", file)), "refused", str(file))
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 64, b"not a model", b"PK\x03\x04 torn"],
    ids=["empty", "zeros", "text", "torn-zip"],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_damaged_file_is_refused(tmp_path, fault_of, name, content) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    fault_of(lambda: read_state(file), str(file), "refused")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_half_a_file_is_refused(states, saved, fault_of, name) -> None:
    file = saved(states["test_vit"], name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    fault_of(lambda: read_state(file), str(file), "refused")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, torch.ones(3)], ids=str)
def test_a_file_without_a_table_of_tensors_is_refused(saved, fault_of, content) -> None:
    fault_of(lambda: read_state(saved(content, "w.pt")), "no table of tensors")


def activations(module: Any) -> set[str]:
    return {type(part).__name__ for part in module.modules() if "GELU" in type(part).__name__}


@pytest.mark.parametrize(("quick", "wanted"), [(True, "QuickGELU"), (False, "GELU")])
def test_quick_gelu_belongs_to_the_weights(
    make_backbone, tiny_clip, clip, saved, monkeypatch, quick, wanted
) -> None:
    config = {"quick_gelu": quick, "mean": (0.1, 0.2, 0.3), "std": (1, 2, 3)}
    monkeypatch.setattr(models, "registry_config", lambda _: config)
    file = saved(contiguous(clip))
    model = load_model(make_backbone(tiny_clip, file, library="open_clip", tag="openai"))
    assert activations(model.module) == {wanted}
    assert (model.preprocess.mean, model.preprocess.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


def hub(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(file))


def test_preprocessing_is_equal_for_a_tag_and_a_local_file(
    make_backbone, states, saved, monkeypatch
) -> None:
    file = saved(states["test_vit"])
    hub(monkeypatch, file)
    tag = make_backbone("test_vit", "pretrained", tag="r160_in1k")
    from_hub, from_file = load_model(tag), load_model(replace(tag, weights=str(file)))
    assert from_hub.preprocess == from_file.preprocess
    assert from_hub.preprocess.geometry == Geometry(160, 168, "center", "bicubic", (128,) * 3)
    assert from_hub.digest == from_file.digest


def test_open_clip_preprocessing_is_equal_for_a_tag_and_a_local_file(
    make_backbone, clip, tiny_clip, saved, monkeypatch
) -> None:
    file = saved(contiguous(clip))
    hub(monkeypatch, file)
    config = {"hf_hub": "somebody/tiny/", "resize_mode": "squash", "interpolation": "bilinear"}
    config |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    for module in (models, weights):
        monkeypatch.setattr(module, "registry_config", lambda _: config)
    tag = make_backbone(tiny_clip, "pretrained", library="open_clip", tag="webli")
    from_hub, from_file = load_model(tag), load_model(replace(tag, weights=str(file)))
    assert from_hub.preprocess == from_file.preprocess
    assert from_hub.preprocess.geometry == Geometry(32, 32, "squash", "bilinear")
    assert from_hub.preprocess.mean == (0.5, 0.5, 0.5)


def test_ones_own_preprocessing_goes_before(make_backbone) -> None:
    override = Override(size=48, resize=56, crop="border", mean=(0, 0, 0), std=(1, 1, 1))
    preprocess = load_model(make_backbone("test_resnet", preprocess=override)).preprocess
    assert preprocess.geometry == Geometry(48, 56, "border", "bicubic")
    assert (preprocess.mean, preprocess.std) == ((0, 0, 0), (1, 1, 1))


def test_arguments_reach_the_library(make_backbone) -> None:
    small = load_model(make_backbone("test_vit", arguments={"img_size": 80}))
    assert small.preprocess.geometry.size == 80
    assert run(small.module, 80).shape == (2, 64)


@pytest.mark.parametrize("arguments", [{"nonsense": 3}, {"img_size": -4}, {"num_classes": 7}])
def test_wrong_arguments_are_one_line(make_backbone, fault_of, arguments) -> None:
    backbone = make_backbone("test_vit", arguments=arguments)
    fault_of(lambda: load_model(backbone), "own", "arguments")


def digest_of(**state: Any) -> str:
    return tensor_digest(state)


def test_the_digest_knows_names_types_shapes_and_values_but_no_order() -> None:
    a, b = torch.arange(6.0), torch.ones(2, 3)
    base = digest_of(a=a, b=b)
    assert digest_of(b=b, a=a) == base
    assert digest_of(a=a.clone(), b=b.t().contiguous().t()) == base  # Strides are no content.
    changed = [
        digest_of(a=b.flatten(), b=a.view(2, 3)),
        digest_of(a=a, c=b),
        digest_of(a=a.view(2, 3), b=b),
        digest_of(a=a.int().float().double(), b=b),
        digest_of(a=a.view(torch.int32), b=b),
        digest_of(a=a + torch.tensor([0, 0, 0, 0, 0, 1e-6]), b=b),
        digest_of(a=a),
    ]
    assert len({base, *changed}) == 8
    assert digest_of(a=torch.tensor(3)) != digest_of(a=torch.tensor([3]))
    assert digest_of(a=torch.ones(0))


def test_untrained_needs_no_file(make_backbone) -> None:
    model: Model = load_model(make_backbone("test_resnet", "nowhere.safetensors"), untrained=True)
    assert model.preprocess.geometry.size == 160


def test_only_square_inputs_work(make_backbone, fault_of, monkeypatch) -> None:
    data = timm.data.config
    config = data.resolve_data_config({"input_size": (3, 80, 160)})
    monkeypatch.setattr(data, "resolve_model_data_config", lambda *_, **__: config)
    fault_of(lambda: load_model(make_backbone("test_resnet")), "80 x 160", "square")


@pytest.fixture(scope="session")
def tiny_coca(tmp_path_factory) -> str:
    """The name of a CoCa of 32 pixels and 16 numbers, registered for this session."""
    file = tmp_path_factory.mktemp("configs") / "tiny-coca-test.json"
    file.write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, '
        '"head_width": 16, "patch_size": 8, "attentional_pool": true, "attn_pooler_heads": 2, '
        '"output_tokens": true}, "text_cfg": {"context_length": 8, "vocab_size": 49408, '
        '"width": 32, "heads": 2, "layers": 1, "embed_cls": true, "output_tokens": true}, '
        '"multimodal_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, '
        '"layers": 1}, "custom_text": true}'
    )
    open_clip.add_model_config(file)
    return file.stem


def test_a_coca_gives_what_its_own_encode_image_gives(make_backbone, tiny_coca, saved) -> None:
    source = open_clip.create_model(tiny_coca, load_weights=False).eval()
    file = saved(contiguous(source))
    backbone = make_backbone(tiny_coca, file, library="open_clip")
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = source.encode_image(pixels, normalize=False)
        given = load_model(backbone).module(pixels)
    # On some processors the two are summed in another order.
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    encoder: Any = load_backbone(backbone)
    crops, mirror = np.zeros((3, 32, 32, 3), np.uint8), np.zeros(3, bool)
    assert encoder.embed(crops, mirror).shape == (3, 16)
    for layers, shape in (("last4", (3, 4, 2, 32)), ("unprojected", (3, 16))):
        encoder = load_backbone(replace(backbone, layers=layers))
        assert encoder.embed(crops, mirror).shape[:1] == shape[:1]


def test_a_cocas_texts_are_what_its_own_encode_text_gives(make_backbone, tiny_coca, saved) -> None:
    source = open_clip.create_model(tiny_coca, load_weights=False).eval()
    file = saved(contiguous(source))
    backbone = make_backbone(tiny_coca, file, library="open_clip", tower="text")
    encoder: Any = load_backbone(backbone)
    tokens = encoder.tokens(["rubble", "an intact street"])
    with torch.inference_mode():
        expected = source.encode_text(torch.from_numpy(tokens), normalize=False).numpy()
    given = encoder.embed(tokens, np.zeros(2, bool))
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            OSError("couldn't connect to 'https://huggingface.co'"),
            ("embed --dry-run", "network"),
        ),
        (RuntimeError("Please `pip install transformers`"), ("archiveprobe[texts]",)),
    ],
)
def test_a_text_tower_that_needs_transformers_is_one_line(
    make_backbone, tiny_coca, monkeypatch, fault_of, fault, words
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr(open_clip, "create_model", refuse)
    backbone = make_backbone(tiny_coca, "random", library="open_clip")
    for tower in ("image", "text"):
        fault_of(lambda tower=tower: load_backbone(replace(backbone, tower=tower)), *words)
