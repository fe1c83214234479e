"""Test-time augmentation: several views of an image, whose probabilities are averaged."""

from __future__ import annotations

import dataclasses
from typing import Callable

import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.cropping import evaluated_share
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.optim import losses

Network = Callable[..., tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Views:
    """Which views of each image a network classifies.

    Attributes:
        tta: value of ``eval.tta``.
        image_size: side of a view, pixels.
        data: data settings with which an image becomes the square that the views are taken from.
        loaded_size: side of that square, pixels.
    """

    tta: str
    image_size: int
    data: DataConfig
    loaded_size: int

    @classmethod
    def of(cls, tta: str, data: DataConfig, image_size: int) -> Views:
        """Returns the views for a value of ``eval.tta``.

        Args:
            tta: ``"none"``, ``"flip"`` or ``"flip+crops"``.
            data: data settings, which say how evaluation crops.
            image_size: side of the images that the network sees, pixels.

        Raises:
            ConfigError: if there are to be several crops, but evaluation shows whole images.
        """
        if tta != "flip+crops":
            return cls(tta, image_size, data, image_size)
        loaded_size = round(image_size / evaluated_share(data, image_size))
        if loaded_size == image_size:
            raise ConfigError(
                f"eval.tta=flip+crops takes five crops of an image, but at {image_size} px evaluation shows the whole "
                "image. Use eval.tta=flip, or set data.eval_crop to a share below 1, such as 0.875."
            )
        return cls(tta, image_size, data.model_copy(update={"eval_crop": 1.0}), loaded_size)

    def of_batch(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns the views of images, the usual one first.

        Args:
            images: ``[N, loaded_size, loaded_size, 3]``.

        Returns:
            1, 2 or 10 tensors ``[N, image_size, image_size, 3]``: the crops of the center and the corners, and then the
            mirror image of each.
        """
        if self.tta == "none":
            return [images]
        side, end = self.image_size, self.loaded_size - self.image_size
        corners = [(0, 0), (0, end), (end, 0), (end, end)] if end else []
        places = [(end // 2, end // 2), *corners]
        crops = [images[:, top : top + side, left : left + side] for top, left in places]
        return [*crops, *(tf.reverse(crop, [2]) for crop in crops)]

    def averaged(self, network: Network, loss_type: str) -> Network:
        """Returns a network that averages the probabilities of the views; ``network`` itself if there is only one.

        Args:
            network: ``network(images, training=False)`` returns logits ``[N, classes]``.
            loss_type: loss of the training, a key of ``losses.LOSSES``.

        Returns:
            A function like ``network`` that takes ``[N, loaded_size, loaded_size, 3]`` and returns the logits of the
            mean probabilities.
        """
        if self.tta == "none":
            return network

        def of_views(images: tf.Tensor, *, training: bool) -> tf.Tensor:
            logits = [tf.cast(network(view, training=training), tf.float32) for view in self.of_batch(images)]
            return losses.mean_logits(loss_type, tf.stack(logits))

        return of_views
