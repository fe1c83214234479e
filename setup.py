"""Puts the recipes of ``hparams/`` into the package: an installation has ``effnetv2_keras`` and nothing else on top."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["effnetv2_keras", "effnetv2_keras.*"]), "effnetv2_keras.hparams"],
    package_dir={"effnetv2_keras.hparams": "hparams"},
)
