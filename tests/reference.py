"""Counts of every variant with 1000 classes, computed by the reference code."""

from __future__ import annotations

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
    # Keras' network without normalization. The reference code does not have it; its FLOPs are counted by the same rule.
    "efficientnet-b3-keras": (300, 12_320_528, 12_233_232, 10_783_528, 1.8271, 1.8705),
    "efficientnet-b4": (380, 19_466_816, 19_341_616, 17_673_816, 4.3938, 4.4789),
    "efficientnet-b5": (456, 30_562_520, 30_389_784, 28_513_520, 10.2664, 10.4300),
    "efficientnet-b6": (528, 43_265_136, 43_040_704, 40_960_136, 19.0676, 19.3366),
    "efficientnet-b7": (600, 66_658_680, 66_347_960, 64_097_680, 37.7459, 38.2072),
    "efficientnet-b8": (672, 87_793_174, 87_413_142, 84_976_174, 62.5975, 63.2921),
    "efficientnet-l2": (800, 481_399_996, 480_309_308, 475_894_996, 475.704, 478.536),
}
"""Evaluation size; parameters (total, trainable, total without the classifier); multiply-adds, 1e9; and FLOPs, 1e9, as
the reference code prints them, which is half of the float operations that TensorFlow's profiler counts."""
