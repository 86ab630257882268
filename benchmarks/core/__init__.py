"""The core benchmark: meta-steps a second of ours and of three peers, the machine's ceilings, growth, memory.

problem    what is optimized: arrays in one file, which every process reads
tasks      the same problems as the product's TaskBatch
peers/     ours, plain PyTorch, JAX and learned_optimization behind one small class each
worker     the process around a peer; `fleet` is the other end of its pipe
reference  the meta-gradient in float64, which every peer has to give
compare, growth, ceilings, step    the measurements
report, picture    what comes out
"""
