"""The names of all curves and pictures; docs/metrics.md explains each, and a test holds the two sets equal."""

RUN = frozenset(
    {
        "reward/raw",
        "reward/average",
        "reward/advantage_std",
        "learner/loss",
        "learner/grad_norm",
        "learner/positive_similarity",
        "reference/loss",
        "reference/slope",
        "policy/entropy",
        "policy/grad_norm",
        "policy/mask_ratio",
        "policy/p_decolorize",
        "policy/p_downsample_2",
        "policy/p_downsample_4",
        "evaluate/knn_top1",
        "time/data",
        "time/policy",
        "time/generator",
        "time/views",
        "time/learner",
        "time/reward",
        "views",
    }
)
CAMNET = frozenset(
    {
        "camnet/loss",
        "camnet/grad_norm",
        "camnet/best_distance",
        "camnet/mean_distance",
        "camnet/diversity",
        "camnet/prior_gain",
        "camnet/fill_loss",
        "camnet/color_loss",
        "camnet/taste_gain",
        "camnet/adversarial_loss",
        "camnet/discriminator_loss",
        "samples/mix",
        "samples/decompression",
        "samples/layout",
    }
)

PANELS = {
    "reward": ["reward/raw", "reward/average"],
    "what the policy corrupts": [
        "policy/mask_ratio",
        "policy/p_decolorize",
        "policy/p_downsample_2",
        "policy/p_downsample_4",
    ],
    "kNN accuracy (validation)": ["evaluate/knn_top1"],
    "learner's loss": ["learner/loss", "reference/loss"],
    "policy's entropy (nats per image)": ["policy/entropy"],
    "seconds per step": ["time/data", "time/policy", "time/generator", "time/views", "time/learner", "time/reward"],
}
"""What curves.png shows, panel by panel."""

SHOWN = {
    "learner/loss": "loss",
    "reward/average": "reward",
    "policy/mask_ratio": "mask",
    "policy/p_decolorize": "gray",
    "evaluate/knn_top1": "kNN",
}
"""What the progress bar shows, by tag."""
