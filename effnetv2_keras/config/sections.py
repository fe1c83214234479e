"""The sections of a configuration: every setting, typed, validated and documented with its unit (no TensorFlow)."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any, Literal

import pydantic

from effnetv2_keras import progressive
from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.config.fields import (
    Addresses,
    OptionalFloat,
    OptionalInt,
    OptionalNormalization,
    OptionalPair,
    OptionalStr,
    Regex,
    Section,
    Sizes,
    Trackers,
    setting,
)


class RampConfig(Section):
    """Start and end of a quantity that moves from the first stage to the last."""

    start: float = setting(0.0, "value in the first stage")
    end: float = setting(0.0, "value in the last stage")

    def to_ramp(self) -> progressive.Ramp:
        """The same as the planner's type."""
        return progressive.Ramp(self.start, self.end)


def ramp(start: float, end: float) -> RampConfig:
    """Shorthand for recipes."""
    return RampConfig(start=start, end=end)


class ModelConfig(Section):
    """The network."""

    model_name: str = setting(
        "efficientnetv2-b0",
        "a name of variants.MODELS, the path of a spec (.json), keras:NAME or keras:package.module:function",
    )
    network: OptionalStr = setting(None, "the spec itself, as JSON, once read from that path; None: a named network")
    survival_prob: float = setting(
        0.8, "stochastic depth: probability that the deepest block survives (ModelSpec networks only)", gt=0, le=1
    )
    bn_momentum: float = setting(0.99, "BatchNorm moving-average momentum (paper section 5.1)", ge=0, lt=1)
    bn_epsilon: float = setting(1e-3, "BatchNorm epsilon (reference code; ModelSpec networks only)", gt=0)
    act_fn: str = setting("silu", "activation, any name tf.keras.activations knows (ModelSpec networks only)")
    normalization: OptionalNormalization = setting(None, "a key of specs.PIXEL_STATISTICS; None: the network's own")
    include_preprocessing: bool = setting(True, "normalise inside the model (input 0..255); else in the input pipeline")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_network(cls, fields: Any) -> Any:
        name = fields.get("model_name") if isinstance(fields, dict) else None
        if isinstance(name, str) and name.endswith(".json") and not fields.get("network"):
            return {**fields, "network": variants.get_spec(name).to_json()}
        return fields

    @pydantic.model_validator(mode="after")
    def _known_network(self) -> ModelConfig:
        _ = self.spec
        return self

    @property
    def spec(self) -> specs.AnySpec:
        """The network, with the normalisation that is asked for."""
        spec = specs.ModelSpec.from_json(self.network) if self.network else variants.any_spec(self.model_name)
        return dataclasses.replace(spec, normalization=self.normalization or spec.normalization)


class _StageSettings(Section):
    """What the stages have in common."""

    stages: int = setting(4, "number of stages; 1 trains at the final size throughout", ge=1)
    schedule: progressive.RampSchedule = setting("paper", "size ramp: 'paper' (Algorithm 1) or 'original' (its code)")
    order: progressive.StageOrder = setting(
        "rising", "'random': each stage anywhere between the ends of the ramps, drawn from train.seed (Table 13)"
    )
    size_multiple: int = setting(1, "round image sizes to a multiple of this, pixels", ge=1)


_RAMPS: dict[str, Any] = {
    name: (RampConfig, setting(ramp(quantity.default.start, quantity.default.end), quantity.description))
    for name, quantity in progressive.QUANTITIES.items()
}
_RampSettings: Any = pydantic.create_model("_RampSettings", __base__=_StageSettings, **_RAMPS)


class ProgressiveConfig(_RampSettings):
    """Stages of progressive learning (paper section 4, Algorithm 1 and Table 6).

    Every quantity of ``progressive.QUANTITIES`` is a setting with a ``start`` and an ``end``.
    """

    if typing.TYPE_CHECKING:  # the settings come from a table, which type checkers do not read

        def __init__(self, **settings: Any) -> None: ...

        def __getattr__(self, name: str) -> RampConfig: ...

    def plan(self, total_steps: int, *, seed: int = 0) -> tuple[progressive.Stage, ...]:
        """The stage plan of a run of ``total_steps`` steps; of a configuration, ``Config.plan``."""
        return progressive.plan_stages(
            self.ramps(),
            num_stages=self.stages,
            total_steps=total_steps,
            schedule=self.schedule,
            order=self.order,
            size_multiple=self.size_multiple,
            seed=seed,
        )

    def ramps(self) -> progressive.Ramps:
        """The ramps as the planner's type."""
        return progressive.Ramps(**{name: getattr(self, name).to_ramp() for name in progressive.QUANTITIES})

    @pydantic.model_validator(mode="after")
    def _ramps_in_range(self) -> ProgressiveConfig:
        self.ramps()
        return self


