"""EfficientNetV2 on the command line: ``python -m effnetv2_keras --help`` lists the flags."""

from effnetv2_keras.cli import run

if __name__ == "__main__":
    run()
