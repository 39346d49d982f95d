"""CAMNet: a cascade of modules, coarse to fine, trained by conditional IMLE, then frozen as the decorruptor.

In: corrupted images and latent codes. Out: restored images that keep what the corruption kept and differ, code by
code, in what it deleted.
"""
