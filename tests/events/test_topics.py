"""Topics, connections and the document that describes them."""

import json
import ssl

import pytest
from aiokafka.errors import KafkaError

from rewardpoints.events.asyncapi import asyncapi
from rewardpoints.events.connection import client_options, consumer_group
from rewardpoints.events.topics import create_topics, topics
from rewardpoints.settings import KafkaSettings, SecurityProtocol
from tests.events.wire import produce, read


async def test_missing_topics_are_created_and_existing_ones_left_alone(kafka: KafkaSettings) -> None:
    assert await create_topics(kafka) == []
    more = kafka.model_copy(update={"topic_chargebacks": f"{kafka.topic_chargebacks}-2", "topic_partitions": 2})
    assert await create_topics(more) == [more.topic_chargebacks]
    await produce(more, more.topic_chargebacks, [b"1"], partition=1)
    assert [record.value for record in await read(more, more.topic_chargebacks, 1)] == [b"1"]


async def test_creating_topics_without_kafka_says_so() -> None:
    with pytest.raises(KafkaError):
        await create_topics(KafkaSettings(bootstrap_servers="127.0.0.1:1"))


def test_the_results_topic_is_optional() -> None:
    without = KafkaSettings(bootstrap_servers="a:1")
    assert [topic.name for topic in topics(without)] == [
        "order-completed",
        "coupon-creation-requests",
        "chargebacks",
        "rewardpoints-dead-letter",
    ]
    with_results = KafkaSettings(bootstrap_servers="a:1", topic_coupon_creation_results="results")
    assert "results" in [topic.name for topic in topics(with_results) if topic.incoming]


def test_a_plain_connection() -> None:
    options = client_options(KafkaSettings(bootstrap_servers="a:1, b:2"))
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert "sasl_mechanism" not in options


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", [SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL])
def test_a_connection_with_a_password(mechanism: str, protocol: SecurityProtocol) -> None:
    options = client_options(
        KafkaSettings.model_validate(
            {
                "bootstrap_servers": "a:1",
                "security_protocol": protocol,
                "sasl_mechanism": mechanism,
                "sasl_username": "user",
                "sasl_password": "secret",
            }
        )
    )
    assert options["security_protocol"] == protocol.value
    assert options["sasl_mechanism"] == mechanism
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("user", "secret")
    assert isinstance(options["ssl_context"], ssl.SSLContext) == (protocol is SecurityProtocol.SASL_SSL)


def test_a_connection_with_tls() -> None:
    options = client_options(KafkaSettings(bootstrap_servers="a:1", security_protocol=SecurityProtocol.SSL))
    assert options["security_protocol"] == "SSL"
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname


def test_each_subscriber_has_a_group_of_its_own() -> None:
    settings = KafkaSettings(bootstrap_servers="a:1")
    assert consumer_group(settings, "orders") == "rewardpoints.orders"
    assert consumer_group(settings, "orders") != consumer_group(settings, "chargebacks")


def test_the_document_describes_every_topic_and_can_be_written() -> None:
    settings = KafkaSettings(bootstrap_servers="secret-host:1", topic_coupon_creation_results="results")
    document = json.loads(json.dumps(asyncapi(settings, version="1.2.3")))
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {topic.name for topic in topics(settings)}
    assert len(document["operations"]) == len(addresses)
    receives = {name for name, operation in document["operations"].items() if operation["action"] == "receive"}
    assert receives == {"receive_orderCompleted", "receive_couponCreationResults", "receive_chargebacks"}
    assert "secret-host" not in json.dumps(document)
    order = document["components"]["schemas"]["OrderBody"]
    assert order["required"] == ["id", "status"]
    assert order["properties"]["totalPrice"]["type"] == ["number", "null"]
    assert "specversion" not in order["properties"]
    assert _references(document) <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]} | {
        f"#/channels/{name}" for name in document["channels"]
    }


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(_references, value.values()))
    if isinstance(value, list):
        return set().union(*map(_references, value))
    return set()
