import pytest

import hparams
from effnetv2_keras import specs
from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError
from hparams import base

FINE_TUNING = ("imagenetFt", "cifar10Ft", "cifar100Ft", "flowersFt", "tfflowersFt", "carsFt")
ONE_STAGE = ("imagenet21k", *FINE_TUNING)


@pytest.mark.parametrize("recipe", hparams.names())
@pytest.mark.parametrize("model_name", specs.MODELS)
def test_every_recipe_fits_every_variant(recipe, model_name):
    config = hparams.load(recipe, model_name)
    assert config.model.model_name == model_name
    assert Config.from_yaml(config.to_yaml()) == config
    stages = config.progressive.plan(1000)
    if recipe in map(str.lower, ONE_STAGE):
        assert len(stages) == 1
    else:
        assert len(stages) == 4
        assert stages[0].image_size < stages[-1].image_size
    assert "Result: " in __import__(f"hparams.{recipe}", fromlist=["_"]).__doc__


def test_names_are_case_insensitive_and_suggested():
    assert hparams.load("DEMO", "efficientnetv2-b0") == hparams.load("demo", "efficientnetv2-b0")
    with pytest.raises(ConfigError, match="Unknown --dataset_cfg=foldr; did you mean 'folder'.*csv, demo, flowersft"):
        hparams.load("foldr", "efficientnetv2-b0")


# The reference code's datasets.py. Columns: epochs, least steps, batch, base learning rate, schedule, warm-up epochs,
# moving average, weight decay, smoothing, survival, evaluation batch.
CELLS = {
    "ImageNet": (350, 0, 4096, 0.016, "exponential", 5, 0.9999, 1e-5, 0.1, 0.8, 8),
    "ImageNet21k": (60, 0, 4096, 0.008, "cosine", 1, 0.9999, 1e-5, 0.0, 1.0, 128),
    **{name: (15, 10_000, 512, 0.0005, "constant", 1, 0.9996, 1e-5, 0.1, 0.8, 8) for name in FINE_TUNING},
}


@pytest.mark.parametrize("recipe", CELLS)
@pytest.mark.parametrize("model_name", ["efficientnetv2-s", "efficientnetv2-b1", "efficientnet-b4"])
def test_settings_are_those_of_the_reference_code(recipe, model_name):
    config = hparams.load(recipe, model_name)
    train = config.train
    assert (
        train.epochs, train.min_steps, train.batch_size, train.lr_base, train.lr_sched, train.lr_warmup_epoch,
        train.ema_decay, train.weight_decay, train.label_smoothing, config.model.survival_prob, config.eval.batch_size,
    ) == CELLS[recipe]  # fmt: skip
    assert train.optimizer == "rmsprop"
    (stage,) = config.progressive.plan(10)[-1:]
    if recipe in ONE_STAGE:
        assert (stage.randaug_magnitude, stage.mixup_alpha, stage.cutmix_alpha, stage.dropout_rate) == (0, 0, 0, 0)
    size = {"efficientnetv2-s": (300, 384), "efficientnetv2-b1": (192, 240), "efficientnet-b4": (304, 368)}[model_name]
    expected = 224 if recipe == "ImageNet21k" else size[recipe in FINE_TUNING]
    assert stage.image_size == expected
    assert config.eval_size == (224 if recipe == "ImageNet21k" else specs.MODELS[model_name].eval_size)


def test_training_sizes_follow_from_the_evaluation_size():
    """The reference code's lists, by name."""
    for name, size in {"b0": 176, "b1": 192, "b2": 208, "b3": 240, "b4": 304, "b5": 352, "b6": 416, "b7": 480,
                       "b8": 528, "l2": 640}.items():  # fmt: skip
        spec = specs.MODELS[f"efficientnet-{name}"]
        assert base.sized(spec.eval_size, 0.8) == size == spec.train_size
        assert hparams.load("imagenet", spec.name).progressive.image_size.end == size
    for name, size in {"v2-s": 384, "v2-m": 480, "v2-l": 480, "v2-xl": 512, "v2-b0": 224, "v2-b1": 240, "v2-b2": 256,
                       "v2-b3": 288, "-b4": 368, "-b5": 448, "-b8": 672, "-l2": 800}.items():  # fmt: skip
        assert hparams.load("cifar10Ft", f"efficientnet{name}").progressive.image_size.end == size


@pytest.mark.parametrize(
    ("recipe", "model_name", "weights"),
    [
        ("imagenetFt", "efficientnetv2-xl", "imagenet21k"),
        ("imagenetFt", "efficientnet-b0", None),
        ("cifar10Ft", "efficientnetv2-s", "imagenet"),
        ("carsFt", "efficientnetv2-xl", "imagenet21k-ft1k"),
        ("flowersFt", "efficientnet-l2", "noisy-student"),
        ("flowersFt", "efficientnet-b8", None),
    ],
)
def test_fine_tuning_starts_from_what_is_published(recipe, model_name, weights):
    assert hparams.load(recipe, model_name).train.ft_init_ckpt == weights
