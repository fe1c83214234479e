"""The networks: ``build_model``, and the blocks and layers that networks consist of."""

from effnetv2_keras.models.blocks import BLOCKS, Block, FusedMBConv, MBConv
from effnetv2_keras.models.factory import DTYPES, build_model, endpoints, layers_by_role
from effnetv2_keras.models.finetuning import set_trainable
from effnetv2_keras.models.layers import ConvNorm, DropPath, HeadDropout, SqueezeExcite
from effnetv2_keras.models.normalization import BatchNorm
from effnetv2_keras.models.scopes import stochastic_scope, training_scope

__all__ = [
    "BLOCKS",
    "DTYPES",
    "BatchNorm",
    "Block",
    "ConvNorm",
    "DropPath",
    "FusedMBConv",
    "HeadDropout",
    "MBConv",
    "SqueezeExcite",
    "build_model",
    "endpoints",
    "layers_by_role",
    "set_trainable",
    "stochastic_scope",
    "training_scope",
]
