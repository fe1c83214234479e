import pytest

import hparams
from effnetv2_keras import specs
from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError


@pytest.mark.parametrize("recipe", hparams.names())
@pytest.mark.parametrize("model_name", specs.MODELS)
def test_every_recipe_fits_every_variant(recipe, model_name):
    config = hparams.load(recipe, model_name)
    assert config.model.model_name == model_name
    assert Config.from_yaml(config.to_yaml()) == config
    stages = config.progressive.plan(1000)
    assert len(stages) == 4
    assert stages[0].image_size < stages[-1].image_size


def test_names_are_case_insensitive_and_suggested():
    assert hparams.load("DEMO", "efficientnetv2-b0") == hparams.load("demo", "efficientnetv2-b0")
    with pytest.raises(ConfigError, match="Unknown --dataset_cfg=foldr; did you mean 'folder'.*demo, folder, tfds"):
        hparams.load("foldr", "efficientnetv2-b0")
