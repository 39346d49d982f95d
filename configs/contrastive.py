"""What a run is told of its learner."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from configs.checks import require_range

LossName = Literal[
    "ntxent", "supcon", "stablerep", "paper", "l-in", "sincere", "dcl", "rince", "cosine-pull", "spherical"
]


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """The SimCLR learner."""

    encoder: str = "small"
    """small: three convolutions, for a CPU and for images up to 32 pixels. Any classifier of torchvision by its name
    (resnet18, resnet50, convnext_tiny, ...), or of timm as timm:NAME (pip install timm), from random weights.
    torchvision's ResNets get the CIFAR stem (3 x 3 convolution, no pooling) for images up to 64 pixels."""
    width: int = 32
    """small only: channels of the first stage; the others have twice as many."""
    projection: int = 64
    """Length of the projected vectors that the loss compares (SimCLR's is 128)."""
    loss: Annotated[LossName, arg(aliases=["--loss"])] = "ntxent"
    """ntxent: SimCLR's; with more than two views it is supcon (L_out) and stablerep (cross-entropy), which are the same
    function. paper: -log(sum of all exp-similarities within the image / that of the batch), one number per image. l-in:
    -log of the summed positives over the rest. sincere: the other positives leave the denominator. dcl: all positives
    do. rince: tolerates wrong positives. cosine-pull: ntxent of the first two views, the others are pulled to them.
    spherical: a linear classifier with one class, and one vector on the unit sphere, an image. docs/losses.md has the
    formulas."""
    temperature: float = 0.2
    """The loss's temperature."""
    rince_q: float = 0.5
    """rince only: 0 is the InfoNCE limit (excluded), 1 the most tolerant. In (0, 1]."""
    rince_lambda: float = 0.025
    """rince only: weight of the denominator. Above 0."""
    pull: float = 1.0
    """cosine-pull only: weight of the squared distances to further views."""
    chunk: int = 0
    """Images whose two views the encoder takes at once in training (GradCache: less memory, a second forward pass;
    BatchNorm then normalizes each chunk by itself); 0: all."""
    learning_rate: float = 3e-4
    """AdamW's peak step size for the learner. A fast learner is done before the policy has found the right pairs."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW)."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not self.encoder or self.encoder == "timm:":
            raise ValueError("--contrastive.encoder needs a name: small, resnet18, resnet50, timm:NAME, ...")
        require_range("contrastive.width", self.width, 8, 1024)
        require_range("contrastive.projection", self.projection, 8, 4096)
        require_range("contrastive.temperature", self.temperature, 0.01, 10)
        require_range("contrastive.rince-q", self.rince_q, 0.01, 1)
        require_range("contrastive.rince-lambda", self.rince_lambda, 1e-6, 1)
        require_range("contrastive.pull", self.pull, 0, 1000)
        require_range("contrastive.chunk", self.chunk, 0, 1e6)
        require_range("contrastive.learning-rate", self.learning_rate, 0, 1)
        require_range("contrastive.weight-decay", self.weight_decay, 0, 1)
