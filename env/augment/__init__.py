"""Expert augmentation: what people know to be beside the point of an image, drawn separately for each view.

All views of a batch in one call on the device; every image has its own parameters. One operation per file: boxes (laws
of crops) -> resample (crop, flip and rotation) · color · blur -> expert (all of them); share (which images), dial (how
strong); dataloader is the same in torchvision's transforms.
"""
