import sys
from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    CursorNotFound,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.ledger.driver import driver_errors, open_database
from rewardpoints.settings import MongodbDriver, MongodbSettings, SettingsInvalid
from tests.contracts.ledgers import ACCOUNT, an_intent, now, open_ledger

NOBODY = "mongodb://127.0.0.1:1/?replicaSet=none"
QUICK = {"server_selection_timeout_seconds": 0.2, "operation_timeout_seconds": 0.3}


def settings(uri: str, **changes: Any) -> MongodbSettings:
    return MongodbSettings.model_validate({"uri": uri, **changes})


@pytest.mark.parametrize(
    ("error", "outcome_unknown"),
    [
        (AutoReconnect("x"), True),
        (NetworkTimeout("x"), True),
        (NotPrimaryError("x"), True),
        (ServerSelectionTimeoutError("x"), False),
        (WaitQueueTimeoutError("x"), False),
        (ConfigurationError("the DNS query name does not exist"), False),
        (ExecutionTimeout("x", 50), True),
        (CursorNotFound("x", 43), True),
        (WTimeoutError("x", 64), True),
        (OperationFailure("x", 11600), True),
        (OperationFailure("x", 13), True),
        (OperationFailure("x", 112), False),
        (OperationFailure("x", 1, {"errorLabels": ["RetryableWriteError"]}), True),
        (OperationFailure("x", 1, {"errorLabels": ["TransientTransactionError"]}), True),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_server_at_fault_is_unavailable(error: PyMongoError, *, outcome_unknown: bool) -> None:
    with pytest.raises(LedgerUnavailable) as writing, driver_errors(writing=True):
        raise error
    assert writing.value.outcome_unknown is outcome_unknown
    assert writing.value.__cause__ is error
    with pytest.raises(LedgerUnavailable) as reading, driver_errors():
        raise error
    assert reading.value.outcome_unknown is False or isinstance(error, BulkWriteError)


@pytest.mark.parametrize(
    "error",
    [
        DuplicateKeyError("x", 11000),
        OperationFailure("bad value", 2),
        BulkWriteError({"writeErrors": [{"index": 0, "code": 121}], "writeConcernErrors": []}),
        KeyError("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_the_servers_fault_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as passed, driver_errors(writing=True):
        raise error
    assert passed.value is error


@pytest.mark.parametrize(
    "uri", ["nonsense", "mongodb://", "mongodb://user:secret@host:port", "mongodb://h/?tls=secret"]
)
@pytest.mark.parametrize("driver", list(MongodbDriver), ids=str)
def test_an_unusable_uri_is_named_without_its_content(uri: str, driver: MongodbDriver) -> None:
    with pytest.raises(SettingsInvalid, match=r"^REWARDPOINTS_MONGODB_URI: ") as refused:
        open_database(settings(uri, driver=driver))
    assert "secret" not in str(refused.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "motor.motor_asyncio", None)
    with pytest.raises(SettingsInvalid, match=r"^REWARDPOINTS_MONGODB_DRIVER: .*extra 'motor'"):
        open_database(settings(NOBODY, driver=MongodbDriver.MOTOR))


@pytest.mark.parametrize("driver", list(MongodbDriver), ids=str)
async def test_a_ledger_opens_without_its_server_and_says_that_it_is_away(driver: MongodbDriver) -> None:
    ledger = open_ledger(NOBODY, "test", driver, mongodb=QUICK, redeem_timeout_seconds=0.5)
    try:
        for attempt in (
            ledger.ping(),
            ledger.reap(),
            ledger.accounts.balance(ACCOUNT, now()),
            ledger.accounts.history(ACCOUNT),
        ):
            with pytest.raises(LedgerUnavailable):
                await attempt
        with pytest.raises(LedgerUnavailable) as refused:
            await ledger.redemptions.redeem(an_intent(1))
        assert not refused.value.outcome_unknown
    finally:
        await ledger.close()


async def test_settings_reach_the_client() -> None:
    database = open_database(settings("mongodb://127.0.0.1:1", max_pool_size=7, database="points", **QUICK))
    try:
        options = database.raw.client.options
        assert options.pool_options.max_pool_size == 7
        assert options.pool_options.appname == "rewardpoints"
        assert options.pool_options.socket_timeout == pytest.approx(0.3)
        assert options.server_selection_timeout == pytest.approx(0.2)
        assert options.retry_writes
        assert database.lots.full_name == "points.lots"
        assert database.lots.write_concern.document == {"w": "majority", "wtimeout": 300}
        assert database.lots.read_concern.level == "majority"
        assert database.lots.codec_options.tz_aware
    finally:
        await database.close()
