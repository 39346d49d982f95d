"""What a run is told of its policy."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from configs.checks import require_probabilities, require_range

PolicyName = Literal[
    "learned", "autodropout", "latent", "random", "cowmask", "crop", "downsample", "decolorize", "none"
]
LEARNED = ("learned", "autodropout", "latent")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Who corrupts, and how boldly."""

    name: Annotated[PolicyName, arg(aliases=["--policy"])] = "learned"
    """learned: the mask network, trained by REINFORCE. autodropout: one learned pattern of rectangles for all images,
    at first each as likely (28 % hidden). latent: random corruptions; the codes of the two views are what is learned.
    The others learn nothing and look at nothing. random: independent draws from the three rates below. cowmask, crop: a
    blob-shaped mask, or one rectangle, of that mask ratio. downsample, decolorize: only this, always. none: no
    corruption."""
    start: Annotated[str, arg(aliases=["--policy.from"])] = ""
    """Start from an exported policy: a run's folder, or its policy.safetensors. With --reward none it stays as it is:
    a frozen policy."""
    mask: Literal["cells", "budget", "smooth"] = "cells"
    """How the learned policy draws its mask. cells: each by itself. budget: exactly --policy.mask-ratio of the cells
    (Gumbel top-k). smooth: a coarse field, enlarged and cut at zero, so that edges follow no grid."""
    grid: int = 4
    """The mask hides whole cells of a grid x grid partition of the image; a power of two, at most one cell per
    pixel."""
    mask_ratio: float = 0.3
    """Probability that a cell is hidden; where a learned policy starts, where a fixed one stays. In [0, 1]."""
    decolorize: float = 0.1
    """Probability of deleting color; where a learned policy starts, where a fixed one stays. In [0, 1]."""
    downsample: tuple[float, float] = (0.1, 0.1)
    """Probabilities of downsampling by 2 and by 4; where a learned policy starts, where a fixed one stays."""
    width: int = 16
    """Channels of the policy network's first stage."""
    learning_rate: float = 3e-3
    """Adam's peak step size for the policy."""
    entropy_weight: float = 0.002
    """Weight of the entropy bonus (nats per image), in units of the reward's running RMS."""
    ratio_range: tuple[float, float] = (0.0, 0.5)
    """Mask-ratio guard: an image's expected mask ratio is free inside this range and pulled back outside it.
    Equal ends hold one ratio."""
    ratio_weight: float = 20.0
    """Strength of the guard: weight of the squared distance to the range, in units of the reward's RMS."""
    clip_norm: float = 1.0
    """Largest norm of the policy's gradient."""
    estimator: Literal["reinforce", "disarm", "evolution"] = "reinforce"
    """From rewards to a gradient. reinforce: the score function. disarm: antithetic pairs of masks (Dong et al. 2020);
    two corruptions an image. evolution: antithetic perturbations of the weights, no gradient of the policy at all; two
    corruptions an image."""
    perturbations: int = 8
    """evolution only: directions tried per step, each on its own part of the batch."""
    sigma: float = 0.1
    """evolution only: standard deviation of a perturbation of each weight."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.grid < 1 or self.grid & (self.grid - 1):
            raise ValueError(f"--policy.grid must be a power of two (1, 2, 4, 8, ...), got {self.grid}")
        if self.estimator == "disarm" and (self.name, self.mask) != ("learned", "cells"):
            raise ValueError(
                "--policy.estimator disarm is for bits only: it needs --policy learned --policy.mask cells"
            )
        if self.start and self.name not in LEARNED:
            raise ValueError(f"--policy {self.name} learns nothing, so there is nothing to take --policy.from a run")
        require_range("policy.mask-ratio", self.mask_ratio, 0, 1)
        require_range("policy.decolorize", self.decolorize, 0, 1)
        require_probabilities("policy.downsample", self.downsample)
        if not 0 <= self.ratio_range[0] <= self.ratio_range[1] <= 1:
            raise ValueError(
                f"--policy.ratio-range must be LOW HIGH with 0 <= LOW <= HIGH <= 1, got {self.ratio_range}"
            )
        require_range("policy.width", self.width, 8, 1024)
        require_range("policy.learning-rate", self.learning_rate, 0, 1)
        require_range("policy.entropy-weight", self.entropy_weight, 0, 100)
        require_range("policy.ratio-weight", self.ratio_weight, 0, 1e4)
        require_range("policy.clip-norm", self.clip_norm, 1e-6, 1e6)
        require_range("policy.perturbations", self.perturbations, 1, 1e6)
        require_range("policy.sigma", self.sigma, 1e-6, 10)

    @property
    def hidden_cells(self) -> int:
        """How many cells --policy.mask budget hides: the nearest whole number to the mask ratio."""
        return round(self.mask_ratio * self.grid**2)

    @property
    def learns(self) -> bool:
        """Whether it has anything that a reward could teach."""
        return self.name in LEARNED
