"""Documents: how the ledger's values are stored. Field names are camelCase, decimals text, instants BSON dates.

A redeem option and a site's settings are free-form JSON; they are stored as JSON text, which keeps their numbers exact
and lets no key of theirs (``$set``, ``a.b``) mean anything to the server.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import msgspec

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.lots import Draw, Earned, Lot, LotKind, LotSummary, Origin
from rewardpoints.domain.ports import Tombstone
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionState
from rewardpoints.domain.site_settings import DEFAULT_SITE_SETTINGS, SettingsVersion, parse_site_settings
from rewardpoints.ledger.driver import Document

_KINDS: Final = {kind.value: kind for kind in LotKind}
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)


def to_json(field: str, value: Mapping[str, Any]) -> str:
    """``value`` as JSON text, its decimals exact.

    Raises:
        InvalidInput: it holds a text that is no valid unicode; ``field`` names it.
    """
    try:
        return _ENCODER.encode(value).decode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, "must be valid unicode") from error


def from_json(text: str) -> dict[str, Any]:
    """What ``to_json`` stored; numbers are ``int`` or ``Decimal``."""
    decoded: dict[str, Any] = _DECODER.decode(text)
    return decoded


def lot_document(lot: Lot) -> Document:
    """A lot as it is stored."""
    document: Document = {
        "_id": lot.id,
        "account": lot.account,
        "kind": str(lot.kind),
        "sourceId": lot.source_id,
        "referenceId": lot.reference_id,
        "description": lot.description,
        "points": lot.points,
        "remaining": lot.remaining,
        "open": lot.open,
        "createdAt": lot.created_at,
        "validUntil": lot.valid_until,
        "siteCode": lot.site_code,
        "recordedAt": lot.recorded_at,
    }
    if lot.public_id != lot.id:
        document["publicId"] = lot.public_id
    if lot.earned:
        document["earned"] = {
            "rule": lot.earned.rule,
            "base": lot.earned.base,
            "factor": str(lot.earned.factor),
            "value": str(lot.earned.value),
            "currency": lot.earned.currency,
            "settingsVersion": lot.earned.settings_version,
        }
    if lot.origin:
        document["origin"] = {
            "topic": lot.origin.topic,
            "partition": lot.origin.partition,
            "offset": lot.origin.offset,
        }
        if lot.origin.replay is not None:
            document["origin"]["replay"] = lot.origin.replay
    if lot.fingerprint is not None:
        document["fingerprint"] = lot.fingerprint
    return document


def lot_from(document: Mapping[str, Any]) -> Lot:
    """The lot a document holds."""
    earned, origin = document.get("earned"), document.get("origin")
    return Lot(
        id=document["_id"],
        account=Account(document["account"]),
        kind=_KINDS.get(document["kind"]) or LotKind(document["kind"]),
        source_id=document["sourceId"],
        public_id=document.get("publicId", document["_id"]),
        reference_id=document["referenceId"],
        description=document["description"],
        points=document["points"],
        remaining=document["remaining"],
        created_at=document["createdAt"],
        valid_until=document["validUntil"],
        site_code=document["siteCode"],
        recorded_at=document["recordedAt"],
        earned=Earned(
            rule=earned["rule"],
            base=earned["base"],
            factor=Decimal(earned["factor"]),
            value=Decimal(earned["value"]),
            currency=earned["currency"],
            settings_version=earned["settingsVersion"],
        )
        if earned
        else None,
        origin=Origin(
            topic=origin["topic"],
            partition=origin["partition"],
            offset=origin["offset"],
            replay=origin.get("replay"),
        )
        if origin
        else None,
        fingerprint=document.get("fingerprint"),
    )


LOT_SUMMARY_FIELDS: Final = dict.fromkeys(
    ("account", "publicId", "referenceId", "description", "points", "remaining", "createdAt", "validUntil"), 1
)
"""The projection that ``lot_summary_from`` needs, beside ``_id``."""


def lot_summary_from(document: Mapping[str, Any]) -> LotSummary:
    """What a summary shows of the lot in a document."""
    return LotSummary(
        id=document["_id"],
        public_id=document.get("publicId", document["_id"]),
        reference_id=document["referenceId"],
        description=document["description"],
        points=document["points"],
        remaining=document["remaining"],
        created_at=document["createdAt"],
        valid_until=document["validUntil"],
    )


def redemption_document(redemption: Redemption) -> Document:
    """A redemption as it is stored. ``publishAt`` is there only while its coupon request is due."""
    document: Document = {
        "_id": redemption.id,
        "account": redemption.account,
        "state": redemption.state.value,
        "points": redemption.points,
        "draws": [{"lot": draw.lot, "points": draw.points} for draw in redemption.draws],
        "description": redemption.description,
        "siteCode": redemption.site_code,
        "createdAt": redemption.created_at,
        "fingerprint": redemption.fingerprint,
    }
    if redemption.public_id != redemption.id:
        document["publicId"] = redemption.public_id
    if redemption.coupon:
        document["code"] = redemption.coupon.code
        document["option"] = to_json("option", redemption.coupon.option)
    if redemption.publish_at is not None:
        document["publishAt"] = redemption.publish_at
    return document


def redemption_from(document: Mapping[str, Any]) -> Redemption:
    """The redemption a document holds."""
    return Redemption(
        id=document["_id"],
        public_id=document.get("publicId", document["_id"]),
        account=Account(document["account"]),
        points=document["points"],
        draws=tuple(Draw(draw["lot"], draw["points"]) for draw in document["draws"]),
        description=document["description"],
        site_code=document["siteCode"],
        created_at=document["createdAt"],
        state=RedemptionState(document["state"]),
        fingerprint=document["fingerprint"],
        coupon=CouponOrder(code=document["code"], option=from_json(document["option"])) if "code" in document else None,
        publish_at=document.get("publishAt"),
    )


def tombstone_from(document: Mapping[str, Any]) -> Tombstone:
    """The tombstone a document holds."""
    return Tombstone(Account(document["_id"]), document["erasedAt"])


def option_key(tenant: str, option_id: str) -> str:
    """The ``_id`` of a redeem option."""
    return f"{quote(tenant, safe='')}/{quote(option_id, safe='')}"


def option_document(option: RedeemOption) -> Document:
    """A redeem option as it is stored."""
    return {
        "_id": option_key(option.tenant, option.id),
        "tenant": option.tenant,
        "optionId": option.id,
        "content": to_json("coupon", option.content),
        "version": option.version,
        "createdAt": option.created_at,
        "modifiedAt": option.modified_at,
    }


def option_from(document: Mapping[str, Any]) -> RedeemOption:
    """The redeem option a document holds."""
    return RedeemOption(
        tenant=document["tenant"],
        id=document["optionId"],
        content=from_json(document["content"]),
        version=document["version"],
        created_at=document["createdAt"],
        modified_at=document["modifiedAt"],
    )


def site_key(tenant: str, site_code: str) -> str:
    """The ``site`` all versions of a site's settings carry."""
    return f"{quote(tenant, safe='')}/{quote(site_code, safe='')}"


def settings_document(version: SettingsVersion) -> Document:
    """A version of a site's settings as it is stored; two of one number have one ``_id``."""
    site = site_key(version.tenant, version.site_code)
    return {
        "_id": f"{site}/{version.version}",
        "site": site,
        "tenant": version.tenant,
        "siteCode": version.site_code,
        "version": version.version,
        "savedAt": version.saved_at,
        "effectiveAt": version.effective_at,
        "content": to_json("rewardpoints", version.content),
    }


def settings_from(document: Mapping[str, Any]) -> SettingsVersion:
    """The settings version a document holds."""
    content = from_json(document["content"])
    settings, problem = DEFAULT_SITE_SETTINGS, None
    try:
        settings = parse_site_settings(content)
    except InvalidInput as error:  # written past the checks, or by a version with others: only its site may suffer
        problem = str(error)
    return SettingsVersion(
        tenant=document["tenant"],
        site_code=document["siteCode"],
        version=document["version"],
        saved_at=document["savedAt"],
        effective_at=document["effectiveAt"],
        settings=settings,
        content=content,
        problem=problem,
    )
