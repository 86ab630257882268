"""The comparison of a learned optimizer with tuned baselines, and what it may claim.

`evaluate` runs everything, `statistics` puts intervals around losses, `step_costs` times a step, `equal_time` compares
in seconds, `time_to_target` draws performance profiles, `break_even` counts the runs after which training has paid.
"""
