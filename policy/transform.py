"""A trained policy as a torchvision transform, for anybody's pipeline: `LearnedCorruption.from_file("runs/NAME")`."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor, resize, to_pil_image

from env.corruption import Corrupted, corrupt
from policy.build import LearnedPolicy
from policy.export import load
from policy.latent import PROPOSED, LatentPolicy

SLACK = 0.5
"""How far float images may lie outside [0, 1]: bicubic resizing overshoots a little, normalized images far more."""


@runtime_checkable
class Decorrupts(Protocol):
    """A frozen generator; `camnet.decorruptor.Decorruptor` is one."""

    def views(self, degraded: Corrupted, k: int, random: torch.Generator) -> Tensor:
        """Restore each of n corrupted images k times: (n, k, 3, h, w) in [0, 1]."""


class LearnedCorruption(v2.Transform):
    """Corrupts images the way a trained policy would; with a decorruptor, restores them once more or more often.

    Takes RGB images, before any normalization: PIL images, tv_tensors.Image, and plain tensors (3, h, w) or batches
    (n, 3, h, w), bytes or floats in [0, 1]. What comes out is of the kind that went in. Labels, boxes, masks and videos
    in a sample pass through untouched.

    Images must be square. The policy looks at a copy resized to its own size, and its mask is enlarged to the image:
    exactly where its cells divide the image, to the nearest pixel where they do not.

    Random numbers come from torch's global generator, which DataLoader seeds for each worker: one number per call seeds
    all else. Each image of a batch gets a corruption of its own; several images of one sample share the random numbers,
    not the policy's opinion of them.

    Args:
        policy: A trained policy (`policy.export.load`).
        decorruptor: Restores what was corrupted; it must take images of the pipeline's size. None: corruption is all.
        p: Probability that an image is corrupted at all, in [0, 1].
        fill: What hidden pixels become where there is no decorruptor, in [0, 1]; 0 is black.
        views: With a decorruptor: restorations of each corrupted image. Above 1, an image is replaced by a tuple of so
            many: two are a positive pair for SimCLR.

    Raises:
        ValueError: If a setting is out of range, several views are asked for without a decorruptor, or more than the
            policy proposes codes for.
    """

    def __init__(
        self,
        policy: LearnedPolicy,
        decorruptor: Decorrupts | None = None,
        *,
        p: float = 1.0,
        fill: float = 0.0,
        views: int = 1,
    ) -> None:
        super().__init__()
        if not (0 <= p <= 1 and 0 <= fill <= 1):
            raise ValueError(f"p and fill must lie in [0, 1], got p={p:g}, fill={fill:g}")
        if views < 1 or (views > 1 and decorruptor is None):
            raise ValueError(
                f"views={views}: without a decorruptor there is one view; apply the transform twice for two"
            )
        if isinstance(policy, LatentPolicy) and views > PROPOSED:
            raise ValueError(f"views={views}: a latent policy proposes the codes of {PROPOSED} views")
        self.policy = copy.deepcopy(policy).eval().requires_grad_(False)
        self.decorruptor = decorruptor
        self.p, self.fill, self.views = p, fill, views

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        decorruptor: Decorrupts | None = None,
        *,
        p: float = 1.0,
        fill: float = 0.0,
        views: int = 1,
    ) -> "LearnedCorruption":
        """Load an exported policy: the run's folder, or its policy.safetensors with the card beside it.

        Args:
            path: Where it lies.
            decorruptor: As for the class.
            p: As for the class.
            fill: As for the class.
            views: As for the class.

        Raises:
            UsageError: If the files are missing, damaged or no policy.
            ValueError: As for the class.
        """
        return cls(load(Path(path)), decorruptor, p=p, fill=fill, views=views)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw one seed from torch's global generator."""
        return {"seed": int(torch.randint(2**63 - 1, ()))}

    @torch.no_grad()
    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Corrupt one image or batch; anything else stays as it is.

        Raises:
            ValueError: If the image is not RGB, not square, not in [0, 1], or not of the decorruptor's size.
        """
        if isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, tv_tensors.Image):
            return inpt
        x = as_batch(inpt)
        random = torch.Generator(x.device).manual_seed(params["seed"])
        corrupted = self.corrupted(x, random)
        if self.decorruptor is None:
            return as_given(torch.where(corrupted.hidden.bool(), self.fill, corrupted.kept), inpt)
        views = tuple(as_given(view, inpt) for view in self._restored(corrupted, random).unbind(1))
        return views if self.views > 1 else views[0]

    def corrupted(self, x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> Corrupted:
        """Corrupt a batch of square images in [0, 1]; an image that is left out (1 - p) loses nothing.

        Args:
            x: Images, on the policy's device.
            random: Draws the actions, on the same device.
        """
        size = [self.policy.image_size, self.policy.image_size]
        seen = x if list(x.shape[-2:]) == size else resize(x, size, antialias=True)
        action = self.policy(seen).sample(random)
        chosen = torch.rand(len(x), generator=random, device=x.device) < self.p
        mask = fitted(action.mask & chosen[:, None, None], x.shape[-1])
        return corrupt(
            x,
            replace(action, mask=mask, downsample=action.downsample * chosen, decolorize=action.decolorize & chosen),
        )

    def _restored(self, corrupted: Corrupted, random: torch.Generator) -> Float[Tensor, "n k 3 h w"]:
        """The decorruptor's views, from codes that the policy proposed where it proposes any."""
        assert self.decorruptor is not None
        size, given = getattr(self.decorruptor, "size", None), corrupted.kept.shape[-1]
        if size not in (None, given):
            raise ValueError(
                f"this decorruptor restores {size} x {size} images, got {given} x {given}: put v2.Resize({size}) before"
            )
        code = corrupted.action.code
        proposed = () if code is None else (code[:, : self.views],)
        return self.decorruptor.views(corrupted, self.views, random, *proposed)


