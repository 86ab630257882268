"""Meta-training in its parts; `models.meta_train` is the way in.

events: what a run says while it goes on
progress, checkpoint: where it stands, and the bytes from which it goes on
pool: the trajectories that are under way, and the window that comes next
validation, selection: how good the rule is, which one is kept, and who may be named
turns: what a validation changes (a restart, a rollback, the next start, the end)
trainer: the meta-step that all of these make
"""
