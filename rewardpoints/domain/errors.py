"""What the rules and the ledger refuse, as exceptions the outer rooms translate into answers and dead letters."""

from enum import StrEnum


class RewardPointsError(Exception):
    """Base of everything this project raises on purpose."""


class RejectReason(StrEnum):
    """Why a record went to the dead-letter topic. The value is the header an operator filters by."""

    UNDECODABLE = "undecodable"
    MALFORMED = "malformed"
    MISSING_TENANT = "missing_tenant"
    INVALID_TENANT = "invalid_tenant"
    INVALID_ID = "invalid_id"
    INVALID_FIELD = "invalid_field"
    INVALID_TIME = "invalid_time"
    FUTURE_TIME = "future_time"
    INVALID_AMOUNT = "invalid_amount"
    TOO_MANY_POINTS = "too_many_points"
    UNREADABLE_SETTINGS = "unreadable_settings"
    LEDGER_REJECTED = "ledger_rejected"
    UNKNOWN_REDEMPTION = "unknown_redemption"
    WRONG_TENANT = "wrong_tenant"
    WRONG_CUSTOMER = "wrong_customer"
    NO_COUPON = "no_coupon"
    ALREADY_ISSUED = "already_issued"
    ISSUED_AFTER_CHARGEBACK = "issued_after_chargeback"


class RecordRejected(RewardPointsError):
    """A record that can never be applied as it is; retrying does not help, a human must look."""

    def __init__(self, reason: RejectReason, explanation: str) -> None:
        super().__init__(f"{reason.value}: {explanation}")
        self.reason = reason
        self.explanation = explanation


class InvalidInput(RewardPointsError):
    """A caller's value breaks a rule. ``field`` names it in the caller's own words; nothing was changed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NoAccount(RewardPointsError):
    """The customer has neither a lot nor a redemption."""


class AccountExists(RewardPointsError):
    """An account is opened only once."""


class TooFewPoints(RewardPointsError):
    """The active balance does not cover the redemption; nothing was changed."""

    def __init__(self, *, wanted: int, available: int) -> None:
        super().__init__(f"{wanted} points wanted, {available} available")
        self.wanted = wanted
        self.available = available


class TooManyLots(RewardPointsError):
    """The redemption would draw on more lots than one redemption may; nothing was changed."""


class IdempotencyConflict(RewardPointsError):
    """The idempotency key was used before for something else; nothing was changed."""


class VersionConflict(RewardPointsError):
    """The stored version is not the one the caller changed; nothing was changed."""


class NotFound(RewardPointsError):
    """What the caller names does not exist."""


class UnreadableEntry(RewardPointsError):
    """A document of the ledger is not one that the service writes."""


class LedgerUnavailable(RewardPointsError):
    """The ledger could not be reached or did not answer in time; the same call may succeed later.

    ``outcome_unknown`` is true where a write may nevertheless have been applied.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class LedgerBusy(RewardPointsError):
    """Too many conflicting redemptions on one account; nothing was changed. Try again after ``retry_after_seconds``."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ReplayFinished(RewardPointsError):
    """The replay has nothing left to do."""
