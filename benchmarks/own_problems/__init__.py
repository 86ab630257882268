"""Five problems of one's own through the public API alone: trained, evaluated, and used by `LearnedOptimizer`.

    ./run bench own_problems [--only clinics wine autoencoder lasso pendulum] [--seed 0] [--quick] [--dry]

Starts the service as `./run serve` does, on an empty data folder, with one worker, and is its client over HTTP. Each
family is declared by `POST /families`, trained by the recipe that is usual for its kind, and compared with its tuned
tier on held-out tasks. The optimizer and the tuned baseline that the evaluation registered then run in an ordinary
PyTorch loop, on tasks that `loops` writes with torch alone: no code of the service draws them or computes their loss.

`problems` declares the families, `tables` writes lines. Each family has a section of RESULTS.md.
"""