class TrainConfig(Section):
    """Optimisation. The learning rate scales with the batch: peak = lr_base * batch_size / 256."""

    epochs: float = setting(350, "passes over the training images; may be a fraction", gt=0)
    min_steps: int = setting(0, "steps that the run takes at least, however few its epochs make", ge=0)
    batch_size: int = setting(4096, "images per step, over all replicas", ge=1)
    accumulation_steps: Annotated[Sizes, pydantic.Field(min_length=1)] = setting(
        (1,), "parts, one after the other, that a batch is computed in to save memory; one for all stages, or 1|1|2|4"
    )
    optimizer: Literal["rmsprop", "momentum", "sgd", "adam", "adamw", "lamb"] = setting(
        "rmsprop", "see optim.optimizers"
    )
    lr_base: float = setting(0.016, "peak learning rate per 256 images", gt=0)
    lr_sched: Literal["exponential", "cosine", "linear", "constant"] = setting("exponential", "see optim.schedules")
    lr_warmup_epoch: float = setting(5, "epochs of linear warm-up from 0", ge=0)
    lr_decay_epoch: float = setting(2.4, "exponential: epochs between two decays", gt=0)
    lr_decay_factor: float = setting(0.97, "exponential: factor of one decay", gt=0, le=1)
    lr_min: float = setting(0.0, "floor of the learning rate per 256 images", ge=0)
    weight_decay: float = setting(1e-5, "L2 on convolution and dense kernels (adamw and lamb: decoupled)", ge=0)
    weight_decay_exclude: Regex = setting(
        ".*(bias|gamma|beta).*", "variables without it, named as for varsexp; None: all have it"
    )
    weight_decay_inc: float = setting(0.0, "share by which weight decay grows, evenly, over the run", ge=-1)
    loss_type: Literal["softmax", "sigmoid", "custom"] = setting("softmax", "a key of optim.losses.LOSSES")
    label_smoothing: float = setting(0.1, "share of the label spread evenly over the classes", ge=0, lt=1)
    ema_decay: float = setting(0.9999, "moving average of weights and BatchNorm statistics; 0 turns it off", ge=0, lt=1)
    gclip: float = setting(0.0, "clip each variable's gradient, then all, to this norm; 0 turns it off", ge=0)
    ft_init_ckpt: OptionalStr = setting(None, "weights a new run starts from: a path or name that load_weights takes")
    ft_init_ema: bool = setting(True, "ft_init_ckpt: take the averaged weights where the file has them")
    varsexp: Regex = setting(None, "variables to train, a regular expression from the start of the name; None: all")
    trainable_from: OptionalStr = setting(None, "first layer that trains, such as block_5; None: all do")
    trainable_layers: OptionalStr = setting(None, "in place of it, a regular expression of the layers that train")
    freeze_bn: bool = setting(False, "keep BatchNorm's scale, offset and statistics as they are at the start")
    sync_bn: bool = setting(False, "BatchNorm's batch statistics: over all replicas together; else over each one's own")
    seed: int = setting(0, "seeds initial weights, data order, augmentation and dropout", ge=0, lt=2**31)

    @pydantic.model_validator(mode="after")
    def _smoothing_fits_the_loss(self) -> TrainConfig:
        if self.loss_type == "custom" and self.label_smoothing:
            raise ValueError(
                f"loss_type=custom takes labels as they are, but label_smoothing is {self.label_smoothing}; set it to 0"
            )
        return self


class EvalConfig(Section):
    """Evaluation."""

    batch_size: int = setting(64, "images per evaluation step, over all replicas", ge=1)
    isize: OptionalInt = setting(None, "evaluation image side, pixels; None: the variant's own", ge=1)
    sizes: Sizes = setting((), "--mode=eval: image sides to compare, pixels; none: isize alone")
    per_class: bool = setting(False, "--mode=eval: top-1 (several labels: average precision) of each class")
    every_epochs: float = setting(1.0, "epochs between two evaluations (one always closes the run)", gt=0)


