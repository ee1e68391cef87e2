"""Settings: environment variables with the prefix ``REWARDPOINTS_``, validated once at start."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX: Final = "REWARDPOINTS_"


class SettingsInvalid(Exception):
    """A setting is missing, wrong or unknown. The message is one line a setting and names its variable; no values."""


def _config(group: str) -> SettingsConfigDict:
    # ``hide_input_in_errors``: a wrong URI may hold a password
    return SettingsConfigDict(env_prefix=PREFIX + group, extra="forbid", frozen=True, hide_input_in_errors=True)


class MongodbDriver(StrEnum):
    """Which client library speaks to MongoDB."""

    PYMONGO = "pymongo"
    MOTOR = "motor"


class MongodbSettings(BaseSettings):
    """``REWARDPOINTS_MONGODB_*``. TLS and authentication are part of the URI, as MongoDB defines them."""

    model_config = _config("MONGODB_")

    uri: SecretStr
    database: str = Field("rewardpoints", min_length=1, max_length=63)
    driver: MongodbDriver = MongodbDriver.PYMONGO
    max_pool_size: int = Field(100, ge=1, le=1000)
    server_selection_timeout_seconds: float = Field(5, gt=0, le=120)
    operation_timeout_seconds: float = Field(10, gt=0, le=120, description="socket time-out of one operation")


class SecurityProtocol(StrEnum):
    """How Kafka connections are secured."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class KafkaSettings(BaseSettings):
    """``REWARDPOINTS_KAFKA_*``: the cluster, the topics, the groups and the pace of reading."""

    model_config = _config("KAFKA_")

    bootstrap_servers: str = Field(min_length=1)
    client_id: str = "rewardpoints"
    security_protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    sasl_mechanism: str = Field("SCRAM-SHA-512", pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = None
    ssl_certificate_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: SecretStr | None = None

    topic_order_completed: str = "order-completed"
    topic_coupon_creation_requests: str = "coupon-creation-requests"
    topic_coupon_creation_results: str | None = Field(
        None, description="unset: silence of the coupon service means success"
    )
    topic_chargebacks: str = "chargebacks"
    topic_dead_letter: str = "rewardpoints-dead-letter"
    topic_partitions: int = Field(6, ge=1, le=1000, description="partitions of the topics `topics create` makes")
    topic_replication_factor: int = Field(3, ge=1, le=9, description="replication of the topics `topics create` makes")

    group_id: str = Field("rewardpoints", min_length=1)
    group_instance_id: str | None = Field(None, description="static membership; a stable name for each process")
    max_batch_records: int = Field(1000, ge=1, le=10_000)
    linger_ms: int = Field(20, ge=1, le=5000, description="how long an empty poll waits")
    partition_fetch_bytes: int | None = Field(
        None, ge=65_536, le=67_108_864, description="bytes held ready of each partition; default: two largest messages"
    )
    max_poll_interval_ms: int = Field(300_000, ge=10_000)
    session_timeout_ms: int = Field(10_000, ge=1000)
    max_message_bytes: int = Field(1_048_576, ge=1024, description="largest message this service sends")
    request_timeout_ms: int = Field(40_000, ge=1000)
    empty_fetch_pause_ms: int = Field(
        0, ge=0, le=1000, description="for a broker that answers empty fetches at once instead of waiting"
    )

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username must be set, and sasl_password, for a SASL security_protocol")
        # what was meant to protect a connection and would not
        if self.sasl_password and not self.security_protocol.startswith("SASL"):
            raise ValueError("security_protocol must be SASL_SSL or SASL_PLAINTEXT where sasl_password is set")
        if (self.ssl_ca_file or self.ssl_certificate_file) and not self.security_protocol.endswith("SSL"):
            raise ValueError("security_protocol must be SSL or SASL_SSL where an ssl file is set")
        if self.ssl_key_file and not self.ssl_certificate_file:
            raise ValueError("ssl_certificate_file must be set where ssl_key_file is")
        return self


class HttpSettings(BaseSettings):
    """``REWARDPOINTS_HTTP_*``: the listening address and the bounds of requests."""

    model_config = _config("HTTP_")

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    worker_port: int = Field(8081, ge=0, le=65535, description="health and metrics of the worker")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), description="comma-separated origins, or *")
    max_body_bytes: int = Field(262_144, ge=1024, le=16_777_216)
    drain_seconds: int = Field(20, ge=1, le=300, description="how long open requests may take on shutdown")

    @model_validator(mode="before")
    @classmethod
    def _split_origins(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        origins = values.get("cors_origins")
        if isinstance(origins, str):
            return {**values, "cors_origins": tuple(part.strip() for part in origins.split(",") if part.strip())}
        return values


class TokenSettings(BaseSettings):
    """``REWARDPOINTS_TOKEN_*`` and the key set the tokens are checked with."""

    model_config = _config("TOKEN_")

    issuer: str | None = None
    audience: str | None = None
    algorithms: Annotated[tuple[str, ...], NoDecode] = ("RS256", "ES256", "EdDSA")
    leeway_seconds: float = Field(30, ge=0, le=300)
    max_bytes: int = Field(8192, ge=256, le=24_576)
    claim_tenant: str = "tenant"
    claim_scope: str = "scope"
    claim_subject: str = "sub"
    claim_customer: str = "customer_id"

    @model_validator(mode="before")
    @classmethod
    def _split_algorithms(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        algorithms = values.get("algorithms")
        if isinstance(algorithms, str):
            values = {**values, "algorithms": tuple(part.strip() for part in algorithms.split(",") if part.strip())}
        return values

    @model_validator(mode="after")
    def _asymmetric(self) -> Self:
        if not self.algorithms or set(self.algorithms) - {"RS256", "ES256", "EdDSA"}:
            raise ValueError("algorithms must be among RS256, ES256, EdDSA")
        return self


class JwksSettings(BaseSettings):
    """``REWARDPOINTS_JWKS_*``: where the keys are; exactly one of URL and file."""

    model_config = _config("JWKS_")

    url: str | None = Field(None, pattern="^https?://")
    file: Path | None = None
    cache_seconds: float = Field(300, ge=1, le=86_400)
    timeout_seconds: float = Field(5, gt=0, le=60)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.file is None):
            raise ValueError("url must be set (or file, for trying out)")
        return self


class SiteSettingsMode(StrEnum):
    """Where site settings are managed."""

    LOCAL = "local"
    REMOTE = "remote"


class SiteSettingsSettings(BaseSettings):
    """``REWARDPOINTS_SITE_SETTINGS_*``: how site settings are cached, and the remote service where there is one."""

    model_config = _config("SITE_SETTINGS_")

    mode: SiteSettingsMode = SiteSettingsMode.LOCAL
    cache_seconds: float = Field(900, ge=0, le=86_400)
    url: str | None = Field(None, pattern="^https?://")
    token: SecretStr | None = None
    sites: Annotated[tuple[str, ...], NoDecode] = Field((), description="comma-separated tenant/siteCode")
    poll_seconds: float = Field(60, ge=1, le=86_400)
    timeout_seconds: float = Field(10, gt=0, le=120)

    @model_validator(mode="before")
    @classmethod
    def _split_sites(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        sites = values.get("sites")
        if isinstance(sites, str):
            return {**values, "sites": tuple(part.strip() for part in sites.split(",") if part.strip())}
        return values

    @model_validator(mode="after")
    def _remote_needs_address(self) -> Self:
        if self.mode is SiteSettingsMode.REMOTE and not (self.url and self.sites):
            raise ValueError("url must be set, and sites, in mode remote")
        if any(site.count("/") != 1 or site.startswith("/") or site.endswith("/") for site in self.sites):
            raise ValueError("sites must be tenant/siteCode, separated by commas")
        return self


class ConsoleSettings(BaseSettings):
    """``REWARDPOINTS_CONSOLE_*``: the operators' pages, which the API process serves."""

    model_config = _config("CONSOLE_")

    enabled: bool = Field(default=False, description="serve the console at /console")
    session_seconds: int = Field(3600, ge=60, le=86_400, description="a session ends then, or with its token")
    session_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="signs sessions; the same in every API process",
    )
    secure_cookie: bool = Field(default=True, description="the session's cookie is sent over HTTPS only")
    answer_seconds: float = Field(30, gt=0, le=600, description="longest a page may take")


class ServiceSettings(BaseSettings):
    """``REWARDPOINTS_*`` of no group: which parts a process runs, and the limits of redemptions."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)

    run_order_consumer: bool | None = Field(None, description="default: on in the worker")
    run_relay: bool | None = Field(None, description="default: on in the worker")
    run_chargeback_consumer: bool | None = Field(None, description="default: on in the API")
    redeem_timeout_seconds: float = Field(8, gt=0, le=9)
    redeem_queue_per_account: int = Field(1000, ge=1, le=100_000)
    relay_lease_seconds: float = Field(30, ge=1, le=3600)
    relay_batch: int = Field(100, ge=1, le=1000)
    relay_poll_seconds: float = Field(1, gt=0, le=60)
    unanswered_after_seconds: float = Field(3600, ge=1, description="a coupon request unanswered this long is shown")
    unanswered_charge_back_seconds: float | None = Field(
        None, ge=60, description="charge back what is unanswered this long; needs the results topic"
    )
    retry_max_seconds: float = Field(30, gt=0, le=600, description="longest pause between two tries of a batch")
    flood_pause: bool = Field(default=True, description="hold a flood of bad records back instead of dead-lettering it")
    flood_share: float = Field(0.5, gt=0, le=1, description="share of bad records that is a flood")
    flood_window_records: int = Field(
        500, ge=10, le=100_000, description="latest records of a consumer the share is taken of"
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_json: bool = True


class Settings:
    """All groups. ``load`` reads the environment; a group can be given instead, as the embedded environment does."""

    def __init__(
        self,
        *,
        mongodb: MongodbSettings,
        kafka: KafkaSettings,
        http: HttpSettings,
        site_settings: SiteSettingsSettings,
        service: ServiceSettings,
        console: ConsoleSettings | None = None,
        token: TokenSettings | None = None,
        jwks: JwksSettings | None = None,
    ) -> None:
        if service.unanswered_charge_back_seconds and not kafka.topic_coupon_creation_results:
            raise SettingsInvalid(
                f"{PREFIX}UNANSWERED_CHARGE_BACK_SECONDS: needs {PREFIX}KAFKA_TOPIC_COUPON_CREATION_RESULTS, "
                "otherwise silence means success"
            )
        self.mongodb = mongodb
        self.kafka = kafka
        self.http = http
        self.site_settings = site_settings
        self.service = service
        self.console = console
        self.token = token
        self.jwks = jwks

    @classmethod
    def load(cls, *, tokens: bool = False) -> Self:
        """Read and check every variable; ``tokens`` also demands what checking tokens needs.

        Raises:
            SettingsInvalid: naming each variable that is missing, wrong or unknown.
        """
        problems: list[str] = _unknown_variables()
        groups: dict[str, BaseSettings] = {}
        wanted: dict[str, type[BaseSettings]] = {**_GROUPS, **(_TOKEN_GROUPS if tokens else {})}
        for name, group in wanted.items():
            try:
                groups[name] = group()
            except ValidationError as error:
                problems += explain(group, error)
        if problems:
            raise SettingsInvalid("\n".join(problems))
        return cls(**groups)  # type: ignore[arg-type]  # each group is of the class its name is annotated with


_GROUPS: Final[dict[str, type[BaseSettings]]] = {
    "mongodb": MongodbSettings,
    "kafka": KafkaSettings,
    "http": HttpSettings,
    "site_settings": SiteSettingsSettings,
    "service": ServiceSettings,
    "console": ConsoleSettings,
}
_TOKEN_GROUPS: Final[dict[str, type[BaseSettings]]] = {"token": TokenSettings, "jwks": JwksSettings}


def variables() -> dict[str, tuple[type[BaseSettings], str]]:
    """Every variable the service reads: its name, and the group and field it sets."""
    return {
        f"{group.model_config['env_prefix']}{field}".upper(): (group, field)
        for group in (*_GROUPS.values(), *_TOKEN_GROUPS.values())
        for field in group.model_fields
    }


def explain(group: type[BaseSettings], error: ValidationError) -> list[str]:
    """One line for each thing wrong with a group, naming the variable; the value is never repeated."""
    prefix = str(group.model_config["env_prefix"])
    lines = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"])
        message = "not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        if not field:  # a rule about several fields starts with the name of the one to mend
            field, _, message = message.partition(" ")
        lines.append(f"{prefix}{field}".upper() + f": {message}")
    return lines


def _unknown_variables() -> list[str]:
    known = variables()
    return [
        f"{name}: no such setting"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX)
        and not name.upper().startswith(f"{PREFIX}TEST_")
        and name.upper() not in known
    ]
