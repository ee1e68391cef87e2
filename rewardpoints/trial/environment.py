"""The folder of a trial environment: its servers, its key, its settings, and the file that tells where all is."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.embedded import EmbeddedServers
from rewardpoints.settings import (
    ConsoleSettings,
    HttpSettings,
    JwksSettings,
    KafkaSettings,
    MongodbSettings,
    SecurityProtocol,
    ServiceSettings,
    Settings,
    SiteSettingsSettings,
    TokenSettings,
)
from rewardpoints.trial.tokens import TrialTokens

DEFAULT_FOLDER: Final = Path(".rewardpoints")
EMPTY_FETCH_PAUSE_MS: Final = 50
"""The embedded broker answers empty fetches at once; this pause bounds both the idle load and the latency it adds."""


class NotRunning(RewardPointsError):
    """No trial environment is running in the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a running environment listens: the API's URL, Kafka's ``host:port``, MongoDB's URI."""

    api: str
    kafka: str
    mongodb: str


class TrialEnvironment:
    """Everything of a trial environment lives under ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def keys_folder(self) -> Path:
        """Where the signing key is."""
        return self.folder / "keys"

    @property
    def tokens(self) -> TrialTokens:
        """The tokens of the environment."""
        return TrialTokens(self.keys_folder)

    @property
    def addresses_file(self) -> Path:
        """``dev.json``: the addresses, for scripts. There while the environment runs."""
        return self.folder / "dev.json"

    def servers(self) -> EmbeddedServers:
        """The servers, not started.

        Raises:
            EmbeddedNotInstalled: the extra ``embedded`` is missing.
        """
        return EmbeddedServers(self.folder)

    def settings(self, *, mongodb_uri: str, kafka: str, host: str = "127.0.0.1", port: int = 0) -> Settings:
        """The settings a process of the environment runs with; nothing of the user's own servers is read."""
        return Settings(
            mongodb=MongodbSettings(uri=SecretStr(mongodb_uri), database="rewardpoints"),
            kafka=KafkaSettings(
                bootstrap_servers=kafka,
                security_protocol=SecurityProtocol.PLAINTEXT,
                topic_coupon_creation_results="coupon-creation-results",
                topic_partitions=3,
                topic_replication_factor=1,
                group_instance_id="dev",
                empty_fetch_pause_ms=EMPTY_FETCH_PAUSE_MS,
            ),
            http=HttpSettings(host=host, port=port, worker_port=0, cors_origins=("*",), drain_seconds=5),
            site_settings=SiteSettingsSettings(cache_seconds=0),
            service=ServiceSettings(),
            console=ConsoleSettings(enabled=True, secure_cookie=False),  # on loopback there is no HTTPS
            token=TokenSettings(),
            jwks=JwksSettings(file=self.tokens.jwks_file),
        )

    def write_addresses(self, addresses: Addresses) -> None:
        """Leave the addresses in ``dev.json``, in one step: a reader never sees half of it."""
        part = self.addresses_file.with_suffix(".part")
        part.write_text(f"{json.dumps(asdict(addresses), indent=2)}\n")
        part.replace(self.addresses_file)

    def remove_addresses(self) -> None:
        """Take ``dev.json`` away: nothing listens there any more."""
        self.addresses_file.unlink(missing_ok=True)

    def addresses(self) -> Addresses:
        """The addresses of the running environment.

        Raises:
            NotRunning: none is running in the folder.
        """
        try:
            return Addresses(**json.loads(self.addresses_file.read_text()))
        except FileNotFoundError as error:
            raise NotRunning(f"nothing runs in {self.folder}: start `rewardpoints dev` there") from error

    def running_settings(self) -> Settings:
        """The settings of the running environment, to reach its servers with.

        Raises:
            NotRunning: none is running in the folder.
        """
        addresses = self.addresses()
        return self.settings(mongodb_uri=addresses.mongodb, kafka=addresses.kafka)
