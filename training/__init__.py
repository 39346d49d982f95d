"""What a run needs and no paper speaks of: device, seeds, checkpoints, logbook, run folder.

In: a configuration, and the state and the measurements of whatever is trained. Out: a folder under runs/ from
which the same command resumes (on a CPU bit for bit); imports nothing of ours but `configs`.
"""
