"""Apache Kafka with TLS, client certificates and SCRAM users: used with the right ones, refused clearly with others."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rewardpoints.app.commands import ServerRefused, create_topics, publish_record, read_topic
from rewardpoints.embedded.ports import free_port
from rewardpoints.events.diagnosis import why_unreachable
from rewardpoints.settings import KafkaSettings
from tests.certificates import Authority, Certificate
from tests.e2e.stack import an_order, running_stack, until
from tests.servers import apache_kafka, chosen_servers

pytestmark = pytest.mark.skipif(
    chosen_servers()["kafka"] != "apache",
    reason="the embedded broker has neither TLS nor users: REWARDPOINTS_TEST_KAFKA=apache",
)

USER, PASSWORD = "points", "a-password-of-kafka-77"


@dataclass(frozen=True)
class Secure:
    """A broker with a listener of each kind."""

    authority: Authority
    stranger: Authority
    client: Certificate
    encrypted: Certificate
    sasl_ssl: str
    mutual: str
    elsewhere: str
    sasl_plaintext: str
    plain: str

    def settings(self, address: str, **changes: Any) -> KafkaSettings:
        settings = {
            "bootstrap_servers": address,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": USER,
            "sasl_password": PASSWORD,
            "ssl_ca_file": self.authority.file,
            "request_timeout_ms": 10_000,
            **changes,
        }
        return KafkaSettings.model_validate({name: value for name, value in settings.items() if value is not None})


@pytest.fixture(scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secure]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    here = authority.issue("server", hosts=("127.0.0.1", "localhost"))
    elsewhere = authority.issue("elsewhere", hosts=("kafka.example.org",))
    kinds = {"LOGIN": "SASL_SSL", "MUTUAL": "SSL", "ELSEWHERE": "SSL", "OPEN": "SASL_PLAINTEXT"}
    addresses = {name: f"127.0.0.1:{free_port()}" for name in kinds}
    listeners = ",".join(f"{name}://{address}" for name, address in addresses.items())
    protocols = ",".join(f"{name}:{kind}" for name, kind in kinds.items())
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings: dict[str, Any] = {
        "listeners": f"{{own}},{listeners}",
        "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(here.both),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.elsewhere.ssl.keystore.location": str(elsewhere.both),
        "listener.name.elsewhere.ssl.keystore.type": "PEM",
        **{
            f"listener.name.{name}.{mechanism}.sasl.jaas.config": login
            for name in ("login", "open")
            for mechanism in ("scram-sha-512", "scram-sha-256")
        },
    }
    data = tmp_path_factory.mktemp("secure-kafka")
    async with apache_kafka(data, scram_users={USER: PASSWORD}, **settings) as cluster:
        yield Secure(
            authority,
            stranger,
            authority.issue("client"),
            authority.issue("encrypted", password="of-the-key"),
            sasl_ssl=addresses["LOGIN"],
            mutual=addresses["MUTUAL"],
            elsewhere=addresses["ELSEWHERE"],
            sasl_plaintext=addresses["OPEN"],
            plain=cluster.bootstrap_servers,
        )


def accepted(secure: Secure) -> dict[str, KafkaSettings]:
    nobody = {"security_protocol": "SSL", "sasl_username": None, "sasl_password": None}
    client, encrypted = secure.client, secure.encrypted
    return {
        "scram-512": secure.settings(secure.sasl_ssl),
        "scram-256": secure.settings(secure.sasl_ssl, sasl_mechanism="SCRAM-SHA-256"),
        "client certificate": secure.settings(
            secure.mutual, **nobody, ssl_certificate_file=client.certificate, ssl_key_file=client.key
        ),
        "one file": secure.settings(secure.mutual, **nobody, ssl_certificate_file=client.both),
        "encrypted key": secure.settings(
            secure.mutual, **nobody, ssl_certificate_file=encrypted.both, ssl_key_password="of-the-key"
        ),
        "without TLS": secure.settings(secure.sasl_plaintext, security_protocol="SASL_PLAINTEXT", ssl_ca_file=None),
    }


async def test_what_fits_publishes_and_reads(secure: Secure, topic_prefix: str) -> None:
    for number, (name, settings) in enumerate(accepted(secure).items()):
        topic = f"{topic_prefix}orders{number}"
        named = settings.model_copy(update={"topic_order_completed": topic, "topic_replication_factor": 1})
        assert topic in await create_topics(named)
        await publish_record(named, topic, name.encode())
        (record,) = await read_topic(named, topic, 1)
        assert record["value"] == name


def refusals(secure: Secure) -> dict[str, tuple[KafkaSettings, str]]:
    """What goes wrong, and what must be said of it."""
    nobody = {"security_protocol": "SSL", "sasl_username": None, "sasl_password": None}
    plaintext = {**nobody, "security_protocol": "PLAINTEXT", "ssl_ca_file": None}
    return {
        "wrong password": (secure.settings(secure.sasl_ssl, sasl_password="wrong"), "user name or the password"),
        "unknown user": (secure.settings(secure.sasl_ssl, sasl_username="nobody"), "user name or the password"),
        "mechanism": (secure.settings(secure.sasl_ssl, sasl_mechanism="PLAIN"), "does not offer PLAIN"),
        "unknown authority": (
            secure.settings(secure.sasl_ssl, ssl_ca_file=secure.stranger.file),
            "its certificate is refused: ",
        ),
        "system's authorities": (secure.settings(secure.sasl_ssl, ssl_ca_file=None), "its certificate is refused: "),
        "another host's": (secure.settings(secure.elsewhere, **nobody), "is refused: IP address mismatch"),
        "no client certificate": (secure.settings(secure.mutual, **nobody), ""),
        "no TLS": (secure.settings(secure.sasl_ssl, **plaintext), "does it expect another protocol than PLAINTEXT?"),
        "TLS to a listener without": (
            secure.settings(secure.plain, **nobody),
            "; does ",
        ),  # which it is, is a race of its answer and its end
    }


async def test_what_does_not_fit_is_refused_in_one_line_without_a_password(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    for name, (settings, expected) in refusals(secure).items():
        with pytest.raises(ServerRefused) as refusal:
            await create_topics(settings)
        reason = await why_unreachable(settings)
        assert expected in reason, (name, reason)
        assert reason.startswith(f"{settings.bootstrap_servers}: ")
        for said in (reason, str(refusal.value)):
            assert len(said.splitlines()) == 1
            assert PASSWORD not in said
    assert PASSWORD not in caplog.text


async def test_the_service_works_over_tls_with_a_user(
    secure: Secure, mongodb_uri: str, database_name: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Its own processes, from an order to the balance; the same with a wrong password say so and apply nothing."""
    names = {"database": database_name, "prefix": topic_prefix, "folder": tmp_path}
    async with running_stack(mongodb_uri=mongodb_uri, kafka=secure.plain, **names) as stack:
        login = {
            "KAFKA_BOOTSTRAP_SERVERS": secure.sasl_ssl,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CA_FILE": str(secure.authority.file),
            "KAFKA_GROUP_INSTANCE_ID": "",
        }
        refused = await stack.worker("refused", **{**login, "KAFKA_SASL_PASSWORD": "wrong-one"})
        await stack.publish_orders(an_order("o1", "c1", 25))

        async def told() -> bool:
            return "it refuses the user name or the password" in refused.log

        await until(told, seconds=60, what="the log names the credentials")
        answer = await refused.readiness()
        assert answer is not None
        assert answer.json()["checks"]["kafka"]["status"] == "down"
        assert await refused.stop() == 0
        assert await stack.lot_count() == 0

        worker = await (await stack.worker("w1", **login)).ready()

        async def applied() -> bool:
            return await stack.lot_count() == 1

        await until(applied, seconds=60, what="the order applied")
        assert await worker.stop() == 0
        for log in (refused.log, worker.log):
            assert not re.search(f"{PASSWORD}|wrong-one", log)
