import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten, parse_overrides, read_yaml
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.training.state import schedule_for
from tests.tiny import TINY


def overridden(text):
    return Config().override(parse_overrides(text))


def test_overrides_take_the_type_of_the_field():
    config = overridden(
        "train.epochs=2.5, train.batch_size=8,model.include_preprocessing=false,data.crop_area=0.2|1,eval.isize=96,"
        "train.optimizer=sgd,progressive.image_size.end=64"
    )
    assert config.train.epochs == 2.5
    assert config.train.batch_size == 8
    assert config.model.include_preprocessing is False
    assert config.data.crop_area == (0.2, 1.0)
    assert config.eval.isize == 96
    assert config.train.optimizer == "sgd"
    assert config.progressive.image_size.end == 64
    assert config.override({"eval.isize": "None"}).eval.isize is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epoch=3", "Unknown hparam 'train.epoch'; did you mean 'train.epochs'"),
        ("epochs=3", "did you mean 'train.epochs'"),
        ("train.epochs=ten", "train.epochs='ten': .*valid number.*passes over the training images"),
        ("train.batch_size=3.5", "train.batch_size='3.5': .*valid integer"),
        ("train.optimizer=lamp", "train.optimizer='lamp': .*'rmsprop'"),
        (
            "train.min_steps=-1",
            "train.min_steps='-1': .*greater than or equal to 0.*smallest number of steps of the run",
        ),
        ("train.gclip=-1", "train.gclip='-1': .*greater than or equal to 0"),
        ("train.weight_decay_inc=-2", "train.weight_decay_inc='-2': .*greater than or equal to -1"),
        (
            "train.varsexp=block_(1",
            r"train.varsexp='block_\(1': .*not a regular expression: missing \).*backslash.*variables to train",
        ),
        ("train.weight_decay_exclude=*bias", r"train.weight_decay_exclude='\*bias': .*nothing to repeat"),
        ("model.model_name=efficientnetv2-b9", "did you mean 'efficientnetv2-b3'"),
        ("model.survival_prob=0", "model.survival_prob='0': .*greater than 0"),
        ("data.crop_area=2|1", "data.crop_area='2|1': .*low <= high"),
        ("data.crop_area=1", "data.crop_area"),
        (
            "data.augment=randaugment",
            "data.augment='randaugment': .*'randaug', 'autoaug', 'ra_aa' or 'none'.*RandAugment",
        ),
        ("data.augment_arithmetic=exact", "data.augment_arithmetic='exact': .*'clean' or 'original'"),
        ("data.pipeline=v1", "data.pipeline='v1': .*'original_v1'"),
        ("data.pipeline=original_finetune,data.crop_area=0.1|1", "draws no crop; set data.crop_area and .* to None"),
        ("progressive.randaug_magnitude.end=31", r"randaug_magnitude goes from 5.0 to 31.0; it must stay in \[0, 30\]"),
        ("progressive.cutmix_alpha.end=-1", "cutmix_alpha goes from 0.0 to -1.0; it must stay in"),
        ("model.normalization=minmax", "model.normalization='minmax': .*'symmetric'"),
        ("progressive.dropout_rate.end=2", r"dropout_rate goes from 0.1 to 2.0; it must stay in \[0, 0.999\]"),
        ("train.epochs", "Cannot read 'train.epochs' in --hparam_str; write key=value"),
        ("missing.yaml", "names the file 'missing.yaml', which does not exist"),
        (
            "train.loss_type=custom",
            "loss_type=custom does not smooth labels, but label_smoothing is 0.1; set it to 0",
        ),
        ("train.epochs=nan", "train.epochs='nan'"),
        (
            "train.sync_bn=true,precision.jit_compile=true",
            "configuration. Value error, train.sync_bn and precision.jit_compile are both true, .* set one of them to",
        ),
    ],
)
def test_bad_overrides_say_what_to_do(text, message):
    with pytest.raises(ConfigError, match=message):
        overridden(text)


