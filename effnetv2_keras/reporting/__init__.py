"""What a person is told about a run: progress, metrics, tables, plots and pages."""

import effnetv2_keras.environment  # noqa: F401  before any of them imports TensorFlow
