"""What a run keeps on disk: its folder, checkpoints and provenance."""

import effnetv2_keras.environment  # noqa: F401  before any of them imports TensorFlow
