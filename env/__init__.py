"""The vocabulary below the learners: images, corruptions, rewards, and the Gymnasium faces of the environment.

In: pixels and actions. Out: corrupted images and per-image rewards. Generator and learner come as arguments, never as
imports. Importing this package loads no torch, and registers `CorruptionPolicy-v0`:

    gymnasium.make("env:CorruptionPolicy-v0", flags=["--data", "digits"])       # one image, numpy (env/single.py)
    gymnasium.make_vec("env:CorruptionPolicy-v0", num_envs=64)                  # a batch, torch (env/vector.py)
"""

import gymnasium

if "CorruptionPolicy-v0" not in gymnasium.registry:  # registering again, on a reload, would warn
    # No max_episode_steps: its wrapper would call the end of an episode a truncation, and an agent would bootstrap.
    gymnasium.register(
        "CorruptionPolicy-v0",
        entry_point="system:single_environment",
        vector_entry_point="system:vector_environment",
    )
