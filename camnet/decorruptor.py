"""What the loop asks of a decorruptor g(x̃, z); docs/bring-your-own.md shows how to bring another.

A decorruptor restores degraded images, one restoration per code. It is an operator, not a module: it is never trained,
nobody can put it into another mode, and no gradient flows through it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from camnet.degraded import Degraded, each
from configs.camnet import Task

Codes: TypeAlias = Any
"""Latent codes, as many rows as images to restore. The loop reorders rows (`select_rows`) and never looks inside: a
tensor whose first axis is the row, an object with `select(index)`, or a list or tuple of such."""


class Decorruptor(ABC):
    """A frozen conditional generator g(x̃, z).

    A new one has three methods to write: `codes`, `restore` and `sha256`. Whatever `restore` makes of what was kept,
    `views` and `two_views` put it back exactly (`Degraded.make_consistent`).

    Attributes:
        size: Side in pixels of the images it restores; None: any.
        tasks: What it restores; None: whatever it is given.
        factors: How many of the downsampling factors `env.corruption.FACTORS` it can distinguish; None: all.
        card: What it is, for the record. A `data` entry (name, seed, and classes and size where they matter) says what
            it was trained on; a run on other splits of the same images is then refused. So it is by entries in its
            `before`, the card of the weights that its training began with. `class_names` tells folders apart.
        proposable: How many numbers of a code a policy may propose (`with_proposal`); 0: codes are always drawn.
        consistent: Whether `restore` itself keeps what was kept, so that it need not be put back once more.
    """

    size: int | None = None
    tasks: tuple[Task, ...] | None = None
    factors: int | None = None
    card: Mapping[str, Any] = MappingProxyType({})
    proposable: int = 0
    consistent: ClassVar[bool] = False

    @abstractmethod
    def codes(self, n: int, random: torch.Generator) -> Codes:
        """Draw n codes on the device of `random`, and from nothing else."""

    @abstractmethod
    def restore(self, degraded: Degraded, codes: Codes) -> Float[Tensor, "nk 3 h w"]:
        """Restore each image once for each of its codes; no randomness but that of the codes.

        Args:
            degraded: n degraded images.
            codes: k codes for each image (k at least 1), image by image: rows i*k to i*k + k-1 belong to image i.

        Returns:
            The restorations in the order of the codes.
        """

    @abstractmethod
    def sha256(self) -> str:
        """Identity of the weights as they are now, equal before and after a run (`weights_sha256`)."""

    def with_proposal(self, codes: Codes, proposed: Float[Tensor, "m c"]) -> Codes:
        """The codes with their first `proposable` numbers replaced; for generators that know what these are."""
        raise NotImplementedError(f"{type(self).__name__} takes no proposed codes")

    @torch.no_grad()
    def views(
        self,
        degraded: Degraded,
        k: int,
        random: torch.Generator | None = None,
        proposed: Float[Tensor, "n k c"] | None = None,
        codes: Codes | None = None,
    ) -> Float[Tensor, "n k 3 h w"]:
        """Restore each image with k independent codes, in one forward pass.

        Codes lie view by view, drawn or given: row j*n + i of n*k belongs to view j of image i. (`restore` by itself
        takes them image by image.)

        Args:
            degraded: n degraded images.
            k: Views per image, at least 1.
            random: Draws the codes; on the images' device.
            proposed: What a policy proposes for a part of each code; the rest stays as it was.
            codes: The codes to use in place of drawn ones.

        Returns:
            Images in [0, 1] that keep what was kept; free of gradient.

        Raises:
            ValueError: If there is not exactly one of codes and what draws them, or `restore` returns something of
                another shape than one image per code.
        """
        n = len(degraded)
        if (codes is None) == (random is None):
            raise ValueError("views needs either codes or a generator that draws them")
        codes = self.codes(n * k, random) if random is not None else codes
        codes = select_rows(codes, _image_by_image(n, k, degraded.kept.device))
        if proposed is not None:
            codes = self.with_proposal(codes, proposed.flatten(0, 1))
        restored = self.restore(degraded, codes)
        expected = (n * k, *degraded.kept.shape[1:])
        if tuple(restored.shape) != expected:
            raise ValueError(f"{type(self).__name__}.restore returned {tuple(restored.shape)}, not {expected}")
        if not self.consistent:
            restored = each(degraded, k).make_consistent(restored.to(degraded.kept.dtype))
        return restored.unflatten(0, (n, k))

    def two_views(
        self, degraded: Degraded, random: torch.Generator | None = None, codes: Codes | None = None
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
        """Decorrupt twice with independent codes: v1 = g(x̃, z1), v2 = g(x̃, z2), in one forward pass.

        2n codes are drawn, or given; row i of them belongs to the first view of image i, row n + i to its second.
        """
        v1, v2 = self.views(degraded, 2, random, codes=codes).unbind(1)
        return v1, v2


def select_rows(codes: Codes, index: Int[Tensor, " m"]) -> Codes:
    """The codes at the given rows."""
    if isinstance(codes, Tensor):
        return codes[index]
    if isinstance(codes, list | tuple):
        return [select_rows(part, index) for part in codes]
    return codes.select(index)


def codes_per_image(codes: int, images: int) -> int:
    """How many codes each image has.

    Raises:
        ValueError: If images cannot have equally many, or have none.
    """
    if codes < images or codes % images:
        raise ValueError(f"{codes} codes for {images} images: every image needs equally many, and at least one")
    return codes // images


def weights_sha256(module: nn.Module) -> str:
    """Hash of a module's weights, names and values, as they lie in memory now."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        # As bytes: numpy knows no bfloat16.
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _image_by_image(n: int, k: int, device: torch.device) -> Int[Tensor, " nk"]:
    """Rows of k draws of n (draw by draw), in the order image by image."""
    return torch.arange(n * k, device=device).view(k, n).T.flatten()
