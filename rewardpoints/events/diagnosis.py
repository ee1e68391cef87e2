"""Why Kafka cannot be reached, in one line for whoever has to mend it."""

import asyncio
import ssl
from typing import Any, Final

from aiokafka.client import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from rewardpoints.events.connection import client_options, servers
from rewardpoints.settings import KafkaSettings

DIAGNOSIS_SECONDS: Final = 5.0
DEFAULT_PORT: Final = 9092


async def why_unreachable(settings: KafkaSettings) -> str:
    """What the first bootstrap server says to a connection, within a few seconds. Never raises, holds no secret."""
    server = servers(settings)[0]
    host, _, port = server.rpartition(":")
    options = client_options(settings)
    known = ("client_id", "security_protocol", "ssl_context", "sasl_mechanism")
    given = {name: options[name] for name in (*known, "sasl_plain_username", "sasl_plain_password") if name in options}
    try:
        async with asyncio.timeout(DIAGNOSIS_SECONDS):
            connection = await create_conn(host or server, int(port) if port.isdigit() else DEFAULT_PORT, **given)
            connection.close()
    except Exception as error:  # noqa: BLE001 - it is only described
        return f"{server}: {_told(error, settings)}"
    return f"{server} answers; another broker of the cluster, or the cluster itself, does not"


def _told(error: Exception, settings: KafkaSettings) -> str:
    cause: Any = error
    while isinstance(cause, KafkaConnectionError) and cause.__cause__ is not None:
        cause = cause.__cause__
    match cause:
        case ssl.SSLCertVerificationError():
            told = f"its certificate is refused: {cause.verify_message}"
        case ssl.SSLError():
            told = f"no TLS handshake ({cause.reason or 'unexpected end'}); does the listener speak TLS?"
        case AuthenticationFailedError() | SaslAuthenticationFailed():
            told = "it refuses the user name or the password"
        case UnsupportedSaslMechanismError():
            told = f"it does not offer {settings.sasl_mechanism}"
        case TimeoutError():
            told = f"no answer within {DIAGNOSIS_SECONDS:g} seconds"
        case KafkaConnectionError() | EOFError() | ConnectionResetError():
            told = f"it ends the connection; does it expect another protocol than {settings.security_protocol}?"
        case OSError():
            told = cause.strerror or type(cause).__name__
        case _:
            told = type(cause).__name__
    return told
