from __future__ import annotations

import contextlib

import pytest

import hparams
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten, parse_overrides
from effnetv2_keras.config.reference_keys import CONVERTED, DROPPED, FLAGS, RENAMED, check_flags
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.modes.options import flag_table

# Every setting of the reference code's hparams.py.
KEYS = {
    "model": "model_name data_format feature_size bn_type bn_momentum bn_epsilon gn_groups depth_divisor min_depth "
    "act_fn survival_prob local_pooling headbias conv_dropout dropout_rate depth_coefficient width_coefficient "
    "blocks_args num_classes",
    "train": "stages epochs min_steps optimizer lr_sched lr_base lr_decay_epoch lr_decay_factor lr_warmup_epoch lr_min "
    "ema_decay weight_decay weight_decay_inc weight_decay_exclude label_smoothing gclip batch_size isize split "
    "loss_type ft_init_ckpt ft_init_ema varsexp sched",
    "eval": "batch_size isize split",
    "data": "ds_name augname ra_num_layers ram mixup_alpha cutmix_alpha ibase cache resize data_dir multiclass "
    "num_classes tfds_name try_gcs tfds_split splits",
    "runtime": "iterations_per_loop skip_host_call mixed_precision use_async_checkpointing log_step_count_steps "
    "keep_checkpoint_max keep_checkpoint_every_n_hours strategy",
}
ALL = [f"{section}.{name}" for section, names in KEYS.items() for name in names.split()]
OURS = dict(flatten(Config().model_dump()))


@pytest.mark.parametrize("key", ALL)
def test_every_key_of_the_reference_code_works_or_says_why_not(key):
    assert (key in OURS) + (key in RENAMED) + (key in CONVERTED) + (key in DROPPED) == 1
    if key in DROPPED:
        with pytest.raises(ConfigError, match=f"The reference code's {key} is not a setting here: "):
            Config().override({key: "1"})


def test_names_lead_to_settings_that_there_are():
    assert set(RENAMED.values()) <= OURS.keys()
    assert not OURS.keys() & {*RENAMED, *CONVERTED, *DROPPED}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("data.ram=12", "progressive.randaug_magnitude.end=12"),
        ("data.mixup_alpha=0.2", "progressive.mixup_alpha.end=0.2"),
        ("data.cutmix_alpha=0.1", "progressive.cutmix_alpha.end=0.1"),
        ("data.ibase=96", "progressive.image_size.start=96"),
        ("data.multiclass=true", "data.multi_label=true"),
        ("model.num_classes=12", "data.num_classes=12"),
        ("runtime.log_step_count_steps=64", "runtime.log_every=64"),
        ("train.stages=0", "progressive.stages=1"),
        ("train.stages=2", "progressive.stages=2"),
        ("train.isize=0.8", "progressive.image_size.end=304"),
        ("train.isize=1.0", "progressive.image_size.end=384"),
        ("train.isize=272", "progressive.image_size.end=272"),
        ("model.dropout_rate=0.4", "progressive.dropout_rate.start=0.4,progressive.dropout_rate.end=0.4"),
        ("model.bn_type=tpu_bn", "train.sync_bn=true"),
        ("data.augname=ra_aa", "data.augment=ra_aa"),
        ("data.augname=None", "data.augment=none"),
        ("data.augname=effnetv1_randaug", "data.pipeline=original_v1,data.augment=randaug"),
        ("data.augname=ft", "data.pipeline=original_finetune,data.augment=none,data.cutout=true"),
        ("data.augname=ft_autoaug", "data.pipeline=original_finetune,data.augment=autoaug,data.cutout=false"),
        ("data.augname=ft_randaug_cutout", "data.pipeline=original_finetune,data.augment=randaug,data.cutout=true"),
    ],
)  # fmt: skip
def test_names_of_the_reference_code_mean_the_same(text, same):
    config = hparams.load("imagenet", "efficientnetv2-s")
    assert config.override(parse_overrides(text)) == config.override(parse_overrides(same))
    assert config.override(parse_overrides(text)) != config


def test_augname_without_prefix_means_the_v2_pipeline():
    config = hparams.load("imagenet", "efficientnetv2-b0", "original").override({"data.augname": "randaug"})
    assert (config.data.pipeline, config.data.augment) == ("original_v2", "randaug")


@pytest.mark.parametrize("name", [None, "bn"])
def test_any_other_batch_norm_has_statistics_of_its_own(name):
    config = Config().override({"train.sync_bn": True})
    assert config.override({"model.bn_type": name}) == Config()


@pytest.mark.parametrize(
    "text", ["train.isize=big", "train.stages=many", "data.augname=mixaug", "data.ram=x", "model.bn_type=gn"]
)
def test_values_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError, match=text.partition("=")[2]):
        Config().override(parse_overrides(text))


def test_a_key_below_a_dropped_one_says_why_too():
    with pytest.raises(ConfigError, match="data.splits.train.num_images is not a setting here: sizes come from"):
        Config().override({"data.splits.train.num_images": 5})


# Every flag of the reference code's main.py and infer.py.
REFERENCE_FLAGS = (
    "model_name dataset_cfg hparam_str sweeps use_tpu tpu_job_name tpu gcp_project tpu_zone data_dir eval_name "
    "archive_ckpt model_dir mode export_to_tpu image_path image_size debug export_dir trace_file batch_size "
    "mixed_precision"
)


@pytest.mark.parametrize("name", REFERENCE_FLAGS.split())
def test_every_flag_of_the_reference_code_works_or_says_why_not(name):
    assert (name in flag_table()) + (name in FLAGS) == 1
    for argument in (f"--{name}=1", f"--{name}", f"-{name}=a\nb", f"--no{name}"):
        refused = pytest.raises(ConfigError, match=f"The reference code's --{name} is not a flag here: ")
        with refused if name in FLAGS else contextlib.nullcontext():
            check_flags(["photos", argument])
    check_flags(["photos", "--", f"--{name}"])