class DataConfig(Section):
    """Where images come from and how they are augmented."""

    source: Literal["folder", "csv", "tfrecord", "tfds", "digits"] = setting("folder", "a key of data.splits.SOURCES")
    data_dir: OptionalStr = setting(None, "folder of the images, lists or records; a list; or the TFDS data folder")
    tfds_name: OptionalStr = setting(None, "TensorFlow Datasets name, such as 'cifar10'")
    train_split: str = setting("train", "split to train on, or a share of it such as train[2%:]")
    eval_split: OptionalStr = setting(None, "split to evaluate on; None: the first of validation, val, test")
    holdout: float = setting(0.1, "folder, csv: share held out, by a fixed rule, where there is no split", gt=0, lt=1)
    num_classes: OptionalInt = setting(None, "classes that the data must have; tfrecord: that it has", ge=2)
    image_key: OptionalStr = setting(None, "feature or column of the image; None: image, path or image/encoded")
    label_key: OptionalStr = setting(None, "feature or column of the label; None: label or image/class/label")
    first_label: int = setting(1, "tfrecord: number of the first class, 1 in the layout of ImageNet", ge=0)
    multi_label: bool = setting(False, "csv, tfrecord: an image may have several labels, or none")
    label_separator: str = setting(";", "csv: what separates the labels of an image", min_length=1)
    unreadable: Literal["error", "skip"] = setting("error", "an image that cannot be decoded: stop, or skip and warn")
    pipeline: Literal["clean", "original_v2", "original_v1", "original_finetune"] = setting(
        "clean", "how images become squares: clean, or one of the reference code's three; see data.cropping"
    )
    crop_area: OptionalPair = setting(
        None, "random crop: smallest and largest share of the image; None: the pipeline's own, as 0.05|1"
    )
    crop_aspect: OptionalPair = setting(
        None, "random crop: smallest and largest width over height; None: the pipeline's own, as 0.75|1.33"
    )
    hflip: bool = setting(True, "flip half of the training images left to right")
    augment: Literal["randaug", "autoaug", "ra_aa", "none"] = setting(
        "randaug", "RandAugment at the stage's magnitude, AutoAugment, one of them at random, or neither"
    )
    augment_arithmetic: Literal["clean", "original"] = setting(
        "clean", "operations of augment, cutout and CutMix: clean, or just as the reference code's; see data.original"
    )
    ra_num_layers: int = setting(2, "RandAugment operations per image", ge=1)
    cutout: bool = setting(False, "after them, cover a square of half the side with noise (fine-tuning)")
    eval_crop: OptionalFloat = setting(
        None, "share of the shorter side kept by the central crop; None: the pipeline's own, as size/(size+32)"
    )
    shuffle_buffer: int = setting(8192, "tfds, tfrecord: encoded records in the shuffle buffer", ge=1)
    service: Addresses = setting(
        (), "training batches are made by --mode=data_service at host:port|host:port; none: here"
    )

    @pydantic.field_validator("crop_area", "crop_aspect")
    @classmethod
    def _ordered(cls, pair: tuple[float, float] | None, info: pydantic.ValidationInfo) -> tuple[float, float] | None:
        if pair is None:
            return None
        low, high = pair
        top = 1.0 if info.field_name == "crop_area" else float("inf")
        if not 0 < low <= high <= top:
            raise ValueError(f"must be two numbers with 0 < low <= high <= {top}, written low|high")
        return pair

    @pydantic.field_validator("eval_crop")
    @classmethod
    def _share(cls, share: float | None) -> float | None:
        if share is not None and not 0 < share <= 1:
            raise ValueError("must lie in (0, 1]")
        return share

    @pydantic.model_validator(mode="after")
    def _crop_is_drawn(self) -> DataConfig:
        if self.pipeline == "original_finetune" and (self.crop_area or self.crop_aspect):
            raise ValueError(
                "the pipeline original_finetune trains on whole images and draws no crop: set data.crop_area and "
                "data.crop_aspect to None, or take another data.pipeline"
            )
        return self


class RuntimeConfig(Section):
    """How the run is carried out. These may change when a run is resumed; only a rollback changes the arithmetic."""

    steps_per_loop: int = setting(1, "steps that the devices take before the host is asked again", ge=1)
    preflight: bool = setting(
        True, "before the first step, try a step of the largest stage (memory) and a batch of each (data)"
    )
    nan_policy: Literal["stop", "rollback"] = setting(
        "stop", "when loss, gradient or weights are not finite: stop, or go on from the last checkpoint more slowly"
    )
    max_rollbacks: int = setting(3, "how often nan_policy=rollback goes back in a run before it stops", ge=0)
    rollback_lr_factor: float = setting(0.5, "nan_policy=rollback: factor of the learning rate each time", gt=0, le=1)
    stall_seconds: float = setting(120, "seconds without a batch before a warning that input is stalled", gt=0)
    log_every: int = setting(20, "steps between two log lines", ge=1)
    checkpoint_every: int = setting(1000, "steps between two checkpoints (an evaluation also writes one)", ge=1)
    keep_checkpoint_max: int = setting(5, "recent checkpoints kept", ge=1)
    tensorboard: bool = setting(True, "write TensorBoard event files")
    trackers: Trackers = setting((), "services that are told the figures: wandb, mlflow or wandb|mlflow")
    rematerialize: bool = setting(False, "compute blocks twice rather than keep them: less memory, slower steps")


class PrecisionConfig(Section):
    """Number formats and compilation."""

    policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = setting(
        "float32", "compute type; weights, logits and loss stay float32, float16 adds dynamic loss scaling"
    )
    jit_compile: bool = setting(False, "compile the train step with XLA")
