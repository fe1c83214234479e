import dataclasses
import subprocess
import sys

import pytest

import hparams
from effnetv2_keras.architecture import variants
from effnetv2_keras.config import Config, Facts
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.weights.published import PUBLISHED
from hparams import base
from tests.tiny import TINY

FINE_TUNING = ("imagenetFt", "cifar10Ft", "cifar100Ft", "flowersFt", "tfflowersFt", "carsFt")
ONE_STAGE = ("imagenet21k", *FINE_TUNING)


@pytest.mark.parametrize("recipe", hparams.names())
@pytest.mark.parametrize("model_name", variants.MODELS)
def test_every_recipe_fits_every_variant(recipe, model_name):
    if recipe == "finetune" and model_name not in {name for name, _ in PUBLISHED}:
        with pytest.raises(
            ConfigError, match=f"No ImageNet weights are published for {model_name}.*train.ft_init_ckpt"
        ):
            hparams.load(recipe, model_name)
        return
    config = hparams.load(recipe, model_name)
    assert config.model.model_name == model_name
    assert Config.from_yaml(config.to_yaml()) == config
    stages = config.progressive.plan(1000)
    if recipe in map(str.lower, ONE_STAGE):
        assert len(stages) == 1
    smallest, largest = stages[0].image_size, stages[-1].image_size
    assert len(stages) == 1 or smallest < largest or (smallest == largest == config.spec.train_size <= 128)
    assert "Result: " in __import__(f"hparams.{recipe}", fromlist=["_"]).__doc__


def test_names_are_case_insensitive_and_suggested():
    assert hparams.load("DEMO", "efficientnetv2-b0") == hparams.load("demo", "efficientnetv2-b0")
    with pytest.raises(
        ConfigError, match=f"Unknown --dataset_cfg=foldr; did you mean 'folder'.*{', '.join(hparams.names())}"
    ):
        hparams.load("foldr", "efficientnetv2-b0")


# The reference code's datasets.py (recipe=original). Columns: epochs, least steps, batch, base learning rate, schedule,
# warm-up epochs, moving average, weight decay, smoothing, survival, evaluation batch.
CELLS = {
    "ImageNet": (350, 0, 4096, 0.016, "exponential", 5, 0.9999, 1e-5, 0.1, 0.8, 8),
    "ImageNet21k": (60, 0, 4096, 0.008, "cosine", 1, 0.9999, 1e-5, 0.0, 1.0, 128),
    **{name: (15, 10_000, 512, 0.0005, "constant", 1, 0.9996, 1e-5, 0.1, 0.8, 8) for name in FINE_TUNING},
}


@pytest.mark.parametrize("recipe", CELLS)
@pytest.mark.parametrize("model_name", ["efficientnetv2-s", "efficientnetv2-b1", "efficientnet-b4"])
def test_settings_are_those_of_the_reference_code(recipe, model_name):
    config = hparams.load(recipe, model_name, "original")
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
    assert config.eval_size == (224 if recipe == "ImageNet21k" else variants.MODELS[model_name].eval_size)


@pytest.mark.parametrize("recipe", FINE_TUNING)
def test_fine_tuning_is_the_papers(recipe):
    """Sections 5.2 (ImageNet) and 5.3 (the others)."""
    config = hparams.load(recipe, "efficientnetv2-s")
    imagenet = recipe == "imagenetFt"
    assert config.total_steps(1_281_167 if imagenet else 50_000) == (37_534 if imagenet else 10_000)
    train = config.train
    assert (train.batch_size, train.lr_base * 2, train.lr_sched) == (512, 0.001, "cosine")
    assert (train.weight_decay, config.data.cutout, config.data.augment_arithmetic) == (
        1e-5 if imagenet else 0,
        True,
        "clean",
    )


def test_training_sizes_follow_from_the_evaluation_size():
    """The reference code's lists, by name."""
    for name, size in {"b0": 176, "b1": 192, "b2": 208, "b3": 240, "b4": 304, "b5": 352, "b6": 416, "b7": 480,
                       "b8": 528, "l2": 640}.items():  # fmt: skip
        spec = variants.MODELS[f"efficientnet-{name}"]
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


