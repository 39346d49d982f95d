"""A trained policy as data augmentation for a torchvision model: `python examples/train_torchvision.py RUN [EPOCHS]`.

RUN is the folder of a finished run: `python run_rl.py` makes runs/digits-loss-slope-seed0 within minutes.
"""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms import v2

from camnet import frozen
from configs.data import DataConfig
from env.images import load
from policy.transform import LearnedCorruption

if len(sys.argv) < 2:
    sys.exit(__doc__)
run, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
torch.manual_seed(0)
digits = load(DataConfig(), torch.device("cpu"))
to_float = v2.ToDtype(torch.float32, scale=True)
decorrupt = frozen.load("digits", torch.device("cpu"))  # leave it out, and what is hidden stays black
augment = v2.Compose([LearnedCorruption.from_file(run, decorrupt, p=0.8), to_float])

model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)  # 16 x 16 pixels need no coarse stem
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
batches = DataLoader(TensorDataset(digits.train.pixels, digits.train.labels), batch_size=64, shuffle=True)
for _ in range(epochs):
    for x, y in batches:
        loss = torch.nn.functional.cross_entropy(model(augment(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

with torch.no_grad():
    right = model.eval()(to_float(digits.test.pixels)).argmax(dim=1) == digits.test.labels
print(f"test accuracy after {epochs} epochs: {100 * right.float().mean():.1f} %")
