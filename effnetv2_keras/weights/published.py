"""Addresses and checksums of published weights by name. Needs no TensorFlow.

``"imagenet"``: the files of ``tf.keras.applications`` (keras-team/keras, ``keras/src/applications/efficientnet.py`` and
``efficientnet_v2.py``, ``WEIGHTS_HASHES``). The other files have no published checksum.

``"imagenet21k"`` and ``"imagenet21k-ft1k"``: V2 checkpoints of the reference code (google/automl,
``efficientnetv2/README.md``), with 21843 classes, and fine-tuned on the 1000 classes of ImageNet.

``"noisy-student"``: V1 checkpoints of tensorflow/tpu (``models/official/efficientnet/README.md``), trained on ImageNet
and on JFT-300M without labels (arXiv 1911.04252).

``"timm:NAME"``: weights of timm's networks that compute the same as ours (huggingface/pytorch-image-models,
``timm/models/efficientnet.py``, ``default_cfgs``), in the repository ``timm/NAME`` of the Hugging Face hub.
"""

from __future__ import annotations

import dataclasses

NAMES = {"imagenet": 1000, "imagenet21k": 21843, "imagenet21k-ft1k": 1000, "noisy-student": 1000}
"""Names of published weights with their numbers of classes."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        url: address of the file.
        md5: MD5 checksum, hexadecimal; None if none is published.
    """

    url: str
    md5: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file in its address and in the cache folder."""
        return self.url.rpartition("/")[2]


_KERAS_V2 = "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"
_KERAS_V1 = "https://storage.googleapis.com/keras-applications/"
_REFERENCE_V2 = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/v2/"
_NOISY_STUDENT = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/noisystudent/noisy_student_"

# Variant, MD5 of the file with the classifier, MD5 of the file without it.
_KERAS_MD5 = (
    ("efficientnetv2-b0", "21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
    ("efficientnetv2-b1", "069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
    ("efficientnetv2-b2", "424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
    ("efficientnetv2-b3", "1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
    ("efficientnetv2-s", "e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
    ("efficientnetv2-m", "a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
    ("efficientnetv2-l", "27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
    ("efficientnet-b0", "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    ("efficientnet-b1", "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    ("efficientnet-b2", "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    ("efficientnet-b3-keras", "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    ("efficientnet-b4", "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    ("efficientnet-b5", "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    ("efficientnet-b6", "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    ("efficientnet-b7", "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
)


def _keras_files(variant: str, *md5: str) -> tuple[Published, Published]:
    v1 = variant.startswith("efficientnet-")
    address = _KERAS_V1 + _v1_name(variant).replace("-", "") if v1 else _KERAS_V2 + variant
    return Published(f"{address}.h5", md5[0]), Published(f"{address}_notop.h5", md5[1])


def _v1_name(variant: str) -> str:
    """Returns the name of a V1 variant in code that has only one B3, which is 'efficientnet-b3-keras' here."""
    return variant.removesuffix("-keras")


def _checkpoint(address: str) -> tuple[Published, Published]:
    """Returns the same file twice, for use with and without the classifier."""
    return (Published(address),) * 2


PUBLISHED: dict[tuple[str, str], tuple[Published, Published]] = {
    **{(variant, "imagenet"): _keras_files(variant, *md5) for variant, *md5 in _KERAS_MD5},
    **{
        (f"efficientnetv2-{size}", name): _checkpoint(f"{_REFERENCE_V2}efficientnetv2-{size}{suffix}.tgz")
        for size in ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")
        for name, suffix in (("imagenet21k", "-21k"), ("imagenet21k-ft1k", "-21k-ft1k"))
    },
    **{
        (f"efficientnet-{size}", "noisy-student"): _checkpoint(
            f"{_NOISY_STUDENT}{_v1_name(f'efficientnet-{size}')}.tar.gz"
        )
        for size in ("b0", "b1", "b2", "b3-keras", "b4", "b5", "b6", "b7", "l2")
    },
}
"""For each (variant, name): the file to use with the classifier, and the file to use without it."""

_TIMM_V2 = ("in1k", "in21k", "in21k_ft_in1k")
_TIMM_V1 = ("in1k", "aa_in1k", "ap_in1k", "ns_jft_in1k")
_TIMM_TAGS = {
    **{f"efficientnetv2-{size}": ("in1k",) for size in ("b0", "b1", "b2")},
    **{f"efficientnetv2-{size}": _TIMM_V2 for size in ("b3", "s", "m", "l")},
    "efficientnetv2-xl": ("in21k", "in21k_ft_in1k"),
    **{f"efficientnet-{size}": _TIMM_V1 for size in ("b0", "b1", "b2", "b3-keras", "b4")},
    "efficientnet-b5": (*_TIMM_V1, "ra_in1k"),
    "efficientnet-b6": ("aa_in1k", "ap_in1k", "ns_jft_in1k"),
    "efficientnet-b7": ("aa_in1k", "ap_in1k", "ns_jft_in1k", "ra_in1k"),
    "efficientnet-b8": ("ap_in1k", "ra_in1k"),
    "efficientnet-l2": ("ns_jft_in1k", "ns_jft_in1k_475"),
}

TIMM: dict[str, str] = {
    f"tf_{_v1_name(variant).replace('-', '_')}.{tag}": variant for variant, tags in _TIMM_TAGS.items() for tag in tags
}
"""For each name in timm: the variant. ``ap`` is AdvProp, ``aa`` AutoAugment, ``ra`` RandAugment, ``ns_jft`` Noisy
Student; ``in21k`` has 21843 classes, all others 1000."""
