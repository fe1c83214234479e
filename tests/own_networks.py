"""Functions that return valid and invalid networks for ``--model_name=keras:tests.own_networks:NAME``."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_keras.models.keras_compat import IS_KERAS_3

layers = tf.keras.layers


def _classified(images, x, num_classes, activation=None):
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(images, layers.Dense(num_classes, activation=activation)(x))


def tiny(num_classes):
    """Returns a network with every kind of dropout, BatchNorm with and without scale, and a nested model."""
    images = tf.keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, padding="same")(images)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-4, scale=False)(x))
    x = layers.Dropout(0.05, name="body_dropout")(x)
    inner = tf.keras.Input((16, 16, 8))
    y = layers.DepthwiseConv2D(3, padding="same")(inner)
    y = layers.BatchNormalization(momentum=0.5)(y)
    y = layers.Dropout(0.1, noise_shape=(None, 1, 1, 1), name="depth")(y)
    x = x + tf.keras.Model(inner, y)(x)
    x = tf.keras.Sequential([layers.Conv2D(16, 3, strides=2, activation="swish")])(x)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(images, layers.Dense(num_classes, name="logits")(x))


def bare(num_classes):
    """Returns a network without BatchNorm and dropout that normalizes pixels itself."""
    images = tf.keras.Input((None, None, 3))
    normalization = layers.Normalization(name="pixels")
    normalization.adapt(tf.constant([[[[0.0, 50.0, 100.0]], [[200.0, 150.0, 100.0]]]]) + 1.0)
    return _classified(images, layers.Conv2D(8, 3, activation="relu")(normalization(images)), num_classes)


def softmax(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, images, num_classes, "softmax")


def probabilities(num_classes):
    model = bare(num_classes)
    return tf.keras.Model(model.input, (tf.keras.ops if IS_KERAS_3 else tf.nn).softmax(model.output))


def fixed(num_classes):
    images = tf.keras.Input((16, 16, 3))
    return tf.keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(images)))


def reshaped(num_classes):
    images = tf.keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 4, strides=4)(images)
    x = layers.GlobalAveragePooling1D()(layers.Reshape((16, 8))(x))
    return tf.keras.Model(images, layers.Dense(num_classes)(x))


def spatial_dropout(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, layers.SpatialDropout2D(0.1, name="spatial")(images), num_classes)


def noisy(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, layers.GaussianNoise(0.1, name="noise")(images), num_classes)


class Uniform(layers.Layer):
    def call(self, inputs):
        return inputs * tf.random.uniform(tf.shape(inputs))


def uniform(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, Uniform(name="own")(images), num_classes)


class Seeded(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = tf.keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs * tf.keras.random.uniform(tf.shape(inputs), seed=self.generator)


def seeded(num_classes):
    """Returns a network of Keras 3 whose random numbers depend on a counter."""
    images = tf.keras.Input((None, None, 3))
    return _classified(images, Seeded(name="own")(images), num_classes)


class Counter(layers.Layer):
    def build(self, input_shape):
        self.count = self.add_weight(name="count", shape=(), dtype="int64", initializer="zeros", trainable=False)

    def call(self, inputs):
        return inputs * 1.0


def counted(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, Counter(name="counter")(images), num_classes)


def of_64_px(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, images * tf.ones([64, 64, 1]), num_classes)


def from_24_px(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, layers.Conv2D(8, 24)(images), num_classes)


def by_rows(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, layers.Dropout(0.1, noise_shape=(None, 1, 1, 3), name="rows")(images), num_classes)


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization(name="hidden")

    def call(self, inputs):
        return self.norm(inputs)


def hidden(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, Block()(images), num_classes)


class Unsaved(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs):
        return inputs + 0.0

    def get_config(self):
        return {"name": self.name}


def unsaved(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, Unsaved(8, name="unsaved")(images), num_classes)


def channels_first(num_classes):
    images = tf.keras.Input((8, 8, 3))
    return _classified(images, layers.BatchNormalization(axis=1, name="rows")(images), num_classes)


def regularized(num_classes):
    images = tf.keras.Input((None, None, 3))
    return _classified(images, layers.Conv2D(4, 1, kernel_regularizer="l2")(images), num_classes)


def frozen(num_classes):
    model = bare(num_classes)
    model.layers[2].trainable = False
    setattr(model.layers[2], "name" if IS_KERAS_3 else "_name", "backbone")
    return model


def compiled(num_classes):
    model = bare(num_classes)
    model.compile("sgd", "mse")
    return model


def twins(num_classes):
    images = tf.keras.Input((None, None, 3))
    one = tf.keras.Sequential([tf.keras.Input((None, None, 3)), layers.Conv2D(3, 1, name="same")])
    two = tf.keras.Sequential([tf.keras.Input((None, None, 3)), layers.Conv2D(3, 1, name="same")])
    return _classified(images, two(one(images)), num_classes)


def too_many(num_classes):
    return bare(num_classes + 1)


def two_inputs(num_classes):
    images = [tf.keras.Input((None, None, 3)), tf.keras.Input((None, None, 3))]
    return _classified(images, layers.Add()(images), num_classes)


class Subclassed(tf.keras.Model):
    def call(self, inputs):
        return inputs


def subclassed(num_classes):
    return Subclassed()


def nothing(num_classes):
    return None


def classes_first(classes):
    return bare(classes)


number = 3