def as_batch(image: Any) -> Float[Tensor, "n 3 h w"]:
    """A PIL image, an image tensor or a batch as float32 in [0, 1].

    Raises:
        ValueError: If it is not RGB, not square, not bytes or floats, or (on a CPU) far outside [0, 1].
    """
    x = pil_to_tensor(image) if isinstance(image, PIL.Image.Image) else image.as_subclass(Tensor)
    if x.ndim not in (3, 4) or x.shape[-3] != 3 or x.shape[-2] != x.shape[-1]:
        raise ValueError(
            f"LearnedCorruption takes square RGB images, (3, s, s) or (n, 3, s, s), got {tuple(x.shape)}: "
            "put v2.RGB(), v2.CenterCrop(s) or v2.Resize((s, s)) before it"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"LearnedCorruption takes bytes (uint8) or floats in [0, 1], got {x.dtype}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    # On a GPU the host would wait for the answer.
    if x.device.type == "cpu" and x.numel() and not (x.amin() >= -SLACK and x.amax() <= 1 + SLACK):
        raise ValueError("LearnedCorruption takes floats in [0, 1]: put it before v2.Normalize, and scale bytes by 255")
    return x if x.ndim == 4 else x.unsqueeze(0)


def as_given(x: Float[Tensor, "n 3 h w"], given: Any) -> Any:
    """Images as the kind, the type and the rank of what was given."""
    pil = isinstance(given, PIL.Image.Image)
    if pil or given.dtype == torch.uint8:
        x = (x * 255).round().clamp(0, 255).to(torch.uint8)
    if pil:
        return to_pil_image(x[0])
    x = (x if given.ndim == 4 else x[0]).to(given.dtype)
    return tv_tensors.wrap(x, like=given) if isinstance(given, tv_tensors.Image) else x


def fitted(mask: Bool[Tensor, "n s s"], size: int) -> Bool[Tensor, "n t t"]:
    """A mask whose cells divide images of that side: as it is, or one cell per pixel, each the nearest of before."""
    if size % mask.shape[-1] == 0:
        return mask
    return F.interpolate(mask[:, None].float(), size=(size, size), mode="nearest-exact").squeeze(1).bool()
