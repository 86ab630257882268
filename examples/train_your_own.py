"""Have an optimizer trained for your kind of task, watch it learn, and use it (from GRADSMITH_URL, as in drop_in.py).

.venv/bin/python examples/train_your_own.py [quadratic | quadratic-uniform | digits-mlp | mnist-mlp] [META_STEPS]
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradsmith

family = sys.argv[1] if len(sys.argv) > 1 else "quadratic"
recipe = {"meta_steps": int(sys.argv[2])} if len(sys.argv) > 2 else {}
with gradsmith.Client() as client:
    job = client.jobs.create(family=family, recipe=recipe, evaluate=False)
    for event in client.jobs.stream(job):
        if isinstance(event, gradsmith.events.MetricsEvent):
            print(f"meta-step {event.step[-1]:5d}  loss {event.loss[-1]:.4f}")
    job = client.jobs.wait(job)  # raises JobFailed, with the reason, if it did not succeed
    path = client.optimizers.pull(job.optimizer, f"{family}.safetensors")
    print(f"{client.optimizers.get(job.optimizer).reference} is in {path}")
torch.manual_seed(0)
if family.startswith("quadratic"):  # a problem of that kind: ||W theta - y||^2 in ten dimensions
    draw = torch.rand if family == "quadratic-uniform" else torch.randn
    W, y, theta = draw(10, 10), draw(10), nn.Parameter(torch.randn(10))
    parameters, loss_now = [theta], lambda: (W @ theta - y).square().sum()
else:  # a small network that reads 8x8 digits
    pixels, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    model = nn.Sequential(nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 10))
    parameters, loss_now = model.parameters(), lambda: nn.functional.cross_entropy(model(pixels.float() / 16), labels)
optimizer = gradsmith.LearnedOptimizer(parameters, path)
for step in range(101):
    optimizer.zero_grad()
    (loss := loss_now()).backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.4f}")
