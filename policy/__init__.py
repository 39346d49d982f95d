"""The policy π_θ: what to delete from an image, learned by REINFORCE or fixed.

In: images in [0, 1], rewards of single images. Out: distributions over corruptions, losses, exported weights.
"""
