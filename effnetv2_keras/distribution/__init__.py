"""Choice of devices, and communication between replicas and workers."""

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
