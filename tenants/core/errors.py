"""What can be wrong, in the domain's own terms; each face turns these into its own kind of answer."""


class DomainError(Exception):
    """Base of everything that `tenants` raises on purpose."""


class InvalidInputError(DomainError):
    """A value breaks a rule. Nothing was changed.

    Attributes:
        field: the name of the offending field, as its sender knows it.
        rule: the rule, as a sentence a person can act on.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class ForeignNameError(InvalidInputError):
    """The value names something that does not belong to its sender, but to another tenant or another domain."""


class NotFoundError(DomainError):
    """The thing that was named does not exist."""


class ConflictError(DomainError):
    """The request contradicts the present state, or work that is under way."""


class TakenError(ConflictError):
    """The name that was asked for is taken: it already belongs to something else."""


class UnavailableError(DomainError):
    """A server behind us cannot take the request now; the same request may succeed later."""


class QuotaExceededError(DomainError):
    """The tenant has as much of something as it may have.

    Attributes:
        retry_after: seconds after which it is worth trying again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
