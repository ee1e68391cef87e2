"""How this service connects to Kafka: the options every client of it shares."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any, Final

from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from rewardpoints.settings import PREFIX, KafkaSettings, SecurityProtocol, SettingsInvalid

_SASL: Final[dict[str, type[SASLPlaintext] | type[SASLScram256] | type[SASLScram512]]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}


def security(settings: KafkaSettings) -> BaseSecurity | None:
    """TLS and SASL as FastStream takes them; None for plain text. Reads the certificate files.

    Raises:
        SettingsInvalid: a certificate file cannot be read, or is none.
    """
    protocol = settings.security_protocol
    tls = None
    if protocol in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL):
        tls = _tls(settings)
    if protocol is SecurityProtocol.PLAINTEXT:
        return None
    if protocol is SecurityProtocol.SSL:
        return BaseSecurity(ssl_context=tls)
    assert settings.sasl_username is not None  # noqa: S101 - the settings demand both for SASL
    assert settings.sasl_password is not None  # noqa: S101 - the settings demand both for SASL
    return _SASL[settings.sasl_mechanism](
        settings.sasl_username, settings.sasl_password.get_secret_value(), ssl_context=tls
    )


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    """TLS 1.2 or later, with the broker's certificate and host name checked."""
    with _file_of("KAFKA_SSL_CA_FILE"):
        tls = ssl.create_default_context(cafile=settings.ssl_ca_file)
    if settings.ssl_certificate_file:
        password = settings.ssl_key_password.get_secret_value() if settings.ssl_key_password else ""
        with _file_of("KAFKA_SSL_CERTIFICATE_FILE"):
            # an empty password fails where one is needed; without any, OpenSSL would ask for it at the terminal
            tls.load_cert_chain(settings.ssl_certificate_file, settings.ssl_key_file, password)
    return tls


@contextlib.contextmanager
def _file_of(variable: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        told = getattr(error, "reason", None) or error.strerror if isinstance(error, OSError) else "unusable"
        raise SettingsInvalid(f"{PREFIX}{variable}: cannot be used: {told}") from None


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options of any aiokafka client."""
    return {
        "bootstrap_servers": servers(settings),
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        **parse_security(security(settings)),
    }


def servers(settings: KafkaSettings) -> list[str]:
    """The bootstrap servers, one by one."""
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def consumer_group(settings: KafkaSettings, subscriber: str) -> str:
    """The group of a subscriber. Each has its own, so that a change in one does not halt the others."""
    return f"{settings.group_id}.{subscriber}"
