"""The commands that set servers up and look at topics, as Typer has them."""

import json
import sys
from typing import Annotated

import typer

from rewardpoints.app import commands
from rewardpoints.operate.terminal import TrialFolder, load_settings, run

topics = typer.Typer(no_args_is_help=True)
indexes = typer.Typer(no_args_is_help=True)


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.add_typer(topics, name="topics", help="Create, read and write Kafka topics.")
    cli.add_typer(indexes, name="indexes", help="Create MongoDB's indexes.")


@topics.command("create")
def topics_create(data: TrialFolder = None) -> None:
    """Create the topics that are missing; those that exist are left as they are."""
    created = run(commands.create_topics(load_settings(data).kafka))
    typer.echo(f"created: {', '.join(created)}" if created else "all topics exist")


@topics.command("read")
def topics_read(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    last: Annotated[int, typer.Option(help="How many of the newest records.", min=1, max=10_000)] = 10,
    at: Annotated[
        str | None, typer.Option(metavar="PARTITION/OFFSET", help="The one record there, as 3/1042, instead.")
    ] = None,
    data: TrialFolder = None,
) -> None:
    """Print the newest records of a topic, oldest first, as JSON; or one record, as logs and dead letters name it."""
    kafka = load_settings(data).kafka
    if at is None:
        records = run(commands.read_topic(kafka, topic, last))
    else:
        records = [run(commands.read_record(kafka, topic, *_place(at)))]
    for record in records:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


@topics.command("publish")
def topics_publish(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    value: Annotated[str, typer.Argument(help="The record's value, or - for standard input.")],
    key: Annotated[str | None, typer.Option(help="The record's key.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="A header, NAME=VALUE; may be given several times.")] = None,
    data: TrialFolder = None,
) -> None:
    """Publish one record and wait for the broker's acknowledgement."""
    content = sys.stdin.buffer.read() if value == "-" else value.encode()
    headers = [_header(text) for text in header or ()]
    run(commands.publish_record(load_settings(data).kafka, topic, content, key=key, headers=headers))


@indexes.command("create")
def indexes_create(data: TrialFolder = None) -> None:
    """Create the collections, indexes and validators that are missing."""
    for name in run(commands.create_indexes(load_settings(data))):
        typer.echo(name)


def _place(text: str) -> tuple[int, int]:
    partition, separator, offset = text.partition("/")
    if not (separator and partition.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not PARTITION/OFFSET", param_hint="--at")
    return int(partition), int(offset)


def _header(text: str) -> tuple[str, bytes]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name, value.encode()
