"""Encoders turn uint8 crops into embeddings: a torch network, or a descriptor without weights."""

import copy
from typing import Any, Protocol, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.embed.layers import Read, pooled
from archiveprobe.embed.models import Model
from archiveprobe.embed.preprocess import Input

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# A ViT has one convolution, its patch embedding; a network with more gains from channels-last.
_CONVOLUTIONAL = 3


class Encoder(Protocol):
    """What the pipeline needs of a backbone."""

    name: str
    precision: str
    weights_digest: str
    random_weights: bool

    @property
    def preprocess(self) -> Input:
        """How its input is made, as fingerprints keep it."""
        ...

    def encode(self, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Embed crops (n, size, size, 3) uint8, mirrored where `mirror` (n,) is true.

        Returns:
            (n, *shape) float32, unnormalised.
        """
        ...

    def at(self, precision: str) -> Self:
        """The same encoder computing at "fp32", "bf16" or "fp16"."""
        ...

    def candidates(self) -> tuple[str, ...]:
        """The faster precisions to try here, best first."""
        ...


class Network:
    """A torch network in inference mode on a device, at one precision.

    `read` calls the network: a function of it and of its input.
    """

    def __init__(
        self, name: str, module: Any, digest: str, device: str, *, random: bool, read: Read = pooled
    ) -> None:
        self._torch = libraries.torch()
        self.name = name
        self.weights_digest = digest
        self.random_weights = random
        self.precision = "fp32"
        self._read = read
        self._device = self._torch.device(device)
        self._module = module.eval().to(self._device)

    def encode(self, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """See Encoder."""
        torch = self._torch
        with torch.inference_mode():
            given = self._input(crops, mirror)
            with torch.autocast("cuda", torch.float16, enabled=self._autocast):
                embeddings = self._read(self._module, given)
            if not torch.is_tensor(embeddings):
                raise InputError(
                    f"{self.name} gives {type(embeddings).__name__}, not one tensor: choose "
                    "another backbone"
                )
            result: np.ndarray = embeddings.float().cpu().numpy()
        return result

    def _input(self, crops: np.ndarray, mirror: np.ndarray) -> Any:
        """The network's input, on its device."""
        raise NotImplementedError

    @property
    def _autocast(self) -> bool:
        # A cache made at fp16 on a GPU is gone on with at fp32 on a CPU, which agrees with it.
        return self.precision == "fp16" and self._device.type == "cuda"

    def at(self, precision: str) -> Self:
        """See Encoder."""
        other = copy.copy(self)
        other.precision = precision
        if precision == "bf16":
            other._module = copy.deepcopy(self._module).to(self._torch.bfloat16)
        return other

    def candidates(self) -> tuple[str, ...]:
        """See Encoder."""
        if self._device.type == "cuda":
            return ("fp16",)
        return ("bf16",) if _cpu_has_bf16(self._torch) else ()


class TorchEncoder(Network):
    """A network that looks at images; pixels are normalised on its device."""

    def __init__(
        self, name: str, model: Model, device: str, *, random: bool = False, read: Read = pooled
    ) -> None:
        super().__init__(name, model.module, model.digest, device, random=random, read=read)
        self.preprocess = model.preprocess
        if _is_convolutional(self._torch, self._module):
            self._format = self._torch.channels_last
            self._module = self._module.to(memory_format=self._format)
        else:
            self._format = self._torch.contiguous_format
        self._mean, self._std = (
            self._torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )

    def _input(self, crops: np.ndarray, mirror: np.ndarray) -> Any:
        torch = self._torch
        pixels = torch.from_numpy(crops).to(self._device, non_blocking=True)
        pixels = pixels.permute(0, 3, 1, 2).float().div_(255)
        if mirror.any():
            flipped = torch.from_numpy(mirror).to(self._device)
            pixels = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        pixels = pixels.sub_(self._mean).div_(self._std)
        if self.precision == "bf16":
            pixels = pixels.to(torch.bfloat16)
        return pixels.contiguous(memory_format=self._format)


def _is_convolutional(torch: Any, module: Any) -> bool:
    found = sum(isinstance(part, torch.nn.Conv2d) for part in module.modules())
    return found >= _CONVOLUTIONAL


def _cpu_has_bf16(torch: Any) -> bool:
    """Whether the processor multiplies bf16 itself; emulated, it is slower than fp32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
