import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.data.augment import mixing

SEED = (11, 4)


def flat_batch(count, size=16, dtype=np.uint8):
    """Image ``i`` is all ``20 * i``, its label is one-hot ``i``: what came from where can be read off."""
    images = np.full((count, size, size, 3), 20 * np.arange(count).reshape(-1, 1, 1, 1), dtype)
    return tf.constant(images), tf.one_hot(tf.range(count), count)


def weights_of_own(labels):
    """The weight that each row of mixed one-hot labels gives to its own class."""
    return np.diag(labels.numpy()).copy()


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0])
def test_beta_has_its_moments(alpha):
    drawn = mixing.sample_beta(alpha, [40_000], tf.constant(SEED)).numpy().astype(np.float64)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    moment = 1.0
    for power in range(1, 5):  # E[x^n] = product of (alpha + r) / (2 alpha + r)
        moment *= (alpha + power - 1) / (2 * alpha + power - 1)
        assert np.mean(drawn**power) == pytest.approx(moment, abs=0.008)
    assert np.var(drawn) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


def test_beta_of_a_tiny_parameter_is_a_coin():
    drawn = mixing.sample_beta(1e-4, [4000], tf.constant(SEED)).numpy()
    assert np.isfinite(drawn).all()
    assert np.minimum(drawn, 1 - drawn).max() < 0.5
    assert np.mean(np.minimum(drawn, 1 - drawn) < 1e-6) > 0.99
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)


def test_beta_draws_are_independent():
    drawn = mixing.sample_beta(1.0, [200, 100], tf.constant(SEED)).numpy()
    assert drawn.shape == (200, 100)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.25
    assert len(np.unique(drawn)) > 19_900


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_mixup_blends_images_and_labels_with_one_weight(count, dtype):
    images, labels = flat_batch(count, dtype=dtype)
    mixed, mixed_labels = mixing.mixup(images, labels, alpha=0.7, seed=tf.constant(SEED))
    assert mixed.dtype == mixed_labels.dtype == tf.float32
    own = np.arange(count)
    weight = weights_of_own(mixed_labels)
    weight[own == own[::-1]] = 1.0
    assert (weight >= 0.5).all()
    assert (weight <= 1.0).all()
    assert len(set(weight)) >= count // 2
    expected = 20 * (weight * own + (1 - weight) * own[::-1])
    np.testing.assert_allclose(mixed, np.broadcast_to(expected[:, None, None, None], mixed.shape), atol=1e-3)
    np.testing.assert_allclose(tf.reduce_sum(mixed_labels, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_cutmix_weighs_each_label_by_the_area_left_of_its_image(count, dtype):
    images, labels = flat_batch(count, dtype=dtype)
    mixed, mixed_labels = mixing.cutmix(images, labels, alpha=1.0, seed=tf.constant(SEED))
    assert mixed.dtype == mixed_labels.dtype == tf.float32
    own = np.arange(count)
    from_own = mixed.numpy() == 20.0 * own[:, None, None, None]
    from_partner = mixed.numpy() == 20.0 * own[::-1][:, None, None, None]
    assert (from_own | from_partner).all()
    apart = own != own[::-1]
    share = from_own.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(weights_of_own(mixed_labels)[apart], share[apart], atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(mixed_labels, axis=1), 1.0, atol=1e-6)
    assert len(set(share[apart])) >= apart.sum() // 2  # not one weight for the whole batch


def test_cutmix_pastes_rectangles_from_the_same_place():
    size = 32
    coordinates = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    images = np.concatenate([coordinates, coordinates + 5000]).repeat(3, axis=3)
    clipped = 0
    for seed in range(40):
        mixed, _ = mixing.cutmix(tf.constant(images), tf.eye(2), alpha=1.0, seed=tf.constant([seed, 0]))
        np.testing.assert_array_equal(mixed.numpy() % 5000, images % 5000)
        pasted = mixed.numpy()[0, :, :, 0] >= 5000
        rows, columns = pasted.any(axis=1), pasted.any(axis=0)
        np.testing.assert_array_equal(pasted, rows[:, None] & columns[None, :])
        assert np.abs(np.diff(rows.astype(int))).sum() <= 2  # one piece
        clipped += rows.sum() != columns.sum()
    assert 5 < clipped < 40  # a square, unless the border cuts it


def test_even_boxes_lose_the_odd_row_and_column():
    size = 33
    images = tf.constant(np.stack([np.zeros((size, size, 3)), np.ones((size, size, 3))]), tf.float32)
    sides, odd = [], 0
    for seed in range(60):
        settings = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "seed": tf.constant([seed, 0])}
        whole, _ = mixing.mix(images, tf.eye(2), **settings)
        mixed, labels = mixing.mix(images, tf.eye(2), even_boxes=True, **settings)
        pasted, full = mixed.numpy()[0, :, :, 0] > 0, whole.numpy()[0, :, :, 0] > 0
        assert (full | ~pasted).all()  # inside the box as it would be
        np.testing.assert_allclose(labels[0, 1], pasted.mean(), atol=1e-6)
        rows = np.flatnonzero(pasted.any(axis=1))
        if len(rows) and rows[0] > 0 and rows[-1] < size - 1:  # not clipped
            sides.append(len(rows))
        odd += full.any(axis=1).sum() > len(rows)
    assert len(sides) > 5
    assert all(side % 2 == 0 for side in sides)
    assert odd > 5


def test_cutmix_area_follows_beta():
    images, labels = flat_batch(2, size=64)
    images, labels = tf.repeat(images, 600, axis=0), tf.repeat(labels, 600, axis=0)
    _, mixed_labels = mixing.cutmix(images, labels, alpha=1.0, seed=tf.constant(SEED))
    own = tf.reduce_sum(mixed_labels * labels, axis=1).numpy()
    # Uncut, the area left would be uniform, 1/2 on average; a square of side s loses (s - s^2 / 4)^2 to s^2 at the
    # border, so E[remaining] = 1 - E[(s - s^2 / 4)^2] = 1 - (1/2 - 1/5 + 1/48), s^2 being uniform.
    assert own.mean() == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.03)


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_with_both_each_half_keeps_to_itself(count):
    images, labels = flat_batch(count)
    mixed, mixed_labels = mixing.mix(images, labels, mixup_alpha=0.6, cutmix_alpha=1.0, seed=tf.constant(SEED))
    half = count // 2
    partner = np.concatenate([np.arange(half)[::-1], half + np.arange(count - half)[::-1]])
    for index in range(count):
        values = np.unique(mixed[index])
        others = np.delete(mixed_labels.numpy()[index], [index, partner[index]])
        assert not others.any()
        own, other = 20.0 * index, 20.0 * partner[index]
        if index < half:
            weight = mixed_labels.numpy()[index, index] if partner[index] != index else 1.0
            np.testing.assert_allclose(values, weight * own + (1 - weight) * other, atol=1e-3)
        else:
            assert set(values) <= {own, other}
    assert mixed.shape == images.shape
    np.testing.assert_allclose(tf.reduce_sum(mixed_labels, axis=1), 1.0, atol=1e-6)


