"""How a run can end other than well, in words for the person at the keyboard."""


class UsageError(ValueError):
    """Settings, data, or files that cannot be used; the message says what was received, what is allowed, what to do."""


class ConfigError(UsageError):
    """A configuration that cannot be used."""


class TrainingDiverged(RuntimeError):  # noqa: N818 - says what happened
    """The loss is not a number any more; nothing was saved since it was one."""


class WorkerLost(RuntimeError):  # noqa: N818 - says what happened
    """Another worker of the run is gone; all of them go on together from the last checkpoint once it is back."""


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop and did
    """The run was asked to stop; its state is saved. Running the same command again goes on with it."""
