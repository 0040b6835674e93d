"""Zero-shot classification: the similarity of images to the classes' prompts, nothing learned."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.preprocessing import normalize

from archiveprobe.probe.base import Probe


@dataclass(kw_only=True, eq=False, repr=False)
class ZeroShot(Probe):
    """The class whose prompts are nearest: logits are `scale` times the cosine, plus `bias`.

    Nothing is learned from the labels (Radford et al., "Learning transferable visual models from
    natural language supervision", CLIP, 2021). `prompts` (K, d) holds one text embedding per class,
    in the order of the sorted classes; X are image embeddings of the same CLIP.
    """

    name: ClassVar[str] = "zeroshot"
    fitted: ClassVar[tuple[str, ...]] = ("coef_", "bias_")
    prompts: np.ndarray | None = None
    scale: float = 100.0
    bias: float = 0.0

    def candidates(self) -> list[dict[str, Any]]:
        """Return a single one."""
        return [{}]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:  # noqa: ARG002
        """Take the prompts.

        Raises:
            ValueError: there are none, or they are no finite (K, d) that fits classes and columns.
        """
        if self.prompts is None:
            raise ValueError("zeroshot needs prompts, one text embedding (K, d) per class")
        prompts = np.asarray(self.prompts, np.float64)
        if prompts.shape != (self.n_classes_, x.shape[1]) or not np.isfinite(prompts).all():
            raise ValueError(
                f"zeroshot needs one finite prompt for each of {self.n_classes_} classes, "
                f"{x.shape[1]} wide, got an array of {prompts.shape}"
            )
        self.coef_ = self.scale * normalize(prompts)
        self.bias_ = np.array([self.bias], np.float64)

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(normalize(x) @ self.coef_.T + self.bias_)[None]
