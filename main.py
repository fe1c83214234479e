"""EfficientNetV2 on the command line; ``python main.py --help`` lists the flags."""

from effnetv2_keras.cli import run

if __name__ == "__main__":
    run()
