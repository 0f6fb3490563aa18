"""The ways a command can end early, each with its exit code."""


class UserError(ValueError):
    """Bad input: the message names what is wrong, where, and what to do. Exit code 2."""


class FirstRankFailed(UserError):
    """Raised on the other ranks when the first fails, which reports the error itself. Exit code 2."""


class RankLost(RuntimeError):
    """Another rank is gone, in the middle of an exchange. A bug's exit code, unless its cause is known."""


class HealthHalt(RuntimeError):
    """A health policy stopped the run; the state is saved. Exit code 3."""


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived; the state is saved. Exit code 130."""
