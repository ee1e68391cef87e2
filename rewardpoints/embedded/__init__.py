"""The servers of the trial environment and of the tests: a MongoDB-wire server and a Kafka-wire broker without Docker.

Both are other people's programs, run as separate processes on loopback and spoken to over the wire; nothing of theirs
is imported. They come with the extra ``embedded`` and are for trying out and for tests, never for production.
"""

from rewardpoints.embedded.errors import DataFolderInUse, EmbeddedError, EmbeddedNotInstalled, ServerStartFailed
from rewardpoints.embedded.launcher import EmbeddedServers, keep_reaping
from rewardpoints.embedded.lock import FolderLock
from rewardpoints.embedded.programs import kafka_server, mongodb_server
from rewardpoints.embedded.server import Server

__all__ = [
    "DataFolderInUse",
    "EmbeddedError",
    "EmbeddedNotInstalled",
    "EmbeddedServers",
    "FolderLock",
    "Server",
    "ServerStartFailed",
    "kafka_server",
    "keep_reaping",
    "mongodb_server",
]
