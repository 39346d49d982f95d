"""Contrastive learning: the learner, its losses image by image, and measures of what it has learned.

In: pairs of views, images in [0, 1]. Out: unit vectors, losses of single images, kNN and linear accuracy.
"""
