from __future__ import annotations

import pytest

from effnetv2_keras import profile, specs

# Evaluation size, parameters (total, trainable, without the classifier), 1e9 multiply-adds, and 1e9 of what the
# reference code prints as FLOPs: half of what TensorFlow's profiler counts.
REFERENCE = {
    "efficientnetv2-b0": (224, 7_200_312, 7_139_704, 5_919_312, 0.7181, 0.7309),
    "efficientnetv2-b1": (240, 8_212_124, 8_141_052, 6_931_124, 1.1968, 1.2137),
    "efficientnetv2-b2": (260, 10_178_374, 10_096_086, 8_769_374, 1.6975, 1.7195),
    "efficientnetv2-b3": (300, 14_467_622, 14_358_406, 12_930_622, 3.0115, 3.0449),
    "efficientnetv2-s": (384, 21_612_360, 21_458_488, 20_331_360, 8.3656, 8.4308),
    "efficientnetv2-m": (480, 54_431_388, 54_139_356, 53_150_388, 24.5825, 24.7499),
    "efficientnetv2-l": (480, 119_027_848, 118_515_272, 117_746_848, 56.0797, 56.3974),
    "efficientnetv2-xl": (512, 208_896_832, 208_119_808, 207_615_832, 93.3535, 93.8799),
    "efficientnet-b0": (224, 5_330_564, 5_288_548, 4_049_564, 0.3858, 0.3997),
    "efficientnet-b1": (240, 7_856_232, 7_794_184, 6_575_232, 0.6868, 0.7088),
    "efficientnet-b2": (260, 9_177_562, 9_109_994, 7_768_562, 0.9936, 1.0208),
    "efficientnet-b3": (300, 12_314_268, 12_227_212, 10_777_268, 1.7569, 1.7981),
    "efficientnet-b4": (380, 19_466_816, 19_341_616, 17_673_816, 4.3938, 4.4789),
    "efficientnet-b5": (456, 30_562_520, 30_389_784, 28_513_520, 10.2664, 10.4300),
    "efficientnet-b6": (528, 43_265_136, 43_040_704, 40_960_136, 19.0676, 19.3366),
    "efficientnet-b7": (600, 66_658_680, 66_347_960, 64_097_680, 37.7459, 38.2072),
    "efficientnet-b8": (672, 87_793_174, 87_413_142, 84_976_174, 62.5975, 63.2921),
    "efficientnet-l2": (800, 481_399_996, 480_309_308, 475_894_996, 475.704, 478.536),
}


@pytest.mark.parametrize("name", specs.MODELS)
def test_counts_are_those_of_the_reference_code(name):
    spec, (size, total, trainable, without_top, giga_macs, giga_flops) = specs.MODELS[name], REFERENCE[name]
    assert profile.count_parameters(spec) == profile.ParameterCount(total, trainable)
    assert profile.count_parameters(spec, include_top=False).total == without_top
    assert profile.count_macs(spec, image_size=size) / 1e9 == pytest.approx(giga_macs, rel=1e-4)
    flops = profile.count_profiler_flops(spec, image_size=size)
    assert flops / 1e9 == pytest.approx(giga_flops, rel=1e-4, abs=1e-4)
    assert (flops / 1e9 - giga_macs) / (giga_flops - giga_macs) == pytest.approx(1, abs=0.01)


def test_the_classifier_counts_its_classes():
    spec = specs.get_spec("efficientnetv2-s")
    ten, hundred = (profile.count_parameters(spec, num_classes=classes) for classes in (10, 100))
    assert hundred.total - ten.total == hundred.trainable - ten.trainable == 90 * 1281
    ten, hundred = (profile.count_macs(spec, image_size=64, num_classes=classes) for classes in (10, 100))
    assert hundred - ten == 90 * 1280


def test_the_table_of_v2_s_is_table_4_of_the_paper():
    rows = profile.stage_table(specs.get_spec("efficientnetv2-s"), image_size=384)
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
    stem, stage = profile.stage_table(specs.get_spec("efficientnetv2-s"), image_size=75)[:2]
    assert (stem.output_size, stem.macs) == (38, 38 * 38 * 27 * 24)
    assert stem.parameters == profile.ParameterCount(27 * 24 + 4 * 24, 27 * 24 + 2 * 24)
    assert stage.macs == 2 * 38 * 38 * 9 * 24 * 24


def test_without_a_top_there_is_no_classifier_row():
    *_, head = profile.stage_table(specs.get_spec("efficientnetv2-s"), image_size=384, include_top=False)
    assert (head.operator, head.macs) == ("Conv1x1", 12 * 12 * 256 * 1280)


def test_a_wrong_image_size_is_refused():
    with pytest.raises(ValueError, match="image_size is 0; it must be at least 1 pixel"):
        profile.count_macs(specs.get_spec("efficientnetv2-s"), image_size=0)
