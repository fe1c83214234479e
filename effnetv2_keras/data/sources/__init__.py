"""Sources of images and labels: one module per kind of source."""
