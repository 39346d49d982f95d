"""The vocabulary below the learners: images, corruptions, rewards.

In: pixels and actions. Out: corrupted images and per-image rewards. Generator and learner come as arguments,
never as imports.
"""
