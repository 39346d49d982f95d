"""On-manifold pairs in lightly's SimCLR: `python examples/lightly_simclr.py RUN [EPOCHS]`; needs `pip install lightly`.

RUN is the folder of a finished run (`python run_rl.py` makes one): its policy corrupts each image, the shipped CAMNet
decorrupts it twice. These views take the place of lightly's own; its head and its loss are used as they come.
"""

import sys

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from sklearn.neighbors import KNeighborsClassifier
from torch.utils.data import DataLoader
from torchvision.models.resnet import BasicBlock, ResNet

from camnet import frozen
from configs.data import DataConfig
from env.images import load
from policy.transform import LearnedCorruption

if len(sys.argv) < 2:
    sys.exit(__doc__)
run, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
torch.manual_seed(0)
cpu = torch.device("cpu")
digits = load(DataConfig(), cpu)
train, test = digits.train, digits.test
pair = LearnedCorruption.from_file(run, frozen.load("digits", cpu), views=2)
# As a collate function it sees whole batches: one call of the policy and one of CAMNet for all images of a batch.
batches = DataLoader(train.images(), 64, shuffle=True, drop_last=True, collate_fn=lambda x: pair(torch.stack(x)))

encoder = ResNet(BasicBlock, [1, 1, 1, 1])
encoder.conv1, encoder.fc = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
head, criterion = SimCLRProjectionHead(512, 512, 64), NTXentLoss(temperature=0.2)
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
for _ in range(epochs):
    for first, second in batches:
        loss = criterion(head(encoder(first)), head(encoder(second)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

with torch.no_grad():
    features, queries = (encoder.eval()(part.images()) for part in (train, test))
accuracy = KNeighborsClassifier(metric="cosine").fit(features, train.labels).score(queries, test.labels)
print(f"kNN accuracy after {epochs} epochs without labels: {100 * accuracy:.1f} %")
