"""Augmentations of single images (RandAugment, AutoAugment, cutout) and of batches (MixUp, CutMix)."""
