"""Laws of masks: what a policy's numbers for an image say about which cells are hidden. One law per file.

In: logits or rates. Out: masks of n images (1 = hidden) and their log-probabilities.
"""