# The reference code's settings. Columns: sizes; RandAugment magnitudes; largest alpha of mixup and CutMix; dropout;
# augmentation; pipeline; evaluation size.
ORIGINAL = {
    "efficientnetv2-s": ((171, 214, 257, 300), (5, 20 / 3, 25 / 3, 10), 0.0, 0.2, "randaug", "original_v2", 384),
    "efficientnetv2-m": ((192, 256, 320, 384), (5, 25 / 3, 35 / 3, 15), 0.2, 0.3, "randaug", "original_v2", 480),
    "efficientnetv2-l": ((192, 256, 320, 384), (5, 10, 15, 20), 0.5, 0.4, "randaug", "original_v2", 480),
    "efficientnetv2-xl": ((192, 256, 320, 384), (5, 10, 15, 20), 0.5, 0.4, "randaug", "original_v2", 512),
    "efficientnetv2-b0": ((144, 160, 176, 192), (0,) * 4, 0.0, 0.2, "autoaug", "original_v1", 224),
    "efficientnetv2-b1": ((144, 160, 176, 192), (0,) * 4, 0.0, 0.2, "autoaug", "original_v1", 240),
    "efficientnetv2-b2": ((148, 168, 188, 208), (0,) * 4, 0.0, 0.3, "autoaug", "original_v1", 260),
    "efficientnetv2-b3": ((156, 184, 212, 240), (0,) * 4, 0.0, 0.3, "autoaug", "original_v1", 300),
    "efficientnet-b4": ((304,), (0,), 0.0, 0.4, "autoaug", "original_v1", 380),
}
# Table 6 and Algorithm 1 of the paper, for S, M and L; for the others, the values of ``base``.
PAPER = {
    "efficientnetv2-s": ((128, 185, 243, 300), (5, 25 / 3, 35 / 3, 15), 0.0, (0.1, 0.5 / 3, 0.7 / 3, 0.3), 384),
    "efficientnetv2-m": ((128, 212, 296, 380), (5, 10, 15, 20), 0.2, (0.1, 0.2, 0.3, 0.4), 480),
    "efficientnetv2-l": ((128, 212, 296, 380), (5, 35 / 3, 55 / 3, 25), 0.4, (0.1, 0.7 / 3, 1.1 / 3, 0.5), 480),
    "efficientnetv2-xl": ((128, 212, 296, 380), (5, 35 / 3, 55 / 3, 25), 0.4, (0.1, 0.7 / 3, 1.1 / 3, 0.5), 512),
    "efficientnetv2-b0": ((128, 149, 171, 192), (5, 20 / 3, 25 / 3, 10), 0.0, (0.1, 0.4 / 3, 0.5 / 3, 0.2), 224),
    "efficientnetv2-b1": ((128, 149, 171, 192), (5, 20 / 3, 25 / 3, 10), 0.0, (0.1, 0.4 / 3, 0.5 / 3, 0.2), 240),
    "efficientnetv2-b2": ((128, 155, 181, 208), (5, 20 / 3, 25 / 3, 10), 0.0, (0.1, 0.5 / 3, 0.7 / 3, 0.3), 260),
    "efficientnetv2-b3": ((128, 165, 203, 240), (5, 20 / 3, 25 / 3, 10), 0.0, (0.1, 0.5 / 3, 0.7 / 3, 0.3), 300),
}
STEPS = 107_336  # 350 epochs of 1,256,144 images, 4096 per step


@pytest.mark.parametrize("model_name", ORIGINAL)
def test_every_cell_of_the_original_recipe(model_name):
    config = hparams.load("imagenet", model_name, "original")
    sizes, magnitudes, alpha, dropout, augment, pipeline, eval_size = ORIGINAL[model_name]
    stages = config.progressive.plan(STEPS)
    assert tuple(stage.image_size for stage in stages) == sizes
    assert [stage.randaug_magnitude for stage in stages] == pytest.approx(magnitudes)
    for name in ("mixup_alpha", "cutmix_alpha"):
        expected = [alpha * index / 3 for index in range(4)] if len(sizes) == 4 else [alpha]
        assert [getattr(stage, name) for stage in stages] == pytest.approx(expected)
    assert {stage.dropout_rate for stage in stages} == {dropout}
    assert (config.data.augment, config.data.pipeline, config.eval_size) == (augment, pipeline, eval_size)
    assert (config.data.augment_arithmetic, config.model.bn_momentum, config.model.survival_prob) == (
        "original",
        0.9,
        0.8,
    )
    assert config.spec == variants.MODELS[model_name]
    if len(sizes) == 4:
        assert [stage.end_step for stage in stages] == [26834, 53668, 80502, 107336]


@pytest.mark.parametrize("model_name", PAPER)
def test_every_cell_of_the_paper_recipe(model_name):
    config = hparams.load("imagenet", model_name)
    sizes, magnitudes, alpha, dropout, eval_size = PAPER[model_name]
    stages = config.progressive.plan(STEPS)
    assert tuple(stage.image_size for stage in stages) == sizes
    assert [stage.randaug_magnitude for stage in stages] == pytest.approx(magnitudes)
    assert [stage.mixup_alpha for stage in stages] == pytest.approx([alpha * index / 3 for index in range(4)])
    assert {stage.cutmix_alpha for stage in stages} == {0}
    assert [stage.dropout_rate for stage in stages] == pytest.approx(dropout)
    assert (config.data.augment, config.data.pipeline, config.eval_size) == ("randaug", "clean", eval_size)
    assert (config.data.augment_arithmetic, config.model.bn_momentum, config.model.survival_prob) == (
        "clean",
        0.99,
        0.8,
    )
    assert config.data.ra_num_layers == 2


