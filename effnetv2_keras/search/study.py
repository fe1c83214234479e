"""The trials of a search in a storage of Optuna, which all processes of the search share (no TensorFlow)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.search import ownership
from effnetv2_keras.search.ownership import OWNER, SEEN, is_gone, is_orphan, owner_of, this_process
from effnetv2_keras.search.reward import Budget, Costs, reward
from effnetv2_keras.search.samplers import CONTINUES, EXCESS, NOT_TRAINED, make_sampler, quiet, without_continued
from effnetv2_keras.search.space import SearchSpace

NETWORK = "network"
"""User attribute of a trial: the name of its network."""

_REASON = "reason"  # user attribute of a trial: why it failed or was stopped

_MOST_DRAWS = 300  # in a row without a network to train
_OVER = (ValueError, optuna.exceptions.UpdateFinishedTrialError)
"""Errors of Optuna for a trial that another process has already ended."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a trial.

    Attributes:
        accuracy: accuracy on held-out images, in [0, 1].
        step_time: time of a train step divided by that of the backbone.
        details: further metrics for the tables.
    """

    accuracy: float
    step_time: float
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A network for this process to evaluate.

    Attributes:
        trial: trial of Optuna.
        spec: the network.
        costs: parameters and multiply-adds of the network.
    """

    trial: optuna.Trial
    spec: ModelSpec
    costs: Costs


