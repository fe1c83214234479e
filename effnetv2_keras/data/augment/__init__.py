"""Augmentations of single images and of batches."""
