"""The name under which Keras saves this package's layers."""

PACKAGE = "effnetv2_keras"
"""Prefix of their registered names."""
