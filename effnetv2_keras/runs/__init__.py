"""The files of a run: its folder, checkpoints and provenance."""

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
