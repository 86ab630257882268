"""The claim, panel by panel: rules of several meta-seeds against the best of the tuned tier, which has Muon and SOAP on
networks, on problems that they were trained for and on others.

    ./run bench panels [--trained-on digits] [--seeds 0 1 2 3 4] [--keep FOLDER] [--data FOLDER]

Every baseline is tuned for each panel's own problem, horizon and criterion, over constant, linear and cosine schedules,
with one number of runs. All optimizers then run on the same test tasks. A ratio is that of the mean losses, learned
over the best baseline; below 1 the learned one is better. Seeds are shown in their order, and the median counts.
Trained rules and all runs are kept in FOLDER and used again, so a second call writes the tables in seconds.

`trainings` names what is trained, `catalogue` the problems. `runs` measures, `tier` tunes baselines, `costs` times
steps, `tables` writes lines, `section` puts them together. `held_out` and `per_image` are for losses on test images.
"""
