"""The input pipeline: sources, decoding, augmentation, mixing, and the one place that chains them."""
