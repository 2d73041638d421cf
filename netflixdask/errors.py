"""Errors that say what was found, where, what was expected and what to do.

Every error a user can cause derives from :class:`NetflixDaskError`; the command line prints its
sentence without a traceback and ends with ``exit_code``.
"""

from __future__ import annotations


class NetflixDaskError(Exception):
    """A run that failed for a reason that the message names."""

    exit_code = 1


class InputError(NetflixDaskError, ValueError):
    """Bad input or usage: the message says what was expected instead."""

    exit_code = 2


class DataFormatError(InputError):
    """Text that does not follow its format; the message starts with ``path:line:``."""


class StoreError(InputError):
    """A path that holds no store or artifact, a newer one, or one where none may be."""


class ConfigError(InputError):
    """An option that does not exist or has a value out of its range."""


class NotFittedError(NetflixDaskError):
    """A model was asked before it was fitted."""


class ModelFitError(NetflixDaskError):
    """A fit ended in numbers that are not finite."""


class StageError(NetflixDaskError):
    """A stage failed; the message names the stage and the block."""


class RoomError(StageError):
    """A stage that does not fit the workers' memory or the disk; it was not started."""


class ClusterError(NetflixDaskError):
    """A scheduler went away, or it answered with other versions."""


class UnreachableError(NetflixDaskError):
    """What is behind a URL cannot be reached, or is refused; the message says from where."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """What the driver said."""


class NoSchedulerError(ClusterError, InputError):
    """No scheduler answers at the address that was given."""
