"""The ``train`` section of a configuration: optimization, initial weights, and what is trained (no TensorFlow)."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from effnetv2_keras.config.fields import (
    OptionalBool,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    OptionalStr,
    Regex,
    Section,
    Sizes,
    setting,
)


class TrainConfig(Section):
    """Optimization. The learning rate scales with the batch: peak = lr_base * batch_size / 256."""

    epochs: float = setting(
        350, "passes over the training images, which may be a fraction", gt=0, unit="epochs", source="paper section 5.1"
    )
    min_steps: int = setting(
        0,
        "smallest number of steps of the run, if the epochs give fewer (reference code; fine-tuning)",
        ge=0,
        unit="steps",
        source="reference code",
    )
    batch_size: int = setting(
        4096, "global batch: images per step over all replicas", ge=1, unit="images", source="paper section 5.1"
    )
    accumulation_steps: Annotated[Sizes, pydantic.Field(min_length=1)] = setting(
        (1,),
        "number of micro-batches that a replica computes one after the other for one step, to save memory; one number "
        "for all stages, or one for each stage such as 1|1|2|4",
        unit="micro-batches",
    )
    optimizer: Literal["rmsprop", "momentum", "sgd", "adam", "adamw", "lamb"] = setting(
        "rmsprop",
        "optimizer: rmsprop with decay 0.9 and momentum 0.9, momentum, sgd and adam as in "
        "TensorFlow 1, or adamw and lamb with decoupled weight decay",
        source="paper section 5.1, reference code",
    )
    lr_base: float = setting(
        0.016,
        "peak learning rate per 256 images of the batch; 0.016 gives 0.256 for 4096 images",
        gt=0,
        unit="learning rate per 256 images",
        source="paper section 5.1",
    )
    lr_sched: Literal["exponential", "cosine", "linear", "constant"] = setting(
        "exponential",
        "learning-rate schedule after the warm-up: exponential decay in steps, cosine or linear "
        "decay to 0 at the end of the run, or constant",
        source="paper section 5.1, reference code",
    )
    lr_warmup_epoch: float = setting(5, "epochs of linear warm-up from 0", ge=0, unit="epochs", source="reference code")
    lr_decay_epoch: float = setting(
        2.4, "lr_sched=exponential: epochs between two decays", gt=0, unit="epochs", source="paper section 5.1"
    )
    lr_decay_factor: float = setting(
        0.97, "lr_sched=exponential: factor of one decay", gt=0, le=1, unit="factor", source="paper section 5.1"
    )
    lr_min: float = setting(
        0.0,
        "smallest learning rate after the warm-up, per 256 images of the batch",
        ge=0,
        unit="learning rate per 256 images",
        source="reference code",
    )
    weight_decay: float = setting(
        1e-5,
        "weight decay: coefficient of the L2 penalty in the loss, or with adamw and lamb of "
        "decoupled weight decay; 0 turns it off",
        ge=0,
        unit="coefficient",
        source="paper section 5.1",
    )
    weight_decay_exclude: Regex = setting(
        ".*(bias|gamma|beta).*",
        "regular expression, matched from the start of a variable's name, for variables without weight decay; None "
        "applies weight decay to all",
        source="reference code",
    )
    weight_decay_inc: float = setting(
        0.0,
        "relative growth of weight_decay over the run, linear in the steps: 0.5 ends at 1.5 times the start (reference "
        "code)",
        ge=-1,
        unit="share",
        source="reference code",
    )
    loss_type: Literal["softmax", "sigmoid", "custom", "focal", "sigmoid_focal"] = setting(
        "softmax",
        "loss: softmax is cross-entropy over the classes; sigmoid is the mean over the classes of binary "
        "cross-entropy; custom is their sum, without label smoothing; focal and sigmoid_focal are softmax and sigmoid "
        "with less weight on images that are already classified well (arXiv 1708.02002)",
        source="reference code",
    )
    focal_gamma: float = setting(
        2.0,
        "loss_type=focal and sigmoid_focal: exponent of the factor (1 - p) of the loss, where p is the probability of "
        "the label; 0 gives softmax or sigmoid",
        ge=0,
        unit="exponent",
        source="arXiv 1708.02002",
    )
    class_weights: OptionalPath = setting(
        None,
        "weights of the classes in the loss: balanced gives rare classes more weight (images / (classes * images of "
        "the class)); or the path of a JSON file {class: weight} or a CSV file with the columns class and weight, of "
        "which only the ratios matter; None weights all images alike",
    )
    label_smoothing: float = setting(
        0.1,
        "share of the label that is spread evenly over the classes; 0 turns it off",
        ge=0,
        lt=1,
        unit="share",
        source="reference code",
    )
    ema_decay: float = setting(
        0.9999,
        "decay per step of the exponential moving average of weights and BatchNorm statistics; 0 turns it off",
        ge=0,
        lt=1,
        unit="factor per step",
        source="paper section 5.1",
    )
    gclip: float = setting(
        0.0,
        "largest norm of the gradient of each variable, and then of all variables together; 0 turns clipping off",
        ge=0,
        unit="gradient norm",
        source="reference code",
    )
    ft_init_ckpt: OptionalPath = setting(
        None,
        "weights from which a new run starts: the name of published weights such as imagenet21k, timm:NAME or "
        "hf:OWNER/REPOSITORY, or the path of a file, checkpoint or run folder; keras: networks have imagenet only; "
        "None starts from random weights",
        source="reference code",
    )
    ft_init_ema: bool = setting(
        True, "ft_init_ckpt: load the moving average of the weights if the file contains it", source="reference code"
    )
    varsexp: Regex = setting(
        None,
        "regular expression, matched from the start of a variable's name, for the variables to train; None trains all",
        source="reference code",
    )
    trainable_from: OptionalStr = setting(
        None, "first layer that trains, such as block_5 or classifier; layers before it are frozen; None trains all"
    )
    trainable_layers: OptionalStr = setting(
        None,
        "regular expression, matched with the whole name of a layer, for the layers that train; cannot be combined "
        "with trainable_from; None trains all",
    )
    freeze_bn: OptionalBool = setting(
        False,
        "whether scale, offset and moving statistics of all BatchNorm layers are frozen; None freezes them if "
        "ft_init_ckpt is set and a replica has fewer than 16 images at a time, too few for statistics of their own",
    )
    head_share: float = setting(
        0.0,
        "share of the run, at its start, in which only the classifier trains; all other weights and the statistics of "
        "BatchNorm stay as they were loaded",
        ge=0,
        lt=1,
        unit="share",
    )
    head_lr_base: OptionalFloat = setting(
        None,
        "learning rate while only the classifier trains (head_share), per 256 images of the batch; greater than 0, "
        "without warm-up or decay; None is train.lr_base",
        gt=0,
        unit="learning rate per 256 images",
    )
    first_layer_lr: float = setting(
        1.0,
        "learning rate of the first layer as a share of the learning rate of the classifier; between them, the rate "
        "grows by the same factor from layer to layer (layer-wise learning-rate decay). A value below 1 needs adam or "
        "adamw",
        gt=0,
        le=1,
        unit="share",
        source="arXiv 1801.06146, section 3.2",
    )
    patience: OptionalInt = setting(
        None,
        "number of evaluations after which the run ends early if none of them was better than the best one before; "
        "None never ends it early. Evaluations while only the classifier trains (head_share) do not count",
        ge=1,
        unit="evaluations",
    )
    sync_bn: bool = setting(
        False,
        "batch statistics of BatchNorm: true computes them over the global batch, false over the share of each "
        "replica (reference code: bn_type)",
        source="reference code",
    )
    seed: int = setting(
        0,
        "seed of initial weights, data order, augmentation, dropout and random stage order",
        ge=0,
        lt=2**31,
        unit="seed",
    )

    @pydantic.model_validator(mode="after")
    def _phases_fit(self) -> TrainConfig:
        if self.first_layer_lr < 1 and self.optimizer not in ("adam", "adamw"):
            raise ValueError(
                f"first_layer_lr is {self.first_layer_lr:g}, which works with the optimizers adam and adamw, not with "
                f"{self.optimizer}; set optimizer=adamw, or first_layer_lr=1"
            )
        if self.head_share and self.optimizer == "lamb":
            raise ValueError("head_share does not work with optimizer=lamb; set optimizer=adamw, or head_share=0")
        return self

    @pydantic.model_validator(mode="after")
    def _parameters_fit_the_loss(self) -> TrainConfig:
        if self.loss_type == "custom" and self.label_smoothing:
            raise ValueError(
                f"loss_type=custom does not smooth labels, but label_smoothing is {self.label_smoothing}; set it to 0"
            )
        if self.focal_gamma != 2.0 and self.loss_type not in ("focal", "sigmoid_focal"):
            raise ValueError(
                f"focal_gamma is {self.focal_gamma:g}, but loss_type={self.loss_type} has no such exponent; set "
                "loss_type to focal or sigmoid_focal, or leave focal_gamma at 2"
            )
        return self
