"""The package name under which Keras registers and saves this package's layers."""

PACKAGE = "effnetv2_keras"
"""Prefix of the registered names of the layers."""