def test_yaml_file_overrides(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text("train: {epochs: 3, lr_base: 1e-3}\ndata.hflip: false\n")
    config = overridden(str(path))
    assert (config.train.epochs, config.train.lr_base, config.data.hflip) == (3, 1e-3, False)
    path.write_text("train: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        overridden(str(path))
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="must be a YAML mapping"):
        overridden(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n + 1}: &a{n + 1} {{x: *a{n}, y: *a{n}}}\n" for n in range(40)),
            r"has the alias \*a0 in line 2\. Aliases are not supported; write the value there",
        ),
        ("train: &train\n  lr_base: *train", r"has the alias \*train in line 2"),
        ("train: " + "[" * 10**4, "nested too deeply"),
    ],
)
def test_small_yaml_does_not_become_large(text, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_yaml(text)


@given(
    epochs=st.floats(0.01, 1e4),
    batch_size=st.integers(1, 10**6),
    crop=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31 - 1),
    name=st.one_of(st.none(), st.text("abcdefgh_/", min_size=1).filter(lambda name: name != "null")),
)
def test_yaml_round_trip(epochs, batch_size, crop, seed, name):
    config = Config().override(
        {
            "train.epochs": epochs,
            "train.batch_size": batch_size,
            "data.crop_area": (crop, 1.0),
            "train.seed": seed,
            "data.data_dir": name,
        }
    )
    assert Config.from_yaml(config.to_yaml()) == config


def test_crops_may_be_left_to_the_pipeline():
    assert Config().data.crop_area is None
    assert overridden("data.crop_area=0.2|1").override({"data.crop_area": "None"}).data.crop_area is None


def test_normalization_of_the_network():
    assert Config().spec.normalization == "imagenet"
    assert overridden("model.normalization=symmetric").spec.normalization == "symmetric"


def test_override_string_round_trip():
    changed = overridden("train.epochs=7,data.hflip=false,eval.isize=100,data.crop_aspect=0.5|2")
    text = ",".join(
        f"{key}={'|'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for key, value in flatten(changed.model_dump())
    )
    assert overridden(text) == changed


def test_differences_name_the_keys_and_leave_runtime_out():
    changed = overridden("train.epochs=7,runtime.log_every=1")
    assert Config().differences(changed) == {"train.epochs": (350, 7)}


def test_configurations_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().train.epochs = 3


def test_steps_of_a_run():
    config = overridden("train.epochs=350,train.batch_size=4096")
    assert config.total_steps(1_256_144) == 107_336  # the reference code's ImageNet run
    assert overridden("train.epochs=15,train.batch_size=512,train.min_steps=10000").total_steps(50_000) == 10_000
    assert overridden("train.epochs=15,train.batch_size=512,train.min_steps=1000").total_steps(50_000) == 1464
    with pytest.raises(ConfigError, match="batch_size is 4096 but there are only 100 training images"):
        config.total_steps(100)


def test_a_batch_larger_than_the_data_is_the_largest_power_of_two_that_the_data_fills(caplog):
    config = overridden("train.batch_size=100")
    assert config.with_batch_for(100) is config
    assert [config.with_batch_for(count).train.batch_size for count in (99, 64, 24, 2, 1)] == [64, 64, 16, 2, 1]
    assert "train.batch_size is 100, but there are only 24 training images: a batch has 16" in caplog.text


def test_random_stages_follow_from_the_seed_of_the_run():
    config = Config().override({"progressive.order": "random", "progressive.stages": 9, "train.seed": 3})
    assert config.plan(90) == Config.from_yaml(config.to_yaml()).plan(90) == config.progressive.plan(90, seed=3)
    assert config.plan(90) != config.override({"train.seed": 4}).plan(90)


def test_every_setting_is_described():
    def undescribed(section, prefix=""):
        for name, field in section.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields") and not field.description:
                yield from undescribed(inner, f"{prefix}{name}.")
            elif not field.description:
                yield prefix + name

    assert not list(undescribed(Config))


def test_a_setting_of_earlier_versions_is_named_and_ignored(caplog):
    stored = Config().to_yaml().replace("eval:\n", "eval:\n  per_class: false\n")
    assert Config.from_yaml(stored) == Config()  # a run of an earlier version
    assert not caplog.text
    assert overridden("eval.per_class=true,train.epochs=3").train.epochs == 3
    assert "eval.per_class is no longer a setting and changes nothing: --mode=eval always" in caplog.text


