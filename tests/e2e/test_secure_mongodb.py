"""MongoDB with users and TLS: reached with the right credentials, and refused in one clear line with any other."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.embedded import mongodb_server
from rewardpoints.embedded.launcher import mongodb_uri as uri_of
from rewardpoints.embedded.ports import free_port
from rewardpoints.ledger.driver import open_database
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbDriver, MongodbSettings, SettingsInvalid
from tests.certificates import Authority, Certificate
from tests.contracts.ledgers import manual_lot, now, open_ledger
from tests.e2e.stack import Process, Server, until

USER, PASSWORD = "points", "p@ss/w:rd-of-the-ledger"
QUOTED = "p%40ss%2Fw%3Ard-of-the-ledger"
QUICK = {"server_selection_timeout_seconds": 8}


@dataclass(frozen=True)
class Secure:
    """A server that wants TLS, a client certificate and a user; one that wants TLS alone; one that wants neither."""

    authority: Authority
    stranger: Authority
    client: Certificate
    mutual: str
    tls: str
    plain: str

    def uri(self, address: str, *options: str, user: str = f"{USER}:{QUOTED}") -> str:
        secure = [f"tlsCAFile={self.authority.file}", f"tlsCertificateKeyFile={self.client.both}"]
        login = f"{user}@" if user else ""
        return f"mongodb://{login}{address}/?{'&'.join(['directConnection=true', *(options or ('tls=true', *secure))])}"

    def tls_with(self, **changes: str) -> tuple[str, ...]:
        known = {"tls": "true", "tlsCAFile": self.authority.file, "tlsCertificateKeyFile": self.client.both, **changes}
        return tuple(f"{name}={value}" for name, value in known.items() if value)


async def connects(host: str, port: int) -> None:
    """Raises OSError where nobody listens."""
    _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()


@pytest.fixture(scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secure]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    here = authority.issue("server", hosts=("127.0.0.1", "localhost"))
    elsewhere = authority.issue("elsewhere", hosts=("mongodb.example.org",))
    data = tmp_path_factory.mktemp("secure-mongodb")
    async with mongodb_server(data) as plain, AsyncMongoClient[dict[str, Any]](uri_of(plain.address)) as client:
        await client.admin.command("createUser", USER, pwd=PASSWORD, roles=[{"role": "root", "db": "admin"}])
    async with contextlib.AsyncExitStack() as stack:

        async def start(folder: Path, certificate: Certificate, *options: str) -> str:
            files = ("--tls-cert-file", str(certificate.certificate), "--tls-key-file", str(certificate.key))
            server = mongodb_server(folder, options=[*files, *options])
            server._program = replace(server._program, probe=connects)  # its own speaks no TLS
            return (await stack.enter_async_context(server)).address

        wants_client = ("--tls-ca-file", str(authority.file), "--tls-require-client-cert")
        mutual = await start(data, here, "--auth", *wants_client)
        named = await start(tmp_path_factory.mktemp("elsewhere"), elsewhere)
        unsecured = await stack.enter_async_context(mongodb_server(tmp_path_factory.mktemp("plain")))
        yield Secure(authority, stranger, authority.issue("client"), mutual, named, unsecured.address)


@contextlib.asynccontextmanager
async def ledger_at(uri: str, driver: MongodbDriver = MongodbDriver.PYMONGO) -> AsyncIterator[Ledger]:
    opened = open_ledger(uri, f"test_{secrets.token_hex(8)}", driver, mongodb=QUICK)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.parametrize("driver", list(MongodbDriver))
async def test_with_tls_a_client_certificate_and_a_user_the_ledger_works(secure: Secure, driver: MongodbDriver) -> None:
    async with ledger_at(secure.uri(secure.mutual), driver) as ledger:
        await ledger.ensure_indexes()
        lot = manual_lot("l1", 70)
        await ledger.accounts.add(lot)
        assert await ledger.accounts.balance(lot.account, now()) == 70


def refusals(secure: Secure) -> dict[str, tuple[str, str]]:
    """What goes wrong, and what must be said of it."""
    mutual, tls, plain = secure.mutual, secure.tls, secure.plain
    return {
        "wrong password": (
            secure.uri(mutual, *secure.tls_with(), user=f"{USER}:wrong-{QUOTED}"),
            "user name or the pass",
        ),
        "unknown user": (secure.uri(mutual, *secure.tls_with(), user=f"nobody:{QUOTED}"), "user name or the password"),
        "no user": (secure.uri(mutual, *secure.tls_with(), user=""), "code 13"),
        "unknown authority": (
            secure.uri(mutual, *secure.tls_with(tlsCAFile=str(secure.stranger.file))),
            "its certificate is refused: ",
        ),
        "system's authorities": (secure.uri(mutual, *secure.tls_with(tlsCAFile="")), "its certificate is refused: "),
        "another host's certificate": (secure.uri(tls, *secure.tls_with(), user=""), "IP address mismatch"),
        "no client certificate": (
            secure.uri(mutual, *secure.tls_with(tlsCertificateKeyFile="")),
            "MongoDB cannot be reached",
        ),
        "no TLS to a server with TLS": (secure.uri(mutual, "tls=false"), "does it expect TLS"),
        "TLS to a server without": (secure.uri(plain, *secure.tls_with(), user=""), "MongoDB cannot be reached"),
    }


async def test_what_does_not_fit_is_refused_in_one_line_without_a_password(secure: Secure) -> None:
    async def said_at(uri: str) -> str:
        async with ledger_at(uri) as ledger:
            with pytest.raises(LedgerUnavailable) as refusal:
                await ledger.accounts.balance(account_of("shop", "c1"), now())
        return str(refusal.value)

    cases = refusals(secure)
    all_said = await asyncio.gather(*(said_at(uri) for uri, _ in cases.values()))
    for (name, (_, expected)), said in zip(cases.items(), all_said, strict=True):
        assert expected in said, (name, said)
        assert len(said.splitlines()) == 1
        assert not any(text in said for text in (PASSWORD, QUOTED, USER, "mongodb://", str(secure.authority.file)))


@pytest.mark.parametrize(
    "option", ["tlsInsecure=true", "tlsAllowInvalidCertificates=true", "tlsAllowInvalidHostnames=TRUE"]
)
def test_tls_without_checks_is_refused(option: str) -> None:
    settings = MongodbSettings.model_validate({"uri": f"mongodb://u:secret@h/?tls=true&{option}"})
    with pytest.raises(SettingsInvalid, match=r"^REWARDPOINTS_MONGODB_URI: tls\w+ is not accepted: ") as refusal:
        open_database(settings)
    assert "secret" not in str(refusal.value)


async def test_a_process_says_what_is_wrong_and_no_password(secure: Secure, tmp_path: Path) -> None:
    """Readiness, health and the log of a worker that its MongoDB refuses."""
    uri = secure.uri(secure.mutual, *secure.tls_with(), user=f"{USER}:wrong-{QUOTED}")
    port = free_port()
    environment = {
        "REWARDPOINTS_MONGODB_URI": uri,
        "REWARDPOINTS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "REWARDPOINTS_HTTP_WORKER_PORT": str(port),
    }
    worker = Server(f"http://127.0.0.1:{port}", ["worker"], environment, tmp_path / "log", tmp_path)
    await worker.start()
    try:

        async def told() -> bool:
            return "refuses the user name or the password" in worker.log

        await until(told, seconds=90, what="the log names the credentials")
        answer = await worker.readiness()
        assert answer is not None
        assert (answer.status_code, answer.json()["checks"]["mongodb"]["status"]) == (503, "down")
    finally:
        assert await worker.stop() == 0
    assert not any(text in worker.log for text in (PASSWORD, QUOTED, "mongodb://"))


async def test_files_that_are_not_there_end_the_start(secure: Secure, tmp_path: Path) -> None:
    uri = secure.uri(secure.mutual, *secure.tls_with(tlsCAFile="/nowhere/ca.pem"))
    kafka = {"REWARDPOINTS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    process = Process(["worker"], {"REWARDPOINTS_MONGODB_URI": uri, **kafka}, tmp_path / "log", tmp_path)
    await process.start()
    assert await process.wait() == 1
    assert process.log.startswith("rewardpoints: REWARDPOINTS_MONGODB_URI: ")
    assert len(process.log.splitlines()) == 1
    assert QUOTED not in process.log
