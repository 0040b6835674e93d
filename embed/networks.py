"""Loaded backbones turn crops into embeddings: a torch network, or a descriptor without weights."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import keep_freed_memory, memory_for
from archiveprobe.embed.arithmetic import computing_on
from archiveprobe.embed.backbones import RANDOM, Backbone
from archiveprobe.embed.device import has_tensor_cores
from archiveprobe.embed.layers import Read, pooled, reader
from archiveprobe.embed.models import Model, load_model
from archiveprobe.embed.preprocess import Geometry, Preprocess, Tokens

if TYPE_CHECKING:
    import torch

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray]


class LoadedBackbone:
    """A backbone that is ready to compute, at one precision: what the pipeline needs of it.

    `preprocess` says how its input is made, as fingerprints keep it.
    """

    precision = "fp32"
    is_compiled = False

    def __init__(
        self, name: str, digest: str, preprocess: Preprocess | Tokens, *, random: bool = False
    ) -> None:
        self.name = name
        self.weights_digest = digest
        self.preprocess = preprocess
        self.random_weights = random

    def embed(
        self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray | None = None
    ) -> np.ndarray:
        """Embed views of crops (u, size, size, 3) uint8, mirrored where `mirror` (n,) is true.

        View v shows the crop `crop[v]`; without `crop` (n,) int64, n is u and it shows crop v.

        Returns:
            (n, *shape) float32, unnormalised.
        """
        raise NotImplementedError

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return an array for crops from which they reach the device fast."""
        return np.empty(shape, dtype)

    def on_cpu(self) -> Self:
        """Return the same backbone computing on the CPU."""
        return self

    def at(self, precision: str) -> Self:
        """Return the same backbone computing at "fp32", "tf32", "bf16" or "fp16"."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def compiled(self) -> Self:
        """Return the same backbone, compiled by torch.compile when it first computes."""
        return self

    def faster_precisions(self) -> tuple[str, ...]:
        """Return the precisions to try here instead of fp32, best first."""
        return ()


def load_backbone(
    backbone: Backbone, device: str = "cpu", *, untrained: bool = False
) -> LoadedBackbone:
    """Build a backbone with its weights on a device ("cpu", "cuda", "cuda:1", "mps").

    Raises:
        InputError: its weights are missing or do not fit, it has no such layers, or memory runs
            out.
    """
    remedy = "free memory, choose a smaller backbone, or embed one at a time with --backbone"
    with memory_for(f"loading {backbone.described} on {device}", remedy), computing_on(device):
        return _load(backbone, device, untrained)


def _load(backbone: Backbone, device: str, untrained: bool) -> LoadedBackbone:
    if backbone.library == "descriptor":
        from archiveprobe.embed.hog import Hog

        if backbone.layers != "pooled":
            raise InputError(f'{backbone.name} has no layers: use layers = "pooled"')
        return Hog(backbone.name, backbone.decode)
    if device == "cpu":
        keep_freed_memory()
    if backbone.tower == "text":
        from archiveprobe.embed.text_tower import load_text_network

        return load_text_network(backbone, device, untrained=untrained)
    if backbone.tuned is None:
        model = load_model(backbone, untrained=untrained)
    else:
        from archiveprobe.embed.tuned import load_tuned

        model = load_tuned(backbone, backbone.tuned, untrained=untrained)
    read = reader(model.module, backbone.layers, backbone.described)
    return ImageNetwork(backbone.name, model, device, random=backbone.weights == RANDOM, read=read)


def geometry_of(network: LoadedBackbone) -> Geometry:
    """Return the pixel geometry of a loaded backbone for images."""
    assert isinstance(network.preprocess, Preprocess)
    return network.preprocess.geometry


class Network(LoadedBackbone):
    """A torch network in inference mode on a device.

    `read` calls the network: a function of it and of its input.
    """

    def __init__(
        self,
        name: str,
        module: Any,
        digest: str,
        preprocess: Preprocess | Tokens,
        device: str,
        *,
        random: bool,
        read: Read,
    ) -> None:
        import torch

        super().__init__(name, digest, preprocess, random=random)
        self._read = read
        self._device = torch.device(device)
        self._module = module.eval().to(self._device)

    def embed(
        self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray | None = None
    ) -> np.ndarray:
        """See LoadedBackbone."""
        import torch

        # A cache made at fp16 or tf32 on a GPU goes on at fp32 on a CPU, which agrees with it.
        autocast = self.precision == "fp16" and self._device.type == "cuda"
        with computing_on(self._device, self.precision), torch.inference_mode():
            inputs = self._input(self._send(crops), mirror, crop)
            with torch.autocast("cuda", torch.float16, enabled=autocast):
                embeddings = self._read(self._module, inputs)
            if not torch.is_tensor(embeddings):
                raise InputError(
                    f"{self.name} gives {type(embeddings).__name__}, not one tensor: choose "
                    "another backbone"
                )
            result: np.ndarray = embeddings.float().cpu().numpy()
        return result

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """See LoadedBackbone."""
        import torch

        if self._device.type == "cuda":
            same = torch.from_numpy(np.empty(0, dtype)).dtype
            # Where no more memory can be pinned, copies only take longer.
            with suppress(RuntimeError):
                pinned: np.ndarray = torch.empty(shape, dtype=same, pin_memory=True).numpy()
                return pinned
        return super().allocate(shape, dtype)

    def _send(self, crops: np.ndarray) -> "torch.Tensor":
        """Return crops on the device.

        `embed` reads its result before it returns, so crops may be freed or changed then.
        """
        import torch

        # A copy to Apple's GPU that is not waited for may read what is freed (pytorch#189690).
        waits = self._device.type != "cuda"
        return torch.from_numpy(crops).to(self._device, non_blocking=not waits)

    def _input(
        self, crops: "torch.Tensor", mirror: np.ndarray, crop: np.ndarray | None
    ) -> "torch.Tensor":
        """Return the network's input of crops on its device; see `embed`."""
        raise NotImplementedError

    def on_cpu(self) -> Self:
        """See LoadedBackbone."""
        import torch

        other = copy.copy(self)
        other._device = torch.device("cpu")
        other._module = copy.deepcopy(self._module).to(other._device)
        return other

    def at(self, precision: str) -> Self:
        """See LoadedBackbone."""
        import torch

        other = super().at(precision)
        if precision == "bf16":
            remedy = "free memory, or use the precision fp32"
            with memory_for(f"copying {self.name} in bf16", remedy):
                other._module = copy.deepcopy(self._module).to(torch.bfloat16)
        return other

    def compiled(self) -> Self:
        """See LoadedBackbone."""
        other = copy.copy(self)
        other.is_compiled = True
        other._read = _compiled(self._read)
        return other

    def faster_precisions(self) -> tuple[str, ...]:
        """See LoadedBackbone."""
        import torch

        if self._device.type == "cuda":
            return ("fp16", "bf16") if has_tensor_cores(str(self._device)) else ("fp16",)
        if self._device.type != "cpu":
            return ()
        # Where the processor does not multiply bf16 itself, it is slower than fp32.
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return ("bf16",) if any(getattr(torch.cpu, name, bool)() for name in names) else ()


