"""Every test has a console of its own, over fakes."""

import pytest

from tests.console.harness import Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()
