"""Expert augmentation of a batch of views: crop, flip, rotation, color jitter, grayscale, blur."""

import torch
from jaxtyping import Float
from torch import Tensor

from configs.augment import AugmentConfig
from env.augment.blur import blur
from env.augment.boxes import Boxes, anywhere, edge_aligned, whole
from env.augment.color import Jitter, gray
from env.augment.dial import Dial
from env.augment.resample import resample
from env.augment.share import replace_share


class Expert:
    """SimCLR's augmentation on the device: one call for all views, each image by parameters of its own.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", appendix A.
    Each operation is torchvision's to rounding, and so is the law of each image's parameters. Departures: how many
    images of a batch are jittered, gray or blurred is as good as fixed (`share`), and rotation has no black corners.

    Args:
        config: What is done, how often.
        strength: The dial, from 0 (nothing at all) to 1; it scales crop and color jitter.
        image_size: Side of the images in pixels.
    """

    def __init__(self, config: AugmentConfig, strength: float, image_size: int) -> None:
        self.config, self.image_size = config, image_size
        self.dial = Dial(strength)
        self.jitter = Jitter(self.dial.blend, self.dial.turn)

    def __call__(self, x: Float[Tensor, "m 3 h w"], random: torch.Generator) -> Float[Tensor, "m 3 h w"]:
        """Augment images in [0, 1].

        Args:
            x: Images; several views of an image are several rows. They stay as they are.
            random: Draws, on the images' device.

        Returns:
            New images in [0, 1]; at strength 0 the same tensor, and nothing is drawn.

        Raises:
            ValueError: If the images are of another size than said at first.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"expected images of {self.image_size} x {self.image_size} pixels, got {tuple(x.shape)}")
        if self.dial.strength == 0:
            return x
        x = self._moved(x, random)
        replace_share(x, self.dial.jitter_probability, self.jitter, random)
        replace_share(x, self.config.gray, lambda part, _: gray(part).expand_as(part), random)
        replace_share(x, self.config.blur, blur, random)
        return x.clamp_(0, 1)  # interpolation may miss it by a rounding error

    def _moved(self, x: Float[Tensor, "m 3 h w"], random: torch.Generator) -> Float[Tensor, "m 3 h w"]:
        """Crop, flip and rotate."""
        boxes = self._boxes(len(x), random)
        mirrored = torch.rand(len(x), generator=random, device=x.device) < self.config.flip
        degrees = None
        if self.config.rotation > 0:
            degrees = self.config.rotation * (2 * torch.rand(len(x), generator=random, device=x.device) - 1)
        return resample(x, boxes, mirrored, degrees)

    def _boxes(self, m: int, random: torch.Generator) -> Boxes:
        """What is kept of each image."""
        if self.config.crop == "none":
            return whole(m, self.image_size, random.device)
        law = edge_aligned if self.config.crop == "edge" else anywhere
        return law(m, self.image_size, self.dial.smallest_area, random)
