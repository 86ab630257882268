"""Have an optimizer trained for your kind of task, watch it learn, and use it.

python examples/train_your_own.py [FAMILY] [META_STEPS]     (the server: GRADSMITH_URL, else http://127.0.0.1:8000)
"""

import sys

import torch

import gradsmith
from gradsmith.events import MetricsEvent

family = sys.argv[1] if len(sys.argv) > 1 else "quadratic"
recipe = {"meta_steps": int(sys.argv[2])} if len(sys.argv) > 2 else {}

with gradsmith.Client() as client:
    job = client.jobs.create(family=family, recipe=recipe, evaluate=False)
    for event in client.jobs.stream(job):
        if isinstance(event, MetricsEvent):
            print(f"meta-step {event.step[-1]:5d}  loss {event.loss[-1]:.4f}")
    job = client.jobs.wait(job)  # raises JobFailed, with the reason, if it did not succeed
    path = client.optimizers.pull(job.optimizer, f"{family}.safetensors")
    print(f"{client.optimizers.get(job.optimizer).reference} is in {path}")

# A problem of the kind that it was trained on: ||W theta - y||^2 in ten dimensions.
torch.manual_seed(0)
W, y = torch.randn(10, 10), torch.randn(10)
theta = torch.nn.Parameter(torch.randn(10))
optimizer = gradsmith.LearnedOptimizer([theta], path)
for step in range(101):
    optimizer.zero_grad()
    loss = (W @ theta - y).square().sum()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.4f}")
