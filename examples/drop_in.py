"""Train a network on real images of digits with a learned optimizer: one line of an ordinary PyTorch loop changes.

.venv/bin/python examples/drop_in.py [quadratic@best | FILE.safetensors]     (references come from GRADSMITH_URL)
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradsmith

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
inputs, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
order = torch.randperm(len(labels))
train, test = order[:1400], order[1400:]
model = nn.Sequential(nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 10))

# was: optimizer = torch.optim.Adam(model.parameters(), lr=...)
optimizer = gradsmith.LearnedOptimizer(model.parameters(), sys.argv[1] if len(sys.argv) > 1 else "quadratic@best")

for step in range(100):
    batch = train[torch.randint(len(train), (128,))]
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
    loss.backward()
    optimizer.step()
    if step % 20 == 19:
        print(f"step {step + 1:3d}  loss {loss.item():.3f}")

accuracy = (model(inputs[test]).argmax(1) == labels[test]).float().mean().item()
print(f"{accuracy:.1%} of {len(test)} digits that it never saw are read correctly")
