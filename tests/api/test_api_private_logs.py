"""Logs and error answers hold no token, no customer's id and nothing of what a client or a driver said."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120


def noisy(level: str, form: str, secret: str) -> tuple[str, list[dict[str, str]]]:
    """The logs, and the answers that are errors, of the API through everything that can go wrong."""
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "tests.api.noisy", level, form, secret],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if "REWARDPOINTS" not in name},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_private_is_logged_or_told(form: str) -> None:
    secret = f"private{secrets.token_hex(8)}"
    logs, errors = noisy("INFO", form, secret)

    # it went through what it is for
    statuses = {error["status"] for error in errors}
    assert {400, 401, 403, 404, 500, 503} <= statuses
    for event in ("request failed", "tokens cannot be checked", "event_loop_error"):
        assert event in logs
    for place in ("DriverError 121", "OSError 24", "ExceptionGroup", "among them", "fakes.py", "in customer_balance"):
        assert place in logs

    private = (secret, secret[::-1], "eyJ", "@example.org")
    assert [line for line in logs.splitlines() if any(text in line for text in private)] == []
    for error in errors:  # what stands in the path is the caller's own, and part of the contract's error bodies
        told = f"{error['body']} {error['headers']}"
        assert not any(text in told for text in (secret, "eyJ", "@example.org", "Traceback", "DriverError")), error


def test_at_debug_level_exceptions_say_what_they_say() -> None:
    """It is there to be found by the test above."""
    secret = f"private{secrets.token_hex(8)}"
    logs, _ = noisy("DEBUG", "json", secret)

    assert f"account: 'shop/{secret}'" in logs
