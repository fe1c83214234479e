"""Sums and means over the replicas of a strategy, from inside ``strategy.run``."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def sum_over_replicas(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Adds up tensors of any shapes over all replicas; each gets the sums.

    This is what ``ReplicaContext.all_reduce`` does, without registering a gradient that would keep the graph for good;
    it has none. With one replica, or outside any, the sums are the tensors themselves.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(values)
    return _reduced(tf.distribute.ReduceOp.SUM, values)


def mean_over_replicas(statistics: Sequence[tf.Variable]) -> None:
    """Gives each replica's copy of the variables, such as BatchNorm's moving statistics, their mean over all."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1 and statistics:
        means = _reduced(tf.distribute.ReduceOp.MEAN, [tf.identity(statistic) for statistic in statistics])
        for statistic, mean in zip(statistics, means):
            statistic.assign(mean)


def _reduced(how: tf.distribute.ReduceOp, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    def reduce(strategy: tf.distribute.Strategy, *all_values: tf.Tensor) -> list[tf.Tensor]:
        return strategy.extended.batch_reduce_to(how, [(value, value) for value in all_values])

    return tf.distribute.get_replica_context().merge_call(reduce, args=tuple(values))
