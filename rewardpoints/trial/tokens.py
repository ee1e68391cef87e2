"""Tokens of the trial environment, signed with a key that is made on its first start."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from rewardpoints.domain.errors import RewardPointsError

KEY_ID: Final = "trial"
ALGORITHM: Final = "RS256"
LIFETIME: Final = timedelta(days=7)
MANAGEMENT_SCOPES: Final = (
    "rewardspoints.rewardpoints_view",
    "rewardspoints.rewardpoints_manage",
    "site.site_manage",
)
_PRIVATE_FILE: Final = "private.pem"
_PUBLIC_FILE: Final = "jwks.json"


class NoTrialKey(RewardPointsError):
    """There is no trial environment in this folder."""


class TrialTokens:
    """The signing key in ``folder``, and the tokens made with it. Never for production: who reads the file can sign."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key: RSAPrivateKey | None = None

    @property
    def jwks_file(self) -> Path:
        """The public half, as a JSON Web Key Set."""
        return self._folder / _PUBLIC_FILE

    def ensure_key(self) -> None:
        """Make the key where there is none."""
        private_file = self._folder / _PRIVATE_FILE
        if private_file.exists() and self.jwks_file.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        entry = {**public, "kid": KEY_ID, "alg": ALGORITHM, "use": "sig"}
        self.jwks_file.write_text(json.dumps({"keys": [entry]}, indent=2))

    def issue(
        self,
        *,
        tenant: str,
        scopes: Sequence[str] = (),
        customer_id: str | None = None,
        now: datetime | None = None,
    ) -> str:
        """A token for an employee's app (scopes) or a customer, valid for seven days.

        Raises:
            NoTrialKey: ``ensure_key`` was never called for the folder.
        """
        key = self._private_key()
        issued = now or datetime.now(UTC)
        claims = {
            "tenant": tenant,
            "scope": " ".join(scopes),
            "sub": customer_id or "employee",
            "iat": issued,
            "exp": issued + LIFETIME,
        }
        if customer_id is not None:
            claims["customer_id"] = customer_id
        return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": KEY_ID})

    def _private_key(self) -> RSAPrivateKey:
        """Read once: OpenSSL checks an RSA key at length when it is loaded, which takes longer than many signatures."""
        if self._key is None:
            private_file = self._folder / _PRIVATE_FILE
            if not private_file.exists():
                raise NoTrialKey(f"no trial environment in {self._folder.parent}: start `rewardpoints dev` first")
            key = load_pem_private_key(private_file.read_bytes(), password=None)
            if not isinstance(key, RSAPrivateKey):
                raise NoTrialKey(f"{private_file} holds no RSA key")
            self._key = key
        return self._key