def test_with_both_each_half_has_draws_of_its_own():
    images, labels = flat_batch(6)
    mixed, mixed_labels = mixing.mix(images, labels, mixup_alpha=0.7, cutmix_alpha=1.3, seed=tf.constant(SEED))
    first, second = tf.unstack(tf.random.experimental.stateless_split(tf.constant(SEED), 2))
    blended = mixing.mixup(images[:3], labels[:3], alpha=0.7, seed=first)
    patched = mixing.cutmix(images[3:], labels[3:], alpha=1.3, seed=second)
    np.testing.assert_array_equal(mixed, tf.concat([blended[0], patched[0]], axis=0))
    np.testing.assert_array_equal(mixed_labels, tf.concat([blended[1], patched[1]], axis=0))


def test_with_one_parameter_the_whole_batch_takes_part():
    images, labels = flat_batch(6)
    seed = tf.constant(SEED)
    for alphas, expected in (
        ({"mixup_alpha": 0.5, "cutmix_alpha": 0.0}, mixing.mixup(images, labels, alpha=0.5, seed=seed)),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.5}, mixing.cutmix(images, labels, alpha=0.5, seed=seed)),
    ):
        mixed, mixed_labels = mixing.mix(images, labels, seed=seed, **alphas)
        np.testing.assert_array_equal(mixed, expected[0])
        np.testing.assert_array_equal(mixed_labels, expected[1])
        assert not np.array_equal(mixed, images)


def test_without_a_parameter_nothing_is_added():
    images, labels = flat_batch(4)
    seed = tf.constant(SEED)
    for outcome in (
        mixing.mixup(images, labels, alpha=0.0, seed=seed),
        mixing.cutmix(images, labels, alpha=0, seed=seed),
        mixing.mix(images, labels, mixup_alpha=0.0, cutmix_alpha=0.0, seed=seed),
    ):
        assert outcome[0] is images
        assert outcome[1] is labels


def test_an_unreadable_image_takes_its_share_of_the_label_away():
    images, labels = flat_batch(4)
    labels = labels * tf.constant([[1.0], [0.0], [1.0], [1.0]])
    for function in (mixing.mixup, mixing.cutmix):
        _, whole = function(*flat_batch(4), alpha=1.0, seed=tf.constant(SEED))
        _, mixed_labels = function(images, labels, alpha=1.0, seed=tf.constant(SEED))
        np.testing.assert_allclose(mixed_labels, whole * tf.constant([1.0, 0.0, 1.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("alphas", [(0.3, 0.0), (0.0, 0.3), (0.3, 0.4)])
def test_the_same_eagerly_and_inside_a_dataset_with_a_known_shape(alphas):
    images, labels = flat_batch(6)

    def mix(images, labels):
        return mixing.mix(images, labels, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], seed=tf.constant(SEED))

    dataset = tf.data.Dataset.from_tensors((images, labels)).map(mix)
    assert dataset.element_spec == (tf.TensorSpec([6, 16, 16, 3]), tf.TensorSpec([6, 6]))
    for mapped, eager in zip(next(iter(dataset)), mix(images, labels)):
        np.testing.assert_allclose(mapped, eager, atol=1e-4)
    ragged = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4).map(mix)
    assert [len(batch) for batch, _ in ragged] == [4, 2]


def test_the_seed_decides():
    images, labels = flat_batch(8)
    for alphas in ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        outcomes = [
            mixing.mix(images, labels, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], seed=tf.constant(seed))[0].numpy()
            for seed in ([1, 2], [1, 2], [1, 3])
        ]
        np.testing.assert_array_equal(outcomes[0], outcomes[1])
        assert not np.array_equal(outcomes[0], outcomes[2])


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ((-0.1, 0.0), "mixup_alpha is -0.1, but must be positive, or 0 to turn mixup off"),
        ((-0.1, 0.2), "mixup_alpha is -0.1"),
        ((0.0, -2.0), "cutmix_alpha is -2.0"),
        ((0.2, -2.0), "cutmix_alpha is -2.0"),
    ],
)
def test_negative_parameters(alphas, message):
    with pytest.raises(ValueError, match=message):
        mixing.mix(*flat_batch(2), mixup_alpha=alphas[0], cutmix_alpha=alphas[1], seed=tf.constant(SEED))