@pytest.mark.parametrize("recipe", ONE_STAGE)
def test_the_original_recipes_of_one_stage(recipe):
    paper, config = (hparams.load(recipe, "efficientnetv2-b2", kind) for kind in ("paper", "original"))
    assert config.progressive == paper.progressive
    finetuning = recipe in FINE_TUNING
    assert (config.train == paper.train) != finetuning
    assert config.model.bn_momentum == 0.9
    assert config.spec.normalization == ("symmetric" if finetuning else "centered")
    assert config.data.pipeline == ("original_finetune" if finetuning else "original_v2")
    assert (config.data.augment, config.data.cutout) == ("none", finetuning)


@pytest.mark.parametrize(
    ("recipe", "kind", "message"),
    [
        ("imagenet", "originl", "Unknown recipe=originl; use paper or original"),
        ("folder", "original", "not available for folder, whose settings are this package's own. Use recipe=paper"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(recipe, kind, message):
    with pytest.raises(ConfigError, match=message):
        hparams.load(recipe, "efficientnetv2-s", kind)


def test_the_message_names_every_recipe_that_has_an_original():
    has = {name for name in hparams.names() if hasattr(__import__(f"hparams.{name}", fromlist=["_"]), "ORIGINAL")}
    with pytest.raises(ConfigError) as caught:
        hparams.load("demo", "efficientnetv2-s", "original")
    listed = str(caught.value).partition("is for ")[2].rstrip(".").split(", ")
    assert set(listed) == has


def test_recipes_need_no_tensorflow():
    """``effnetv2_keras.environment`` must come before TensorFlow, and ``--help`` must be fast."""
    code = (
        "import sys, hparams; [hparams.load(name, 'efficientnetv2-s') for name in hparams.names()]; "
        "hparams.load('imagenet', 'efficientnetv2-s', 'original'); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("recipe", hparams.names())
@pytest.mark.parametrize("kind", ["paper", "original"])
def test_nothing_shrinks_in_a_run_of_a_small_network_of_your_own(recipe, kind, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(dataclasses.replace(TINY, train_size=64, dropout_rate=0.05).to_json())
    try:
        config = hparams.load(recipe, str(path), kind)
    except ConfigError:
        pytest.skip("The recipe has no settings of the reference code.")
    for name, ramp in config.progressive.ramps().items():
        assert ramp.start <= ramp.end, name


@pytest.mark.parametrize(
    ("facts", "network", "epochs", "batch", "size"),
    [
        (Facts(3_068, 400), "efficientnetv2-nano", 65, 32, 96),
        (Facts(400, 400), "efficientnetv2-nano", 100, 16, 96),
        (Facts(90, 400), "efficientnetv2-nano", 100, 8, 96),
        (Facts(3_068, 48), "efficientnetv2-nano", 65, 32, 48),
        (Facts(3_068, 8), "efficientnetv2-nano", 65, 32, 32),
        (Facts(30_000, None), "efficientnetv2-micro", 20, 128, 128),
        (Facts(1_000_000, 400), "efficientnetv2-b0", 20, 128, 192),
    ],
)
@pytest.mark.parametrize("recipe", ["folder", "csv", "tfds"])
def test_settings_follow_the_number_and_the_size_of_the_images(recipe, facts, network, epochs, batch, size):
    config = hparams.load(recipe, find_facts=lambda _: facts)
    stages = config.plan(config.total_steps(facts.num_train))
    assert (config.spec.name, config.train.epochs, config.train.batch_size) == (network, epochs, batch)
    assert (stages[-1].image_size, config.data.eval_crop) == (size, 1)
    assert config.eval_size == (224 if network == "efficientnetv2-b0" else size)
    assert stages[0].image_size <= stages[-1].image_size
    assert hparams.load(recipe, "efficientnetv2-s", find_facts=lambda _: facts).spec.name == "efficientnetv2-s"


@pytest.mark.parametrize("recipe", ["folder", "finetune"])
def test_a_start_from_weights_has_two_phases(recipe):
    config = hparams.load(recipe, find_facts=lambda _: Facts(3_068, 400, "run"))
    train = config.train
    assert (config.spec.name, train.ft_init_ckpt, train.epochs, train.head_share) == (
        "efficientnetv2-b0",
        "run",
        10,
        0.1,
    )
    assert train.first_layer_lr < 1
    assert (train.freeze_bn, train.patience) == (None, 5)
    assert [stage.trains for stage in config.plan(960)] == ["classifier", "all", "all"]


def test_fine_tuning_takes_published_weights_or_none_if_the_user_says_so():
    assert hparams.load("finetune", "efficientnetv2-xl").train.ft_init_ckpt == "imagenet21k-ft1k"
    assert hparams.load("finetune", "keras:ResNet50").train.ft_init_ckpt == "imagenet"
    scratch = hparams.load("finetune", find_facts=lambda _: Facts(weights=""))
    assert scratch == hparams.load("folder", find_facts=lambda _: Facts(weights=""))
    assert scratch.train.head_share == 0