class Study:
    """Draws networks, records the results of trials, and distributes the trials over the processes of a search.

    All processes with the same storage see the same trials. If a process dies, the next process that calls
    ``take_over`` queues its unfinished trials again.

    Args:
        space: the search space.
        budget: limits that can be checked before training.
        settings: settings of the search.
        storage: storage that all processes share.
        name: name of the search in the storage, because a database may contain several; processes with the same name
            share a search.
        drawing: context manager that surrounds each draw, such as a lock that prevents two processes from drawing the
            same network at the same time.
        seed: seed of the draws. Seed and number of trials so far determine the next draw.

    Attributes:
        optuna_study: the study of Optuna.

    Raises:
        UsageError: if the storage contains a search with this name and another number of objectives.
    """

    def __init__(
        self,
        space: SearchSpace,
        budget: Budget,
        settings: SearchConfig,
        *,
        storage: optuna.storages.BaseStorage,
        name: str = "search",
        drawing: contextlib.AbstractContextManager[Any] | None = None,
        seed: int = 0,
    ) -> None:
        self._space, self._budget, self._settings, self._seed = space, budget, settings, seed
        self._drawing = drawing or contextlib.nullcontext()
        self._is_front = settings.sampler == "nsga2"
        directions = ["maximize", "minimize", "minimize"] if self._is_front else ["maximize"]
        with quiet():
            self.optuna_study = optuna.create_study(
                study_name=name, storage=storage, directions=directions, load_if_exists=True, pruner=_pruner(settings)
            )
        if len(self.optuna_study.directions) != len(directions):
            raise UsageError(
                f"The number of objectives of the search in the storage is {len(self.optuna_study.directions)}, but "
                f"search.sampler={settings.sampler} needs {len(directions)}. Use the same sampler as before, or "
                "another --model_dir."
            )
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(choices) for name, choices in space.decisions.items()
        }
        self._owner = this_process()

    @property
    def me(self) -> str:
        """Name of this process in the tables."""
        return owner_of({OWNER: self._owner})

    def trials(self) -> list[FrozenTrial]:
        """Returns the trials of all processes whose networks are or were trained, in order of their numbers."""
        return [trial for trial in self._known() if OWNER in trial.user_attrs]

    def _known(self) -> list[FrozenTrial]:
        """Returns the trials except those that were not trained, are orphans, or are continued by another trial."""
        return [
            trial
            for trial in without_continued(self.optuna_study.get_trials(deepcopy=False))
            if NOT_TRAINED not in trial.user_attrs and not is_orphan(trial)
        ]

    def take_over(self) -> list[int]:
        """Queues the networks of trials again whose processes have ended.

        Returns:
            The numbers of these trials.
        """
        taken = []
        for trial in without_continued(self.optuna_study.get_trials(deepcopy=False)):
            # A process that is killed inside this method leaves failed trials without a reason.
            failed = trial.state == TrialState.FAIL and _REASON not in trial.user_attrs
            if NOT_TRAINED in trial.user_attrs or not (failed or trial.state == TrialState.RUNNING):
                continue
            if is_orphan(trial) or (OWNER in trial.user_attrs and is_gone(trial.user_attrs)):
                params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
                if self._put_back(trial.number, params, told=failed):
                    taken.append(trial.number)
        return taken

    def put_back(self, proposal: Proposal) -> None:
        """Queues the network of an interrupted trial again; its checkpoints stay in its folder."""
        self._put_back(proposal.trial.number, proposal.trial.params)

    def _put_back(self, number: int, params: dict[str, Any], *, told: bool = False) -> bool:
        try:
            with quiet():
                if not told:
                    self.optuna_study.tell(number, state=TrialState.FAIL)
        except _OVER:  # another process was faster
            return False
        self.optuna_study.enqueue_trial(params, user_attrs={CONTINUES: number})
        return True

    def next(self) -> Proposal | None:
        """Returns the next network to evaluate; None if there are enough trials, or no new network is found.

        Networks that exceed a limit or were evaluated before are recorded, and another one is drawn.
        """
        for _ in range(_MOST_DRAWS):
            with self._drawing:
                known = self._known()
                waiting = any(trial.state == TrialState.WAITING for trial in known)
                if len(known) >= self._settings.trials and not waiting:
                    return None
                proposal = self._draw()
                if proposal and self._is_wanted(proposal.trial.number):
                    return proposal
                if proposal:
                    self._leave(proposal.trial, "enough networks had been drawn")
        return None

    def _draw(self) -> Proposal | None:
        self.optuna_study.sampler = make_sampler(
            self._settings, [self._seed, len(self.optuna_study.get_trials(deepcopy=False))]
        )
        with quiet():
            trial = self.optuna_study.ask(self._distributions)
        # Set first, so that another process can take over if this one dies.
        for name, value in ((OWNER, dict(self._owner)), (SEEN, time.time())):
            trial.set_user_attr(name, value)
        spec = self._space.spec(trial.params)
        trial.set_user_attr(NETWORK, spec.name)
        excess = self._budget.excess(spec)
        if excess:
            trial.set_user_attr(EXCESS, excess)
        if any(share > 0 for share in excess.values()):
            self._leave(trial, f"exceeds {max(excess, key=lambda key: excess[key])}")
            return None
        if twin := self._twin(spec.name, trial.number):
            self._leave(trial, f"same network as trial {twin.number}", twin.values)
            return None
        costs = self._budget.costs(spec)
        for name, value in (
            ("parameters", costs.parameters),
            ("relative_parameters", costs.relative_parameters),
            ("macs", costs.macs),
        ):
            trial.set_user_attr(name, value)
        return Proposal(trial, spec, costs)

    def _twin(self, name: str, number: int) -> FrozenTrial | None:
        """Returns a finished trial of the same network, or a running one that was drawn before trial ``number``."""
        for trial in self.trials():
            same = trial.user_attrs.get(NETWORK) == name and trial.number != number
            put_back = trial.state == TrialState.FAIL and _REASON not in trial.user_attrs
            if same and not put_back and (trial.state.is_finished() or trial.number < number):
                return trial
        return None

    def _is_wanted(self, number: int) -> bool:
        """Returns whether a trial is within ``search.trials``, even if several processes draw at the same time."""
        return sum(trial.number < number for trial in self._known()) < self._settings.trials

    def _leave(self, trial: optuna.Trial, why: str, values: Sequence[float] | None = None) -> None:
        trial.set_user_attr(NOT_TRAINED, why)
        with quiet():
            self.optuna_study.tell(trial, values, TrialState.COMPLETE if values else TrialState.PRUNED)

    def keep(self, proposal: Proposal) -> None:
        """Updates the time stamp of a trial now and then, so that other processes know that it still runs."""
        if time.time() - proposal.trial.user_attrs[SEEN] > ownership.SILENCE / 10:
            with contextlib.suppress(*_OVER):  # another process took over after a long silence
                proposal.trial.set_user_attr(SEEN, time.time())

    def should_stop(self, proposal: Proposal, epoch: int, accuracy: float, step_time: float) -> bool:
        """Reports an intermediate result of a trial; returns whether the trial should stop."""
        if self._is_front:
            return False
        try:
            proposal.trial.report(self._reward(proposal, accuracy, step_time), epoch)
        except _OVER:  # another process took over
            return True
        return epoch < self._settings.epochs and proposal.trial.should_prune()

    def _reward(self, proposal: Proposal, accuracy: float, step_time: float) -> float:
        return reward(accuracy, step_time, proposal.costs.relative_parameters, self._settings)

    def complete(self, proposal: Proposal, outcome: Outcome) -> None:
        """Records the result of a trial."""
        figures = {"accuracy": outcome.accuracy, "step_time": outcome.step_time, **outcome.details}
        figures["reward"] = self._reward(proposal, outcome.accuracy, outcome.step_time)
        front = [outcome.accuracy, outcome.step_time, proposal.costs.relative_parameters]
        self._tell(proposal, TrialState.COMPLETE, figures, front if self._is_front else [figures["reward"]])

    def prune(self, proposal: Proposal, why: str) -> None:
        """Records that a trial was stopped early, with the reason."""
        self._tell(proposal, TrialState.PRUNED, {_REASON: why})

    def exceed(self, proposal: Proposal, why: str, step_time: float, share: float) -> None:
        """Records that a network was too slow.

        Args:
            proposal: the network.
            why: reason for the tables.
            step_time: time of a train step divided by that of the backbone.
            share: excess over ``search.max_step_time``, as a share of the limit.
        """
        excess = {**self._budget.excess(proposal.spec), "max_step_time": share}
        self._tell(proposal, TrialState.PRUNED, {_REASON: why, "step_time": step_time, EXCESS: excess})

    def fail(self, proposal: Proposal, why: str) -> None:
        """Records that a trial failed, with the reason; the search continues."""
        self._tell(proposal, TrialState.FAIL, {_REASON: why})

    def _tell(
        self,
        proposal: Proposal,
        state: TrialState,
        figures: Mapping[str, Any],
        values: Sequence[float] | None = None,
    ) -> None:
        with contextlib.suppress(*_OVER), quiet():  # another process may have taken over after a long silence
            for name, value in figures.items():
                proposal.trial.set_user_attr(name, value)
            self.optuna_study.tell(proposal.trial, values, state)


def _pruner(settings: SearchConfig) -> optuna.pruners.BasePruner:
    if settings.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
