from __future__ import annotations

import pytest

from effnetv2_keras.architecture import profile, variants
from tests.reference import REFERENCE


@pytest.mark.parametrize("name", REFERENCE)
def test_counts_are_those_of_the_reference_code(name):
    spec, (size, total, trainable, without_top, giga_macs, giga_flops) = variants.MODELS[name], REFERENCE[name]
    assert profile.count_parameters(spec) == profile.ParameterCount(total, trainable)
    assert profile.count_parameters(spec, include_top=False).total == without_top
    assert profile.count_macs(spec, image_size=size) / 1e9 == pytest.approx(giga_macs, rel=1e-4)
    flops = profile.count_profiler_flops(spec, image_size=size)
    assert flops / 1e9 == pytest.approx(giga_flops, rel=1e-4, abs=1e-4)
    assert (flops / 1e9 - giga_macs) / (giga_flops - giga_macs) == pytest.approx(1, abs=0.01)


def test_the_classifier_counts_its_classes():
    spec = variants.get_spec("efficientnetv2-s")
    ten, hundred = (profile.count_parameters(spec, num_classes=classes) for classes in (10, 100))
    assert hundred.total - ten.total == hundred.trainable - ten.trainable == 90 * 1281
    ten, hundred = (profile.count_macs(spec, image_size=64, num_classes=classes) for classes in (10, 100))
    assert hundred - ten == 90 * 1280


def test_the_table_of_v2_s_is_table_4_of_the_paper():
    rows = profile.stage_table(variants.get_spec("efficientnetv2-s"), image_size=384)
    assert [(row.operator, row.stride, row.channels, row.layers) for row in rows] == [
        ("Conv3x3", 2, 24, 1),
        ("Fused-MBConv1, k3x3", 1, 24, 2),
        ("Fused-MBConv4, k3x3", 2, 48, 4),
        ("Fused-MBConv4, k3x3", 2, 64, 4),
        ("MBConv4, k3x3, SE0.25", 2, 128, 6),
        ("MBConv6, k3x3, SE0.25", 1, 160, 9),
        ("MBConv6, k3x3, SE0.25", 2, 256, 15),
        ("Conv1x1 & Pooling & FC", 1, 1280, 1),
    ]
    assert [row.output_size for row in rows] == [192, 192, 96, 48, 24, 24, 12, 12]


def test_a_row_counts_its_own_stage():
    stem, stage = profile.stage_table(variants.get_spec("efficientnetv2-s"), image_size=75)[:2]
    assert (stem.output_size, stem.macs) == (38, 38 * 38 * 27 * 24)
    assert stem.parameters == profile.ParameterCount(27 * 24 + 4 * 24, 27 * 24 + 2 * 24)
    assert stage.macs == 2 * 38 * 38 * 9 * 24 * 24


def test_without_a_top_there_is_no_classifier_row():
    *_, head = profile.stage_table(variants.get_spec("efficientnetv2-s"), image_size=384, include_top=False)
    assert (head.operator, head.macs) == ("Conv1x1", 12 * 12 * 256 * 1280)


def test_a_wrong_image_size_is_refused():
    with pytest.raises(ValueError, match="image_size is 0; it must be at least 1 pixel"):
        profile.count_macs(variants.get_spec("efficientnetv2-s"), image_size=0)
