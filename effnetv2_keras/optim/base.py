"""The base class of the optimizers: a ``tf.Module`` over ``tf.Variable``s, the same with Keras 2 and Keras 3."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Callable, ClassVar, Generic, TypeVar, Union

import tensorflow as tf

from effnetv2_keras.optim.loss_scale import LossScale

LearningRate = Union[float, Callable[[Any], Any]]
"""A learning rate: a constant, or a function of the number of finished steps that returns a scalar."""
Value = TypeVar("Value")
Pair = tuple[tf.Tensor, Any]
"""A gradient and its variable: a ``tf.Variable``, or a variable of Keras 3."""


@dataclasses.dataclass(frozen=True)
class LayerRate:
    """How the variables of a layer are updated in fine-tuning.

    Attributes:
        share: their learning rate as a share of the optimizer's, in (0, 1].
        first_step: number of steps before their first update, from which Adam corrects the bias of its averages.
    """

    share: float = 1.0
    first_step: int = 0


@dataclasses.dataclass(frozen=True)
class Progress:
    """The values that the updates of all variables need, computed once for each replica.

    Attributes:
        step: number of finished steps, an int64 scalar.
        learning_rate: learning rate of this step, a float scalar.
    """

    step: tf.Tensor
    learning_rate: tf.Tensor
    _made: dict[Hashable, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def once(self, name: Hashable, make: Callable[[], Value]) -> Value:
        """Returns what ``make`` returns; further calls with the same name return the same tensors again."""
        if name not in self._made:
            self._made[name] = make()
        value: Value = self._made[name]
        return value

    def rate(self, dtype: tf.DType, share: float = 1.0) -> tf.Tensor:
        """Returns a share of the learning rate, a scalar of ``dtype``."""
        if share == 1.0:
            return self.once(("rate", dtype), lambda: tf.cast(self.learning_rate, dtype))
        return self.once(("rate", dtype, share), lambda: self.rate(dtype) * tf.constant(share, dtype))

    def constant(self, value: float, dtype: tf.DType) -> tf.Tensor:
        """Returns a constant scalar of ``dtype``."""
        return self.once(("constant", value, dtype), lambda: tf.constant(value, dtype))


@dataclasses.dataclass(frozen=True)
class Hidden(Generic[Value]):
    """A value of a ``tf.Module`` that a checkpoint of it does not contain; variables in it have no name there."""

    value: Value


class Optimizer(tf.Module):
    """Updates variables by their gradients; a subclass has the arithmetic for one variable.

    Each variable has one slot of its shape and dtype for each name in ``SLOTS``. A checkpoint contains ``_iterations``,
    ``_variables`` (the iterations again, then the slots) and, for float16, ``loss_scale``. These are the names and the
    order of the optimizers of Keras 2, so that runs of earlier versions can be resumed.

    Make an optimizer and call ``build`` in the scope of the strategy.

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
        name: name of the optimizer, a Python identifier.

    Attributes:
        learning_rate: the argument; may be changed between steps that are not compiled.
        loss_scale: for float16, the scale of the loss, which is None at first. Steps whose gradients are not all finite
            then change no weight.
    """

    SLOTS: ClassVar[tuple[str, ...]] = ()
    """Names of the slots."""
    SLOT_BY_SLOT: ClassVar[bool] = False
    """Whether a checkpoint contains the first slot of all variables before the second slot of the first variable."""

    def __init__(self, learning_rate: LearningRate, *, name: str) -> None:
        super().__init__(name=name)
        self.learning_rate = learning_rate
        self.loss_scale: LossScale | None = None
        with tf.init_scope():
            self._iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iteration")
        self._variables = [self._iterations]
        self._built: Hidden[tuple[Sequence[tf.Variable], dict[int, tuple[tf.Variable, ...]]]] | None = None
        self._rates: Hidden[dict[int, LayerRate]] = Hidden({})

    @property
    def iterations(self) -> tf.Variable:
        """The number of finished steps, an int64 scalar variable."""
        return self._iterations

    @property
    def slots(self) -> list[tf.Variable]:
        """The slots of all variables, in the order in which a checkpoint contains them."""
        return list(self._variables[1:])

    def slot_of(self, variable: Any, name: str) -> tf.Variable:
        """Returns a slot of a variable.

        Raises:
            KeyError: if the variable was not passed to ``build``.
            ValueError: if the optimizer has no slot of that name.
        """
        return self._slots_of(plain_variable(variable))[self.SLOTS.index(name)]

    def _slots_of(self, variable: tf.Variable) -> tuple[tf.Variable, ...]:
        slots = self._built.value[1].get(id(variable)) if self._built else None
        if slots is None:
            raise KeyError(
                f"The variable {variable.name} of shape {tuple(variable.shape)} is unknown to the optimizer "
                f"{self.name}. Pass all variables to build before the first step."
            )
        return slots

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots of ``variables``, so that a checkpoint can be restored before the first step.

        Args:
            variables: all variables that are ever passed to ``apply_gradients``, each once.
        """
        plain = [plain_variable(variable) for variable in variables]
        places = [(name, number) for number in range(len(plain)) for name in self.SLOTS]
        if self.SLOT_BY_SLOT:
            places.sort(key=lambda place: self.SLOTS.index(place[0]))
        made = {(name, number): self._new_slot(name, plain[number]) for name, number in places}
        self._variables = [self._iterations, *made.values()]
        slots = {
            id(variable): tuple(made[name, number] for name in self.SLOTS) for number, variable in enumerate(plain)
        }
        self._built = Hidden((plain, slots))  # with the variables, whose ids are then those of no others

    def _new_slot(self, name: str, variable: tf.Variable) -> tf.Variable:
        with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
            return tf.Variable(
                self.initial_slot(name, variable),
                name=f"{name}/{variable.name.split(':')[0]}",
                dtype=variable.dtype,
                trainable=False,
            )

    def initial_slot(self, name: str, variable: tf.Variable) -> tf.Tensor:
        """Returns the initial value of a slot, of the shape and dtype of the variable: zeros."""
        del name
        return tf.zeros(variable.shape, variable.dtype)

    def set_layer_rates(self, rates: Sequence[tuple[Any, LayerRate]]) -> None:
        """Gives variables their own share of the learning rate and their own first step, if the optimizer has such."""
        self._rates = Hidden({id(plain_variable(variable)): rate for variable, rate in rates})

    def rate_of(self, variable: tf.Variable) -> LayerRate:
        """Returns how a variable of the model is updated."""
        return self._rates.value.get(id(variable), LayerRate())

    def apply_gradients(self, pairs: Iterable[Pair]) -> None:
        """Updates variables by their gradients, and counts the step.

        On several replicas, call it in the replica context, with the same gradients on each replica: sums over the
        replicas. (Optimizers of Keras sum them.)

        Args:
            pairs: gradients and variables. Pairs whose gradient is None are left out.

        Raises:
            KeyError: if a variable was not passed to ``build``.
            RuntimeError: if there is no replica context.
        """
        given = [(gradient, plain_variable(variable)) for gradient, variable in pairs if gradient is not None]
        variables = [variable for _, variable in given]
        if self._built is None:
            with tf.init_scope():
                self.build(variables)
        context = tf.distribute.get_replica_context()
        if context is None:
            raise RuntimeError("apply_gradients was called in a cross-replica context. Call it inside strategy.run.")
        step = tf.convert_to_tensor(self._iterations)
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        gradients = [gradient for gradient, _ in given]
        context.merge_call(
            lambda strategy, *merged: self._update_all(strategy, variables, *merged),
            args=(gradients, step, tf.convert_to_tensor(rate, tf.float32)),
        )

    def _update_all(
        self,
        strategy: tf.distribute.Strategy,
        variables: Sequence[tf.Variable],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        rate: tf.Tensor,
    ) -> None:
        def update() -> None:
            self._update_each(strategy, variables, gradients, step, rate)

        if self.loss_scale is None:
            update()
        else:
            tf.cond(self.loss_scale.update(gradients), update, lambda: None)
        self._iterations.assign_add(1)

    def _update_each(
        self,
        strategy: tf.distribute.Strategy,
        variables: Sequence[tf.Variable],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        rate: tf.Tensor,
    ) -> None:
        def update(_: tf.Variable, gradients: Sequence[tf.Tensor], step: tf.Tensor, rate: tf.Tensor) -> None:
            progress = Progress(step, rate)
            for variable, gradient in zip(variables, gradients):
                self.update(variable, gradient, progress, *self._slots_of(variable))

        # One call for all variables, because each call takes milliseconds. In it, a variable is this replica's copy.
        for first in variables[:1]:
            strategy.extended.update(first, update, args=(gradients, step, rate), group=False)

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Updates one variable and its slots, on one replica.

        Args:
            variable: the variable.
            gradient: its gradient, of the same shape and dtype.
            progress: step and learning rate.
            *slots: its slots, in the order of ``SLOTS``.
        """
        raise NotImplementedError


def plain_variable(variable: Any) -> tf.Variable:
    """Returns the TensorFlow variable of a variable of Keras 3, and any other variable as it is."""
    return variable if isinstance(variable, tf.Variable) else variable.value
