"""What can go wrong when a system is started or stopped."""


class LaunchError(Exception):
    """The system did not start, or did not stop; says what was the matter."""


class MissingServerError(LaunchError):
    """A program or library that script/up should have installed is not there."""
