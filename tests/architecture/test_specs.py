import dataclasses
import json

import pytest

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.errors import UsageError


@pytest.mark.parametrize(
    ("name", "filters", "repeats", "stem", "head"),
    [  # observed in the reference code
        ("efficientnetv2-b0", [16, 32, 48, 96, 112, 192], [1, 2, 2, 3, 5, 8], 32, 1280),
        ("efficientnetv2-b1", [16, 32, 48, 96, 112, 192], [2, 3, 3, 4, 6, 9], 32, 1280),
        ("efficientnetv2-b2", [16, 32, 56, 104, 120, 208], [2, 3, 3, 4, 6, 10], 32, 1408),
        ("efficientnetv2-b3", [16, 40, 56, 112, 136, 232], [2, 3, 3, 5, 7, 12], 40, 1536),
        ("efficientnetv2-s", [24, 48, 64, 128, 160, 256], [2, 4, 4, 6, 9, 15], 24, 1280),
        ("efficientnetv2-m", [24, 48, 80, 160, 176, 304, 512], [3, 5, 5, 7, 14, 18, 5], 24, 1280),
        ("efficientnetv2-l", [32, 64, 96, 192, 224, 384, 640], [4, 7, 7, 10, 19, 25, 7], 32, 1280),
        ("efficientnetv2-xl", [32, 64, 96, 192, 256, 512, 640], [4, 8, 8, 16, 24, 32, 8], 32, 1280),
        ("efficientnet-b0", [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 32, 1280),
        ("efficientnet-b1", [16, 24, 40, 80, 112, 192, 320], [2, 3, 3, 4, 4, 5, 2], 32, 1280),
        ("efficientnet-b2", [16, 24, 48, 88, 120, 208, 352], [2, 3, 3, 4, 4, 5, 2], 32, 1408),
        ("efficientnet-b3", [16, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 40, 1536),
        ("efficientnet-b3-keras", [24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 40, 1536),
        ("efficientnet-b4", [24, 32, 56, 112, 160, 272, 448], [2, 4, 4, 6, 6, 8, 2], 48, 1792),
        ("efficientnet-b5", [24, 40, 64, 128, 176, 304, 512], [3, 5, 5, 7, 7, 9, 3], 48, 2048),
        ("efficientnet-b6", [32, 40, 72, 144, 200, 344, 576], [3, 6, 6, 8, 8, 11, 3], 56, 2304),
        ("efficientnet-b7", [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 64, 2560),
        ("efficientnet-b8", [32, 56, 88, 176, 248, 424, 704], [4, 8, 8, 11, 11, 15, 4], 72, 2816),
        ("efficientnet-l2", [72, 104, 176, 344, 480, 824, 1376], [6, 11, 11, 16, 16, 22, 6], 136, 5504),
    ],
)
def test_scaling(name, filters, repeats, stem, head):
    expanded = specs.expand(variants.get_spec(name))
    ends = expanded.stage_ends
    assert [expanded.blocks[end].output_filters for end in ends] == filters
    assert [end - start for start, end in zip((-1, *ends), ends)] == repeats
    assert (expanded.stem_filters, expanded.head_filters) == (stem, head)


def test_only_the_first_block_of_a_stage_strides_and_widens():
    expanded = specs.expand(variants.get_spec("efficientnetv2-s"))
    firsts = {0, *(end + 1 for end in expanded.stage_ends[:-1])}
    for index, block in enumerate(expanded.blocks):
        assert index in firsts or (block.stride == 1 and block.has_residual)
    assert [expanded.blocks[first].stride for first in sorted(firsts)] == [1, 2, 2, 2, 1, 2]


def test_squeeze_counts_from_the_block_input():
    block = specs.expand(variants.get_spec("efficientnetv2-b0")).blocks[5]
    assert (block.input_filters, block.squeezed_filters, block.expanded_filters) == (48, 12, 192)


def test_drop_path_grows_linearly_and_stays_below_its_end():
    rates = specs.drop_path_rates(40, 0.2)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2 * 39 / 40)
    assert [b - a for a, b in zip(rates, rates[1:])] == pytest.approx([0.2 / 40] * 39)


def test_unknown_model_suggests_the_nearest():
    with pytest.raises(UsageError, match="Unknown model 'efficientnet-v2-s'; did you mean 'efficientnetv2-s'"):
        variants.get_spec("efficientnet-v2-s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "conv"}, "kind is 'conv'; use 'mbconv' or 'fused_mbconv'"),
        ({"repeats": 0}, "repeats is 0"),
        ({"se_ratio": 1.5}, "se_ratio is 1.5"),
    ],
)
def test_bad_blocks(change, message):
    block = variants.get_spec("efficientnetv2-s").blocks[0]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(block, **change)


def test_stages_must_fit_together():
    spec = variants.get_spec("efficientnetv2-s")
    with pytest.raises(ValueError, match="a stage has 24 output channels but the next has 48 input channels"):
        dataclasses.replace(spec, blocks=(spec.blocks[0], *spec.blocks[2:]))


@pytest.mark.parametrize("name", variants.MODELS)
def test_a_network_is_the_same_after_a_round_trip_through_json(name):
    spec = variants.MODELS[name]
    assert specs.ModelSpec.from_json(spec.to_json()) == spec
    assert spec.to_json().count("\n    {") == len(spec.blocks)


def test_a_file_names_a_network(tmp_path):
    path = tmp_path / "found.json"
    spec = dataclasses.replace(variants.MODELS["efficientnetv2-b0"], name="found", depth=1.5)
    path.write_text(spec.to_json())
    assert variants.get_spec(str(path)) == spec


def _with(field, value):
    return json.dumps({**json.loads(variants.MODELS["efficientnetv2-b0"].to_json()), field: value})


def _with_block(field, value):
    first, *others = json.loads(variants.MODELS["efficientnetv2-b0"].to_json())["blocks"]
    return _with("blocks", [{**first, field: value}, *others])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not the JSON of a ModelSpec"),
        ("[1]", "it is a list, not an object"),
        ('{"name": "n", "blocks": []}', "has no blocks"),
        ('{"name": "n", "blocks": [{"kind": "mbconv"}]}', "missing .* required positional arguments"),
        (_with("train_size", "big"), "train_size is 'big'; it must be a whole number"),
        (_with("dropout_rate", 7), r"dropout_rate is 7; it must lie in \[0, 1\)"),
        (_with("normalization", "centred"), "normalization is 'centred'; use one of centered"),
        (_with("width", float("nan")), "must be positive"),
        (_with("head_filters", 10**400), "the number of channels is 10,000,.*; it must be at most 65,536"),
        (_with("depth", 1e9), "the scaled number of blocks is 21,000,000,000.0; it must be at most 1,000"),
        (_with("width", 1e9), "the scaled number of channels is .*; it must be at most 65,536"),
        (_with_block("repeats", 10**7), "the number of blocks is 10,000,020; it must be at most 1,000"),
        (_with_block("expand_ratio", 10**7), "the number of channels is 320,000,000; it must be at most 65,536"),
        (_with_block("kernel_size", 10**7), "BlockSpec.kernel_size is 10,000,000; it must be at most 31"),
        ("[" * 10**5, "not the JSON of a ModelSpec"),
        ('{"name": "n", "blocks": [], "deep": 1}', "the network has the unknown field 'deep'; known are name, blocks"),
        ('{"name": "n", "blocks": [{"kernel": 3}]}', "blocks has the unknown field 'kernel'; known are kind, repeats"),
    ],
)
def test_a_file_that_is_no_network_is_named(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        variants.get_spec(str(path))
    assert str(path) in str(error.value)
    with pytest.raises(UsageError, match="gone.json cannot be read: No such file"):
        variants.get_spec(str(tmp_path / "gone.json"))
