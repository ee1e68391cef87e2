"""Settings: read from the environment, refused by name, listed in the docs."""

from pathlib import Path

import pytest

from rewardpoints.settings import PREFIX, Settings, SettingsInvalid, variables

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
REQUIRED = {
    "MONGODB_URI": "mongodb://user:secret@db/",
    "KAFKA_BOOTSTRAP_SERVERS": "k:9092",
    "JWKS_URL": "https://id/keys",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)


def test_defaults_are_enough_beside_what_is_required() -> None:
    settings = Settings.load(tokens=True)
    assert settings.kafka.topic_order_completed == "order-completed"
    assert settings.kafka.topic_coupon_creation_results is None
    assert settings.site_settings.cache_seconds == 900
    assert settings.token is not None
    assert settings.token.algorithms == ("RS256", "ES256", "EdDSA")


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDPOINTS_HTTP_CORS_ORIGINS", "https://a.example, https://b.example,")
    monkeypatch.setenv("REWARDPOINTS_TOKEN_ALGORITHMS", "ES256")
    settings = Settings.load(tokens=True)
    assert settings.http.cors_origins == ("https://a.example", "https://b.example")
    assert settings.token is not None
    assert settings.token.algorithms == ("ES256",)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"SITE_SETTINGS_MODE": "remote"}, "REWARDPOINTS_SITE_SETTINGS_URL"),
        ({"SITE_SETTINGS_SITES": "shop"}, "REWARDPOINTS_SITE_SETTINGS_SITES"),
        ({"JWKS_FILE": "x"}, "REWARDPOINTS_JWKS_URL"),
        ({"REDEEM_TIMEOUT_SECONDS": "30"}, "REWARDPOINTS_REDEEM_TIMEOUT_SECONDS"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "REWARDPOINTS_KAFKA_SASL_MECHANISM"),
    ],
)
def test_each_problem_names_its_variable(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], named: str) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    with pytest.raises(SettingsInvalid) as refusal:
        Settings.load(tokens=True)
    assert str(refusal.value).startswith(f"{named}: ")


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REQUIRED:
        monkeypatch.delenv(f"{PREFIX}{name}")
    with pytest.raises(SettingsInvalid) as refusal:
        Settings.load(tokens=True)
    assert len(str(refusal.value).splitlines()) == len(REQUIRED)


def test_no_secret_is_shown() -> None:
    settings = Settings.load(tokens=True)
    assert "secret" not in repr(settings.mongodb)


def test_the_docs_list_exactly_the_variables_there_are() -> None:
    listed = {line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `REWARDPOINTS_")}
    assert listed == set(variables())
