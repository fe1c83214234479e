"""The input pipeline: sources, decoding, augmentation and mixing. ``pipeline`` chains them."""
