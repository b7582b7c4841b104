"""What can be wrong with a call of ejabberd."""

from tenants.core.errors import DomainError, UnavailableError


class EjabberdUnavailableError(UnavailableError):
    """ejabberd cannot be reached, or is not up yet."""


class EjabberdError(DomainError):
    """ejabberd refused a command.

    Attributes:
        command: the admin command.
        code: ejabberd's own error code, 0 when it gave none.
    """

    def __init__(self, command: str, code: int, message: str) -> None:
        super().__init__(f"ejabberd refused {command}: {message}")
        self.command = command
        self.code = code


class UserExistsError(EjabberdError):
    """`register`: the username is taken."""


class UserUnknownError(EjabberdError):
    """`change_password`: there is no such user."""


class PasswordRefusedError(EjabberdError):
    """`register`, `change_password`: SASLprep (RFC 4013) does not take the password."""


class NoSessionError(EjabberdError):
    """`present`: there is no such session."""


class NotAppliedError(EjabberdError):
    """ejabberd said yes, but reading back shows that nothing was done."""
