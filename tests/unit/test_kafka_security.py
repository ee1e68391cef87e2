"""Settings of a secured Kafka that cannot work, or would not protect: refused at the start."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rewardpoints.events.connection import security
from rewardpoints.settings import KafkaSettings, SettingsInvalid
from tests.certificates import Authority

LOGIN = {"sasl_username": "u", "sasl_password": "secret"}


@pytest.mark.parametrize(
    "given",
    [
        {"security_protocol": "SASL_SSL"},
        {"security_protocol": "SASL_SSL", "sasl_username": "u"},
        LOGIN,
        {**LOGIN, "security_protocol": "SSL"},
        {"ssl_ca_file": "ca.pem"},
        {**LOGIN, "security_protocol": "SASL_PLAINTEXT", "ssl_ca_file": "ca.pem"},
        {"security_protocol": "SSL", "ssl_key_file": "key.pem"},
        {"security_protocol": "TLS"},
        {**LOGIN, "security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"},
    ],
    ids=str,
)
def test_what_would_not_protect_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        KafkaSettings.model_validate({"bootstrap_servers": "k:9092", **given})
    assert "secret" not in str(refusal.value)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def settings(**given: Any) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": "k:9092", "security_protocol": "SSL", **given})


def test_certificates_are_read(authority: Authority) -> None:
    plain, encrypted = authority.issue("plain"), authority.issue("encrypted", password="of-the-key")
    for given in (
        {"ssl_certificate_file": plain.both},
        {"ssl_certificate_file": plain.certificate, "ssl_key_file": plain.key},
        {"ssl_certificate_file": encrypted.both, "ssl_key_password": "of-the-key"},
    ):
        made = security(settings(ssl_ca_file=authority.file, **given))
        assert made is not None
        assert made.ssl_context is not None
        assert made.ssl_context.check_hostname


def test_certificates_that_cannot_be_read_are_named(authority: Authority, tmp_path: Path) -> None:
    encrypted, other = authority.issue("encrypted", password="of-the-key"), authority.issue("other")
    empty = tmp_path / "empty.pem"
    empty.touch()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ssl_ca_file": tmp_path / "none.pem"}, "REWARDPOINTS_KAFKA_SSL_CA_FILE: cannot be used: No such file"),
        ({"ssl_ca_file": empty}, "REWARDPOINTS_KAFKA_SSL_CA_FILE: cannot be used: "),
        (
            {"ssl_certificate_file": tmp_path / "none.pem"},
            "REWARDPOINTS_KAFKA_SSL_CERTIFICATE_FILE: cannot be used: No",
        ),
        ({"ssl_certificate_file": encrypted.both}, "REWARDPOINTS_KAFKA_SSL_CERTIFICATE_FILE: cannot be used: "),
        (
            {"ssl_certificate_file": encrypted.both, "ssl_key_password": "wrong"},
            "REWARDPOINTS_KAFKA_SSL_CERTIFICATE_FILE: cannot be used: ",
        ),
        (
            {"ssl_certificate_file": encrypted.certificate, "ssl_key_file": other.key},
            "REWARDPOINTS_KAFKA_SSL_CERTIFICATE_FILE: cannot be used: KEY_VALUES_MISMATCH",
        ),
    ]
    for given, expected in cases:
        with pytest.raises(SettingsInvalid) as refusal:
            security(settings(**given))
        assert str(refusal.value).startswith(expected)
        assert len(str(refusal.value).splitlines()) == 1
