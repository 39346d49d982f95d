"""SimCLR on pairs from torchvision and DataLoader workers: `python examples/dataloader_pairs.py --data FOLDER`.

FOLDER holds (or gets, with --download) CIFAR-10; `--fake 512` takes that many random pictures instead. The views have
the same law as those that run_rl.py makes on the device in one call (docs/augmentation.md).
"""

import argparse
import sys

import torch
from torch.utils.data import DataLoader
from torchvision import datasets

from configs.augment import AugmentConfig
from configs.contrastive import ContrastiveConfig
from contrastive.encoder import Learner
from contrastive.losses import ntxent
from env.augment.dataloader import PairsDataset, transform


def main(argv: list[str]) -> None:
    """Train for some steps and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder of CIFAR-10")
    parser.add_argument("--download", action="store_true", help="download it if it is not there")
    parser.add_argument("--fake", type=int, default=0, help="random pictures in its place, so many")
    parser.add_argument("--batch", type=int, default=256, help="images of a step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="processes that augment")
    options = parser.parse_args(argv)

    torch.manual_seed(0)
    if options.fake:
        images = datasets.FakeData(options.fake, (3, 32, 32))
    else:
        images = datasets.CIFAR10(options.data, download=options.download)
    if len(images) < options.batch:
        parser.error(f"--batch {options.batch}: there are only {len(images)} pictures")
    augment = transform(AugmentConfig(crop="edge"), strength=1.0, image_size=32)
    pairs = PairsDataset(images, augment, views=2)
    loader = DataLoader(pairs, options.batch, shuffle=True, drop_last=True, num_workers=options.workers)

    learner = Learner(ContrastiveConfig(), image_size=32)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    step = 0
    while step < options.steps:
        for views, _ in loader:  # (n, 2, 3, 32, 32), and labels that nobody asks for
            step += 1
            n, k = views.shape[:2]
            u = learner(views.transpose(0, 1).flatten(0, 1))  # one call: both views share BatchNorm's statistics
            loss = ntxent(u.view(k, n, -1), temperature=0.2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"step {step}: loss {loss.item():.3f}")
            if step == options.steps:
                break


if __name__ == "__main__":
    main(sys.argv[1:])
