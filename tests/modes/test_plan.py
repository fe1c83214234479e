from __future__ import annotations

import importlib
import io

import pytest
import rich.console
import tensorflow as tf
import tensorflow_datasets as tfds

import hparams
from effnetv2_keras.architecture import variants
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.pipeline import InputPlan
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import SOURCES, digits_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.modes.plan import describe_changes, print_plan
from effnetv2_keras.weights.published import PUBLISHED
from tests.images import write_classes
from tests.records import fake_metadata
from tests.short_runs import tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("", "12 steps of 8 images: 4 epochs"),
        ("train.min_steps=5", "12 steps of 8 images: 4 epochs"),
        ("train.min_steps=20", "20 steps of 8 images: 6.667 epochs, to reach train.min_steps"),
    ],
)
def test_plan_says_why_the_run_is_as_long_as_it_is(tmp_path, changes, message):
    write_classes(tmp_path / "train", {"red": 8, "green": 8, "blue": 8})
    write_classes(tmp_path / "val", {"red": 1, "green": 1, "blue": 1}, seed=1)
    output = io.StringIO()
    print_plan(tiny_config(changes, data_dir=str(tmp_path)), rich.console.Console(file=output, width=200))
    assert message in output.getvalue()


def test_plan_names_unequal_classes(tmp_path):
    write_classes(tmp_path / "train", {"red": 20, "green": 8, "blue": 2})
    write_classes(tmp_path / "val", {"red": 1, "green": 1, "blue": 1}, seed=1)
    config = tiny_config("train.class_weights=balanced", data_dir=str(tmp_path))
    lines, _, _ = shown(config)
    place = lines.index("Unequal classes: 20 training images of red, but 2 of blue.")
    assert lines[place + 1] == "Weights in the loss (balanced): 0.5 (red) to 5 (blue)."
    lines, _, _ = shown(config.override({"train.class_weights": None}))
    assert lines[place].endswith("2 of blue. See train.class_weights=balanced and data.balanced_sampling=true.")
    with pytest.raises(DataError, match="absent.csv is neither 'balanced' nor a file"):
        shown(config.override({"train.class_weights": "absent.csv"}))


@pytest.mark.parametrize(("policy", "told"), [("float32", False), ("mixed_bfloat16", True)])
def test_plan_says_that_bfloat16_saves_no_time_on_a_cpu(tmp_path, policy, told):
    write_classes(tmp_path / "train", {"red": 8, "green": 8})
    write_classes(tmp_path / "val", {"red": 1, "green": 1}, seed=1)
    output = io.StringIO()
    config = tiny_config(f"precision.policy={policy}", data_dir=str(tmp_path))
    print_plan(config, rich.console.Console(file=output, width=200))
    assert (f"precision.policy={policy} was no faster than float32" in output.getvalue()) == told


def test_plan_of_random_sizes_counts_from_the_largest(digits, monkeypatch):
    monkeypatch.setitem(SOURCES, "digits", lambda _: digits)
    changes = {"progressive.order": "random", "progressive.stages": 8, "progressive.image_size.end": 320}
    lines, stages, rates = shown(hparams.load("demo", "efficientnetv2-b0").override({**changes, "train.seed": 1}))
    assert any("Stages (paper, random)" in line for line in lines)
    sizes = [int(row[1]) for row in stages]
    shares = [row[8] for row in stages]
    assert sizes[-1] < max(sizes)
    assert [size for size, share in zip(sizes, shares) if share == "100%"] == [max(sizes)]
    assert len(rates) >= 8


KINDS = [(name, "paper") for name in hparams.names()] + [
    (name, "original") for name in hparams.names() if hasattr(importlib.import_module(f"hparams.{name}"), "ORIGINAL")
]


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """Data for the recipes of anyone's own: ``DataConfig`` changes by recipe."""
    root = tmp_path_factory.mktemp("own")
    folder = root / "folder"
    write_classes(folder / "train", {"red": 20, "blue": 20}, suffixes=(".png",))
    write_classes(folder / "val", {"red": 1, "blue": 1}, suffixes=(".png",), seed=1)
    for split in ("train", "val"):
        rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in (folder / split).rglob("*.png")]
        (folder / f"{split}.csv").write_text("\n".join(("path,label", *rows)))
    fake_metadata(root / "tfds", "mnist", {"train": 60_000, "test": 10_000})
    return {
        "folder": {"data.data_dir": str(folder)},
        "finetune": {"data.data_dir": str(folder)},
        "csv": {"data.data_dir": str(folder)},
        "tfds": {"data.data_dir": str(root / "tfds"), "data.tfds_name": "mnist"},
    }


def shown(config):
    """What ``print_plan`` prints: its lines, and the cells of the rows of both tables."""
    output = io.StringIO()
    print_plan(config, rich.console.Console(file=output, width=200))
    lines = output.getvalue().splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    stages = [row for row in rows if len(row) == 9]
    rates = {int(row[0].replace(",", "")): row[2] for row in rows if len(row) == 4}
    return lines, stages, rates


@pytest.fixture(scope="module")
def digits():
    """The demo's data, read once: that takes seconds."""
    return digits_splits(DataConfig())