def _compiled(read: Read) -> Read:
    """Compile a way to read a network: once, for batches of all sizes."""
    import torch

    # By itself, since torch compiles one function eight times at most, here for eight backbones.
    run: Read = torch.compile(read, isolate_recompiles=True)  # type: ignore[call-overload]

    def run_compiled(network: Any, inputs: "torch.Tensor") -> Any:
        # Whatever came before, a size gives the same bits. torch would compile a single one anew.
        count = len(inputs)
        several = torch.cat([inputs, inputs]) if count == 1 else inputs
        torch._dynamo.maybe_mark_dynamic(several, 0)
        result = run(network, several)
        return result[:1] if count == 1 else result

    return run_compiled


def is_convolutional(module: Any) -> bool:
    """Return whether a network gains from channels-last.

    A ViT does not: it has one convolution, its patch embedding.
    """
    from torch import nn

    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) >= 3


class ImageNetwork(Network):
    """A network for images; pixels are normalised on its device."""

    def __init__(
        self, name: str, model: Model, device: str, *, random: bool = False, read: Read = pooled
    ) -> None:
        import torch

        super().__init__(
            name, model.module, model.digest, model.preprocess, device, random=random, read=read
        )
        self._format = torch.contiguous_format
        # On Apple's GPUs channels-last is slower, and has been wrong (pytorch/pytorch#174345).
        if is_convolutional(self._module) and self._device.type != "mps":
            self._format = torch.channels_last
            self._module = self._module.to(memory_format=self._format)
        self._mean, self._std = (
            torch.tensor(values).view(1, 3, 1, 1).to(self._device)
            for values in (model.preprocess.mean, model.preprocess.std)
        )

    def on_cpu(self) -> Self:
        """See LoadedBackbone."""
        other = super().on_cpu()
        other._mean, other._std = self._mean.cpu(), self._std.cpu()
        return other

    def _input(
        self, crops: "torch.Tensor", mirror: np.ndarray, crop: np.ndarray | None
    ) -> "torch.Tensor":
        import torch

        # Every crop is normalised once, whatever number of views shows it.
        pixels = crops.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std)
        if self.precision == "bf16":
            pixels = pixels.to(torch.bfloat16)
        pixels = pixels.contiguous(memory_format=self._format)
        if crop is not None and not np.array_equal(crop, np.arange(len(crops))):
            pixels = pixels[torch.from_numpy(crop).to(self._device)]
        if mirror.any():
            mirrored = torch.from_numpy(np.flatnonzero(mirror)).to(self._device)
            pixels[mirrored] = pixels[mirrored].flip(3)
        return pixels.contiguous(memory_format=self._format)