def test_a_configuration_keeps_the_network_of_a_file(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(dataclasses.replace(TINY, name="found").to_json())
    config = Config().override({"model.model_name": str(path)})
    assert config.spec == dataclasses.replace(TINY, name="found")
    assert config.eval_size == TINY.eval_size
    path.unlink()
    assert Config.from_yaml(config.to_yaml()) == config
    assert config.override({"model.normalization": "imagenet"}).spec.normalization == "imagenet"
    assert config.override({"model.model_name": "efficientnetv2-b1"}).spec.name == "efficientnetv2-b1"
    path.write_text(dataclasses.replace(TINY, name="another").to_json())
    assert config.override({"model.model_name": str(path)}).spec.name == "another"
    with pytest.raises(ConfigError, match="gone.json cannot be read"):
        config.override({"model.model_name": str(tmp_path / "gone.json")})


@pytest.mark.parametrize(
    ("epochs", "num_train", "batch_size", "steps"),
    [(2.3, 100, 10, 23), (1.1, 100, 10, 11), (0.29, 100, 1, 29), (4.35, 100, 1, 435), (2.35, 100, 10, 23)],
)
def test_a_part_of_an_epoch_is_as_many_steps_as_it_is_written(epochs, num_train, batch_size, steps):
    config = Config().override(
        {"train.epochs": epochs, "train.batch_size": batch_size, "train.lr_warmup_epoch": epochs}
    )
    assert config.total_steps(num_train) == steps
    schedule = schedule_for(config, steps_per_epoch=config.steps_per_epoch(num_train), total_steps=steps)
    assert schedule.warmup_steps == steps


@pytest.mark.parametrize(
    "text",
    [
        "eval.isize=480,train.isize=0.8",
        "train.isize=0.8,eval.isize=480",
        "train.isize=0.8,eval.isize=480,train.stages=2",
    ],
)
def test_a_training_size_is_a_share_of_the_evaluation_size_in_any_order(text):
    assert overridden(text).progressive.image_size.end == 384


def test_what_a_setting_of_the_reference_code_depends_on_may_come_after_it():
    texts = (
        "data.augname=randaug,data.augment_arithmetic=original",
        "data.augment_arithmetic=original,data.augname=randaug",
    )
    first, second = map(overridden, texts)
    assert first == second
    assert first.data.pipeline == "original_v2"
    sized = overridden("train.isize=0.8,model.model_name=efficientnetv2-s")
    assert sized == overridden("model.model_name=efficientnetv2-s,train.isize=0.8")
    assert sized.progressive.image_size.end == 304
    stages = overridden("train.stages=2,train.accumulation_steps=1|2,train.isize=0.5")
    assert stages.progressive.stages == 2


@pytest.mark.parametrize(
    ("changes", "num_train", "batch_size", "period"),
    [
        ({"train.min_steps": 10_000}, 2_040, 512, "13260/128"),  # 26 epochs of almost 4 steps
        ({"train.epochs": 350}, 1_281_167, 4096, "1281167/4096"),
        ({"train.epochs": 30}, 200, 32, "75/4"),  # a short run still has ten evaluations
        ({"eval.every_epochs": 1, "train.min_steps": 10_000}, 2_040, 512, "255/64"),
        ({"eval.every_epochs": 0.1, "train.epochs": 5}, 300, 10, "3"),
        ({"eval.every_epochs": 0.1, "eval.min_steps": 5, "train.epochs": 5}, 300, 10, "6"),
        ({"eval.min_steps": 0, "train.min_steps": 10_000}, 2_040, 512, "255/64"),
    ],
)
def test_evaluations_are_some_steps_apart_unless_the_epochs_are_given(changes, num_train, batch_size, period):
    config = Config().override({**changes, "train.batch_size": batch_size})
    assert config.evaluation_period(num_train) == Fraction(period)


def test_an_earlier_configuration_keeps_its_evaluations():
    config = Config.from_yaml("eval: {every_epochs: 1.0}\ntrain: {batch_size: 10}")
    assert config.evaluation_period(40) == 4
    assert not config.differences(config.override({"eval.every_epochs": None}))


@pytest.mark.parametrize("value", ["2024-99-99", "!!float x", "!!int ''", "!!timestamp x", "9" * 5000])
def test_a_value_of_yaml_that_is_not_what_it_looks_like_is_a_message(value):
    with pytest.raises(ConfigError, match=r"cannot read the value .*(?s:.*)line 2"):
        read_yaml(f"train:\n  epochs: {value}")


@pytest.mark.parametrize("text", ["train: {epochs: 3}\ntrain: {seed: 4}", "train:\n  epochs: 3\n  epochs: 4"])
def test_a_section_or_setting_of_yaml_is_not_lost_because_it_is_there_twice(text):
    with pytest.raises(ConfigError, match="is here for the second time; write each section and setting once"):
        read_yaml(text)


def test_the_suggestion_for_a_name_in_other_case_is_that_name():
    with pytest.raises(ConfigError, match=r"did you mean 'train\.epochs'"):
        Config().override({"TRAIN.EPOCHS": 3})