@pytest.mark.parametrize("model_name", variants.MODELS)
@pytest.mark.parametrize(("recipe", "kind"), KINDS)
def test_plan_of_every_recipe_and_variant(recipe, kind, model_name, own_data, digits, monkeypatch):
    """No recipe of a published data set needs the data to be planned."""
    monkeypatch.setitem(SOURCES, "digits", lambda _: digits)
    if recipe == "finetune" and model_name not in {name for name, _ in PUBLISHED}:
        pytest.skip("no weights are published for this network")
    config = hparams.load(recipe, model_name, kind).override(own_data.get(recipe, {}))
    lines, stages, rates = shown(config)
    num_train = int(lines[0].split()[0].replace(",", ""))
    total = config.total_steps(num_train)
    planned = config.plan(total)
    assert f"{total:,} steps of {config.train.batch_size} images" in lines[2]
    assert lines[1].startswith(f"{model_name}: ")
    assert [int(row[1]) for row in stages] == [stage.image_size for stage in planned]
    for column, name in ((2, "randaug_magnitude"), (3, "mixup_alpha"), (4, "cutmix_alpha"), (5, "dropout_rate")):
        assert [float(row[column]) for row in stages] == pytest.approx(
            [getattr(stage, name) for stage in planned], rel=5e-3
        )
    assert stages[-1][6] == f"{planned[-1].first_step:,} to {total:,}"
    assert stages[-1][8] == "100%"
    assert {0, total - 1, *(stage.first_step for stage in planned)} <= rates.keys()
    peak = max(config.train.lr_base, config.train.head_lr_base or 0)
    assert max(map(float, rates.values())) <= peak * config.train.batch_size / 256
    if config.train.lr_warmup_epoch and not config.train.head_share:
        assert float(rates[0]) == 0


# Learning rates of the reference code, observed; the steps are those that the plan shows. Columns: kind; images,
# steps; learning rate by step.
OBSERVED = {
    "imagenet": (1_256_144, 107_336, {0: 0, 1533: 0.2408704, 26834: 0.0855112, 53668: 0.0285631, 107335: 0.00309132}),
    "imagenet21k": (12_720_275, 186_332, {0: 0, 3105: 0.1279123}),
    "imagenetFt": (1_256_144, 36_801, {0: 0, 2453: 0.001, 36800: 0.001}),
    "cifar10Ft": (50_000, 10_000, {0: 0, 97: 0.001, 9999: 0.001}),
    "flowersFt": (2_040, 10_000, {0: 0, 3: 0.001, 9999: 0.001}),
    "tfflowersFt": (2_569, 10_000, {0: 0, 5: 0.001, 9999: 0.001}),
    "carsFt": (8_144, 10_000, {0: 0, 15: 0.001, 9999: 0.001}),
}


@pytest.mark.parametrize("recipe", OBSERVED)
def test_plan_of_the_original_shows_its_learning_rates(recipe):
    num_train, steps, expected = OBSERVED[recipe]
    lines, _, rates = shown(hparams.load(recipe, "efficientnetv2-s", "original"))
    assert lines[0].startswith(f"{num_train:,} images to train on")
    assert f"{steps:,} steps" in lines[2]
    assert {step: float(rates[step]) for step in expected} == pytest.approx(expected, rel=5e-6)


def test_plan_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda *_, **__: pytest.fail("a download"))
    config = hparams.load("tfds", "efficientnetv2-b0").override(
        {"data.tfds_name": "kmnist", "data.data_dir": str(tmp_path)}
    )
    with pytest.raises(DataError, match=r"'kmnist' is not prepared in .*Prepare it with tfds.load\('kmnist'\)"):
        shown(config)
    lines, *_ = shown(config.override({"data.tfds_name": "cifar10"}))
    assert lines[0] == "50,000 images to train on, 10,000 to evaluate on, 10 classes"
    with pytest.raises(DataError, match="There is no split 'valid'. Use one of train, test"):
        shown(config.override({"data.tfds_name": "cifar10", "data.eval_split": "valid"}))


def test_plan_tells_the_evaluations_of_many_short_epochs_and_the_images_of_each_replica(monkeypatch):
    lines, _, _ = shown(hparams.load("flowersFt", "efficientnetv2-b0"))
    (line,) = (line for line in lines if "evaluations" in line)
    assert line.startswith(
        "97 evaluations, every 103.6 steps (26 epochs) and at the end, each of 769 steps of 8 images"
    )
    (line,) = (line for line in lines if "on each replica" in line)
    assert line.endswith(": 512 + 8 on 1, 64 + 1 on 8, 32 + 1 on 16, 16 + 1 on 32, 8 + 1 on 64 replicas")


@pytest.mark.parametrize("replicas", [1, 8, 16, 32, 64])
@pytest.mark.parametrize("recipe", ["imagenet", "imagenet21k", "flowersFt"])
def test_the_batches_of_a_recipe_can_be_split_over_many_replicas(recipe, replicas):
    config = hparams.load(recipe, "efficientnetv2-s")
    context = tf.distribute.InputContext(1, 0, replicas)
    for batch_size in (config.train.batch_size, config.eval_batch_size(replicas)):
        assert InputPlan(config.data, batch_size, None, UnreadableImages("error")).per_replica(context) >= 1


def test_plan_names_the_settings_that_differ_from_the_recipe():
    recipe = hparams.load("demo", "efficientnetv2-b0")
    config = recipe.override({"train.gclip": 2, "runtime.log_every": 7, "train.batch_size": recipe.train.batch_size})
    assert describe_changes(recipe, config) == "train.gclip=2.0 (1.0), runtime.log_every=7 (20)"
