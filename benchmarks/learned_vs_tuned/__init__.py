"""Learned against tuned: several meta-seeds of a family, each measured on the same held-out tasks, all reported.

measure    meta-training, tuning of the baselines on validation tasks, and the comparison on test tasks
report     the family's section of RESULTS.md
picture    docs/images/<family>.png
main       the command line
"""
