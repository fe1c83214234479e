"""How pixels become the input that Keras' published weights expect. Needs no TensorFlow."""

from __future__ import annotations

from effnetv2_keras.architecture.specs import Normalization

NORMALIZATION: dict[str, Normalization] = {
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), "caffe"),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), "imagenet"),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "MobileNetV2"), "symmetric"),
    **dict.fromkeys(("InceptionV3", "InceptionResNetV2", "Xception", "NASNetMobile", "NASNetLarge"), "symmetric"),
}
"""What Keras' ``"imagenet"`` weights of its networks expect, as their ``preprocess_input`` makes it. Networks that are
not here normalize pixels themselves, or cannot be trained with images of several sizes."""
