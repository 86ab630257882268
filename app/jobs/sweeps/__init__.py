"""Sweeps: from a recipe with lists and ranges to the best of the trainings that these stand for.

`axes` finds what is swept in a request, `children` makes the training of a trial, `proposals` says which trials come
next, and `coordinator` is the thread that writes them. Nothing is kept but the children's rows: the proposals are a
function of these, so whoever asks, whenever, gets the same ones.
"""
