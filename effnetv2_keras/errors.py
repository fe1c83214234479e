"""Exceptions for the ways in which a run can fail or be interrupted, with messages for the user."""


class UsageError(ValueError):
    """Settings, data or files cannot be used; the message gives the value, the allowed values, and what to do."""


class PackageMissing(UsageError, ImportError):  # noqa: N818 - says what happened
    """A package is not installed, or too old; the message says how to install it."""


class ConfigError(UsageError):
    """The configuration cannot be used."""


class DataError(UsageError):
    """Data that cannot be used."""


class DataAbsentError(DataError):
    """Data that is not there yet; the message says which files to put where."""


class TrainingDiverged(RuntimeError):  # noqa: N818 - says what happened
    """The loss, a gradient or a weight is no longer finite; nothing was saved after the last finite step."""


class WorkerLost(RuntimeError):  # noqa: N818 - says what happened
    """Another worker of the run has ended; all workers resume from the last checkpoint when it is started again."""


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop and did
    """The run stopped on request and saved its state; the same command resumes it."""
