from __future__ import annotations

import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hparams.base
from effnetv2_keras.architecture import profile, variants
from effnetv2_keras.architecture.scaling import STEPS, LateLayers, Scaling, compound, family, scale
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec, expand
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model
from effnetv2_keras.modes.scale import from_base_table, table, write_family, write_specs

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "scaling.md"
S = variants.get_spec("efficientnetv2-s")


def channels(spec):
    expanded = expand(spec)
    return [expanded.blocks[end].output_filters for end in expanded.stage_ends]


def layers(spec):
    ends = expand(spec).stage_ends
    return [end - before for before, end in zip((-1, *ends), ends)]


def test_compound_scaling_is_v1s():
    assert dataclasses.astuple(compound(0)) == (1, 1, 1)
    assert dataclasses.astuple(compound(1)) == pytest.approx((1.1, 1.2, 1.15))
    assert dataclasses.astuple(compound(2.5)) == pytest.approx((1.1**2.5, 1.2**2.5, 1.15**2.5))


@pytest.mark.parametrize("phi", [-1, 20.5, float("nan")])
def test_a_phi_out_of_range_is_refused(phi):
    with pytest.raises(UsageError, match=rf"phi is {phi}; it must lie in \[0, 20\]"):
        compound(phi)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_scalings_are_above_0(value):
    with pytest.raises(UsageError, match=f"Scaling.depth is {value}; it must be a finite number above 0"):
        Scaling(1.0, value, 1.0)


def test_b0s_table_by_v1s_coefficients_is_that_of_s_m_and_l():
    """The exceptions are stages 4 and 6 of S, and stage 4 of M."""
    s, m, large = from_base_table()
    published = [variants.get_spec(f"efficientnetv2-{size}") for size in "sml"]
    assert channels(s) == [24, 48, 64, 136, 160, 272]
    assert channels(published[0]) == [24, 48, 64, 128, 160, 256]
    assert channels(m) == [24, 48, 80, 152, 176, 304, 512]
    assert channels(published[1]) == [24, 48, 80, 160, 176, 304, 512]
    assert channels(large) == channels(published[2])
    assert [layers(spec) for spec in (s, m, large)] == [layers(spec) for spec in published]
    assert [spec.head_filters for spec in (s, m, large)] == [spec.head_filters for spec in published]


def test_v2_s_to_m_and_l():
    m, large = family(S)
    assert (m.name, channels(m), layers(m)) == (
        "efficientnetv2-s-to-m", [24, 56, 72, 144, 184, 296, 512], [3, 5, 5, 8, 14, 19, 5],
    )  # fmt: skip
    assert (large.name, channels(large), layers(large)) == (
        "efficientnetv2-s-to-l", [32, 72, 88, 184, 232, 368, 640], [4, 7, 7, 11, 19, 26, 7],
    )  # fmt: skip
    assert [(spec.train_size, spec.eval_size, spec.dropout_rate) for spec in (m, large)] == [
        (368, 464, 0.3),
        (384, 480, 0.4),
    ]
    for spec, published in ((m, "efficientnetv2-m"), (large, "efficientnetv2-l")):
        right = variants.get_spec(published)
        assert profile.count_parameters(spec).trainable == pytest.approx(
            profile.count_parameters(right).trainable, rel=0.013
        )
        assert profile.count_macs(spec, image_size=spec.eval_size) == pytest.approx(
            profile.count_macs(right, image_size=right.eval_size), rel=0.053
        )
        last = [dataclasses.replace(stage.blocks[-1], repeats=1, input_filters=1, output_filters=1)
                for stage in (spec, right)]  # fmt: skip
        assert last[0] == last[1]  # operator of the added stage


def test_without_late_layers_and_limit_scaling_is_uniform():
    b5 = scale(variants.get_spec("efficientnet-b4"), STEPS["to-m"], name="b5", late=None, max_eval_size=1000)
    published = variants.get_spec("efficientnet-b5")
    assert (channels(b5), layers(b5), b5.eval_size) == (channels(published), layers(published), 456)
    assert scale(S, compound(0), name="s", late=None) == dataclasses.replace(S, name="s", train_size=304)


blocks = st.builds(
    BlockSpec,
    kind=st.sampled_from(["mbconv", "fused_mbconv"]),
    repeats=st.integers(1, 20),
    kernel_size=st.sampled_from([3, 5]),
    stride=st.integers(1, 2),
    expand_ratio=st.sampled_from([1, 4, 6]),
    input_filters=st.just(8),
    output_filters=st.integers(1, 40).map(lambda eighths: 8 * eighths),
    se_ratio=st.sampled_from([0.0, 0.25]),
)


@given(
    stages=st.lists(blocks, min_size=1, max_size=8),
    width=st.floats(1, 2),
    depth=st.floats(1, 3),
    phi=st.floats(0, 4),
    eval_size=st.integers(32, 480),
)
def test_any_network_scales(stages, width, depth, phi, eval_size):
    chained = [stages[0]]
    for stage in stages[1:]:
        chained.append(dataclasses.replace(stage, input_filters=chained[-1].output_filters))
    spec = ModelSpec("any", tuple(chained), width, depth, eval_size=eval_size)
    small, large = (scale(spec, compound(power), name="larger") for power in (phi, phi + 1))
    assert (small.width, small.depth) == (1, 1)
    assert small.eval_size <= large.eval_size <= 480
    assert small.eval_size % 8 == small.train_size % 8 == 0
    assert small.train_size == pytest.approx(0.8 * small.eval_size, abs=8)
    assert all(count % 8 == 0 for count in channels(small))
    assert all(before <= after for before, after in zip(channels(small), channels(large)))
    assert all(before <= after for before, after in zip(layers(spec), layers(small)))
    # A fifth more of over five layers is at least one layer more; six may be a rounded-up five.
    assert all(before < after for before, after in zip(layers(small), layers(large)) if before > 6)
    assert len(small.blocks) == (7 if len(chained) == 6 else len(chained))
    kinds = [(stage.kind, stage.kernel_size, stage.expand_ratio, stage.se_ratio) for stage in small.blocks]
    assert kinds[: len(chained)] == [
        (stage.kind, stage.kernel_size, stage.expand_ratio, stage.se_ratio) for stage in chained
    ]
    assert ModelSpec.from_json(small.to_json()) == small


