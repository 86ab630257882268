"""The core benchmark: meta-steps a second of ours and of three peers, the machine's ceilings, growth, memory.

problem    what is optimized: arrays in one file, which every process reads
tasks      the same problems as the product's TaskBatch
peers/     ours (in threads, in processes, without a tape), plain PyTorch, JAX and learned_optimization: one class each;
           plain PyTorch and JAX once more for meta-gradients with second derivatives
worker     the process around a peer; `fleet` is the other end of its pipe
served     the service as `serve` starts it, for first_step and for the service benchmark
reference  the meta-gradient in float64, which every peer has to give
compare, growth, ceilings, accuracy, shares (with parts), first_step, step    the measurements
sections, kept, main    what is measured, what is kept of an interrupted run, the command line
results, report/, picture    what comes out; report/verdicts holds it against what was to be shown
"""
