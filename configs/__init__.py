"""What a run is told: frozen, validated dataclasses and the YAML files that state only differences.

In: flags and YAML files. Out: `RunConfig` (run_rl.py) or `CamnetConfig` (camnet.train). Imports nothing of ours.
"""
