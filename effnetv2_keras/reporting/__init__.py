"""Output of a run for the user: progress, metrics, tables, plots and HTML reports."""

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