def test_layers_are_counted_exactly():
    """9 * (2.2 / 1.8) is 11, although the floating-point result may be larger."""
    nine = dataclasses.replace(S, blocks=(dataclasses.replace(S.blocks[0], repeats=9),))
    for depth in (2.2 / 1.8, 1.1 / 0.9, 1.2222222222222225):
        assert layers(scale(nine, Scaling(1, depth, 1), name="eleven")) == [11]


def test_no_stage_loses_layers_to_rounding():
    """25 * 2.2 gives 56 layers, because 55.00000000000001 is rounded up."""
    deep = dataclasses.replace(S, blocks=(dataclasses.replace(S.blocks[0], repeats=25),), depth=2.2)
    assert layers(scale(deep, compound(0), name="same")) == layers(deep) == [56]
    assert layers(scale(deep, Scaling(1, 0.5, 1), name="half")) == [28]


def test_a_family_by_phi():
    names = [(spec.name, spec.dropout_rate) for spec in family(S, (3, 1, 0.5, 4, 6))]
    assert names == [
        ("efficientnetv2-s-phi0.5", 0.3),
        ("efficientnetv2-s-phi1", 0.4),
        ("efficientnetv2-s-phi3", 0.5),
        ("efficientnetv2-s-phi4", 0.5),
        ("efficientnetv2-s-phi6", 0.5),
    ]


def test_late_layers():
    nothing = LateLayers(share=0, stage_share=1, stage_width=1).added_to(S.blocks)
    assert nothing[:6] == S.blocks
    assert nothing[6] == dataclasses.replace(S.blocks[5], stride=1, input_filters=256)


def test_every_network_of_a_family_builds():
    tiny = ModelSpec(
        "tiny",
        tuple(dataclasses.replace(block, repeats=1, input_filters=8, output_filters=8, stride=2) for block in S.blocks),
        head_filters=16,
        eval_size=32,
    )
    for spec in family(tiny, (0, 1)):
        model = build_model(spec, num_classes=3)
        counted = profile.count_parameters(spec, num_classes=3)
        assert model.count_params() == counted.total
        assert sum(variable.shape.num_elements() for variable in model.trainable_variables) == counted.trainable


@pytest.mark.slow
@pytest.mark.parametrize("spec", family(S), ids=lambda spec: spec.name)
def test_the_family_of_v2_s_builds(spec):
    model = build_model(spec, num_classes=3)
    assert model.count_params() == profile.count_parameters(spec, num_classes=3).total
    assert model(model.inputs[0][:0, :32, :32]).shape[-1] == 3


def test_the_documented_tables_are_those_of_the_code():
    text = DOCS.read_text()
    assert table((S, *family(S))) in text
    assert table(from_base_table()) in text


def test_files_of_a_family_train_and_are_not_overwritten(tmp_path):
    folder = tmp_path / "new" / "family"
    output = write_family("efficientnetv2-s", ["1", "2"], folder)
    path = folder / "efficientnetv2-s-phi1.json"
    assert output == ((S, *family(S, (1, 2))), [str(path), str(folder / "efficientnetv2-s-phi2.json")])
    assert (spec := variants.get_spec(str(path))) == family(S, (1, 2))[0]
    stages = hparams.base.get_base(str(path)).plan(100)
    assert (stages[-1].image_size, stages[-1].dropout_rate) == (spec.train_size, spec.dropout_rate)
    assert write_family("efficientnetv2-s", ["2", "1", "1"], folder) == output  # an equal file is allowed
    assert write_family(str(path), ["1"], folder)[1][0].endswith("efficientnetv2-s-phi1-phi1.json")
    path.write_text("mine")
    (folder / "efficientnetv2-s-phi2.json").unlink()
    with pytest.raises(
        UsageError, match=r"phi1.json exists with other content. Choose another --output_dir, or add --over"
    ):
        write_family("efficientnetv2-s", ["1", "2"], folder)
    assert (path.read_text(), len(list(folder.iterdir()))) == ("mine", 2)
    write_family("efficientnetv2-s", ["1", "2"], folder, overwrite=True)
    assert variants.get_spec(str(path)) == spec


def test_mistakes_in_a_family_are_told(tmp_path):
    with pytest.raises(UsageError, match="--phi=1,big must be numbers, such as --phi=1,2,3"):
        write_family("efficientnetv2-s", ["1", "big"], tmp_path)
    with pytest.raises(UsageError, match="phi is -1.0; it must lie in"):
        write_family("efficientnetv2-s", ["-1"], tmp_path)
    with pytest.raises(UsageError, match=r"The network's name '../s' is not a file name; remove the slashes"):
        write_specs([dataclasses.replace(S, name="../s")], tmp_path / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file cannot be written: .*Choose another --output_dir"):
        write_specs([S], tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
