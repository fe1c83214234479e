from __future__ import annotations

import pytest

from benchmarks.ablations import table_3_counts
from effnetv2_keras.architecture import variants
from effnetv2_keras.architecture.fusing import fuse
from effnetv2_keras.architecture.profile import count_parameters
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model
from tests.architecture.test_scaling import DOCS
from tests.tiny import TINY

B4 = variants.get_spec("efficientnet-b4")


def test_fused_stages_change_their_operator_only():
    fused = fuse(B4, (2, 3))
    assert fused.name == "efficientnet-b4-fused-2-3"
    assert [block.kind for block in fused.blocks] == ["mbconv", *["fused_mbconv"] * 2, *["mbconv"] * 4]
    assert [block.se_ratio for block in fused.blocks] == [0.25, 0, 0, 0.25, 0.25, 0.25, 0.25]
    assert [block.kernel_size for block in fused.blocks] == [3, 3, 5, 3, 5, 5, 3]
    assert [block.kernel_size for block in fuse(B4, (2, 3), kernel_size=3).blocks] == [3, 3, 3, 3, 5, 5, 3]
    for before, after in zip(B4.blocks, fused.blocks):
        for field in ("repeats", "stride", "expand_ratio", "input_filters", "output_filters"):
            assert getattr(before, field) == getattr(after, field)
    assert fuse(B4, ()) == B4
    s = variants.get_spec("efficientnetv2-s")
    assert fuse(s, (1, 2), kernel_size=5).blocks == s.blocks  # stages 1 and 2 are already fused


def test_invalid_arguments_are_refused():
    with pytest.raises(UsageError, match="efficientnet-b4 has no stage 8; its stages are 1 to 7"):
        fuse(B4, range(1, 9))
    with pytest.raises(UsageError, match="kernel_size is 4; it must be odd"):
        fuse(B4, (1,), kernel_size=4)


def test_fused_networks_build():
    spec = fuse(TINY, range(1, len(TINY.blocks) + 1))
    assert spec != TINY
    assert build_model(spec, num_classes=3).count_params() == count_parameters(spec, num_classes=3).total


@pytest.mark.parametrize(
    ("last", "plain", "nearest"),
    [  # of Table 3: the row, by the plain rule, and the nearest that the text allows
        (0, (19.34, 4.48), None),
        (3, (20.95, 9.71), (19.99, 7.41)),
        (5, (43.53, 23.07), (43.40, 21.34)),
        (7, (132.12, 36.20), (131.99, 34.48)),
    ],
)
def test_table_3(last, plain, nearest):
    counted = table_3_counts.plain(last)
    assert (round(counted.parameters, 2), round(counted.flops, 2)) == plain
    if nearest:
        _, counted = table_3_counts.nearest(last)
        assert (round(counted.parameters, 2), round(counted.flops, 2)) == nearest
    assert counted.distance(table_3_counts.PAPER[last]) < 0.1  # M parameters and G FLOPs


def test_counts_of_stages_add_up():
    assert table_3_counts.with_ways(()) == pytest.approx(table_3_counts.plain(0))
    ways = ("k3 e1", "k3 e6", "k5 e6")
    assert table_3_counts.with_ways(ways).distance(table_3_counts.plain(3)) < 1e-9


def test_the_documented_table_3_is_that_of_the_code():
    assert table_3_counts.table() in DOCS.read_text()
