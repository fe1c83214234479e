"""Training of a network in a run folder: the training loop, and the modules that it uses."""

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
