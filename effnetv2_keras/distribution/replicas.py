"""Sums and means over the replicas of a strategy, from inside ``strategy.run``."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def sum_over_replicas(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sums of tensors over all replicas.

    ``ReplicaContext.all_reduce`` returns the same but registers a gradient, which would keep the graph in memory for
    ever. The result of this function has no gradient.

    Args:
        values: tensors of any shape. Every replica must call this function with tensors of the same shapes.

    Returns:
        The sums, in every replica. With one replica, or outside a replica context, they are ``values``.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(values)
    return _reduced(tf.distribute.ReduceOp.SUM, values)


def mean_over_replicas(statistics: Sequence[tf.Variable]) -> None:
    """Sets each replica's copy of variables, such as BatchNorm's moving statistics, to their mean over all replicas."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1 and statistics:
        means = _reduced(tf.distribute.ReduceOp.MEAN, [tf.identity(statistic) for statistic in statistics])
        for statistic, mean in zip(statistics, means):
            statistic.assign(mean)


def _reduced(how: tf.distribute.ReduceOp, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    def reduce(strategy: tf.distribute.Strategy, *all_values: tf.Tensor) -> list[tf.Tensor]:
        return strategy.extended.batch_reduce_to(how, [(value, value) for value in all_values])

    return tf.distribute.get_replica_context().merge_call(reduce, args=tuple(values))
