"""Ids and contents that mean something to a database, a template or a script: taken literally or refused."""

import unicodedata
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.harness import OPTION, Api

DEVIOUS = [
    "$ne",
    "$where",
    '{"$gt": ""}',
    "[$ne]",
    "a.b",
    "a.$[]",
    "$a.0.b",
    "__proto__",
    "constructor.prototype",
    "' OR '1'='1",
    "x'; db.dropDatabase(); //",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "..%2f",
    "%24ne",
    "%00",
    "\\u0000",
    "=cmd|' /C calc'!A0",
    "main",
    "null",
    "true",
    "0",
    "-1",
    "1e3",
    "ANONYMOUS2",
    "customer",
    "summaryBatch",
    "id ",
    " id",
    "ID",
    "id",
    "\u0456d",  # a Cyrillic letter that looks like the Latin one
    "id\u200b",
    "\ufeffid",
    "\u202edi",  # written from right to left it looks like "id"
    "i\u2028d",
    "i\u0085d",
    unicodedata.normalize("NFC", "caf\u00e9"),
    unicodedata.normalize("NFD", "caf\u00e9"),
    "\uff49\uff44",  # full width; NFKC makes it "id"
    "\u0130d",  # lower case makes it another text
    "stra\u00dfe",
    "strasse",
    "\U0001f600",
    "\U0010ffff",
    "x" * 256,
    "\u5ba2" * 256,
]
REFUSED = ["", "\0", "a\0b", "a\nb", "a\rb", "\t", "\x1b[31m", "\x7f", "x" * 257, "\u5ba2" * 257]


def customer(customer_id: str) -> str:
    return f"/reward-points/customer/{quote(customer_id, safe='')}"


async def test_every_devious_id_is_an_account_of_its_own(api: Api) -> None:
    assert len(set(DEVIOUS)) == len(DEVIOUS)
    for points, customer_id in enumerate(DEVIOUS, start=1):
        answer = await api.call("POST", customer(customer_id), json={"customerId": customer_id, "points": points})
        assert (customer_id, answer.status_code) == (customer_id, 200)

    balances = [(await api.call("GET", customer(customer_id))).json() for customer_id in DEVIOUS]
    summaries = (await api.call("GET", "/reward-points/summaryBatch")).json()

    assert balances == list(range(1, len(DEVIOUS) + 1))
    assert {entry["customerId"]: entry["activePoints"] for entry in summaries} == dict(
        zip(DEVIOUS, balances, strict=True)
    )

    for customer_id in DEVIOUS[:3]:
        assert (await api.call("DELETE", customer(customer_id))).status_code == 200
    left = [(await api.call("GET", customer(customer_id))).status_code for customer_id in DEVIOUS]
    assert left == [404] * 3 + [200] * (len(DEVIOUS) - 3)


async def test_devious_texts_come_back_as_they_were(api: Api) -> None:
    texts = DEVIOUS[::2]
    for number, text in enumerate(texts):
        added = {"id": text, "reference-id": text, "description": text, "points": number + 1}
        first = await api.call("POST", f"{customer('c1')}/addPoints", json=added, params={"siteCode": text})
        again = await api.call("POST", f"{customer('c1')}/addPoints", json=added, params={"siteCode": text})
        redeemed = {"id": text, "description": text, "points": 1}
        taken = await api.call("POST", f"{customer('c1')}/redeemPoints", json=redeemed, params={"siteCode": text})
        assert (text, first.status_code, again.status_code, taken.status_code) == (text, 201, 201, 201)

    summary = (await api.call("GET", f"{customer('c1')}/summary")).json()["summary"]
    for entries in summary.values():
        assert {entry["id"] for entry in entries} == {entry["description"] for entry in entries} == set(texts)
    assert {entry["reference-id"] for entry in summary["addedPointsList"]} == set(texts)
    assert len(summary["addedPointsList"]) == len(texts)


@pytest.mark.parametrize("refused", REFUSED, ids=ascii)
async def test_what_is_no_id_is_refused_everywhere(fake_api: Api, refused: str) -> None:
    add = f"{customer('c1')}/addPoints"
    answers = [
        await fake_api.call("POST", add, json={"points": 1, "id": refused}),
        await fake_api.call("POST", f"{customer('c1')}/redeemPoints", json={"points": 1, "id": refused}),
        await fake_api.call("POST", add, json={"points": 1}, params={"siteCode": refused}),
        await fake_api.as_customer("c1", "POST", "/redeem", json={"redeemOptionId": refused}),
    ]
    if refused:  # an empty segment is another path
        answers += [
            await fake_api.call("GET", customer(refused)),
            await fake_api.call("DELETE", customer(refused)),
            await fake_api.call("DELETE", f"{fake_api.options_path}/{quote(refused, safe='')}"),
        ]

    assert [answer.status_code for answer in answers] == [400] * len(answers)
    assert await fake_api.server.ports.accounts.count("shop") == 0


@pytest.mark.parametrize("operator", [{"$ne": None}, {"$gt": ""}, ["c1"], {"$regex": ".*"}, True, 5], ids=str)
async def test_an_operator_is_no_id(fake_api: Api, operator: Any) -> None:
    await fake_api.give("c1", 100)
    option = await fake_api.new_option()
    requests: list[tuple[str, str, Any]] = [
        ("POST", customer("c2"), {"customerId": operator}),
        ("POST", f"{customer('c1')}/addPoints", {"points": 1, "id": operator}),
        ("POST", f"{customer('c1')}/addPoints", {"points": 1, "reference-id": operator}),
        ("POST", f"{customer('c1')}/addPoints", {"points": {"$inc": 5}}),
        ("POST", f"{customer('c1')}/redeemPoints", {"points": 1, "id": operator}),
        ("POST", fake_api.options_path, {**OPTION, "points": {"$literal": 1}}),
        ("PUT", f"{fake_api.options_path}/{option['id']}", {"points": {"$inc": -80}}),
        ("PUT", f"{fake_api.options_path}/{option['id']}", {"metadata": {"version": {"$ne": 1}}}),
    ]
    for method, path, body in requests:
        answer = await fake_api.call(method, path, json=body)
        assert (body, answer.status_code) == (body, 400)
    for body in ({"id": operator}, {"redeemOptionId": operator}):
        assert (await fake_api.as_customer("c1", "POST", "/redeem", json=body)).status_code == 400
    assert (await fake_api.call("GET", customer("c1"))).json() == 100
    assert (await fake_api.call("GET", fake_api.options_path)).json() == [option]


ODD: dict[str, Any] = {
    "$set": {"points": 1},
    "$where": "sleep(1000)",
    "a.b": {"c.$": [{"$numberLong": "5"}]},
    "__proto__": {"admin": True},
    "constructor": {"prototype": {"admin": True}},
    "": "no name",
    "$ref": "lots",
    "$oid": "5f43a2e0c0ffee0000000000",
    "_id": {"$ne": None},
    "\u202e": "\u202e",
}


async def test_names_in_an_options_coupon_are_only_names(api: Api) -> None:
    option = await api.new_option(coupon={**OPTION["coupon"], **ODD})
    other = await api.new_option()
    assert {name: option["coupon"][name] for name in ODD} == ODD

    patched = {"coupon": {"$unset": {"name": 1}, "a.b": {"x": 1}, "$set": {"discountType": "PERCENT"}}}
    assert (await api.call("PUT", f"{api.options_path}/{option['id']}", json=patched)).status_code == 200
    stored = (await api.call("GET", api.options_path)).json()
    changed, unchanged = stored

    # objects are laid over each other by RFC 7396, whatever their names are
    assert changed["coupon"]["a.b"] == {**ODD["a.b"], "x": 1}
    assert changed["coupon"]["$set"] == {**ODD["$set"], "discountType": "PERCENT"}
    assert changed["coupon"]["discountType"] == "ABSOLUTE"
    assert changed["coupon"]["name"] == OPTION["coupon"]["name"]
    assert unchanged == other
    for devious in ('{"$ne":null}', "$ne", "*", "__proto__"):
        assert (await api.call("DELETE", f"{api.options_path}/{quote(devious, safe='')}")).status_code == 204
    assert (await api.call("GET", api.options_path)).json() == stored

    await api.give("c1", 1000)
    redeemed = await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})
    assert redeemed.status_code == 200
    (request,) = api.server.coupon_requests.of(api.account("c1"))
    assert request.coupon is not None
    assert request.coupon.option["coupon"] == changed["coupon"]


async def test_names_in_site_settings_are_only_names(api: Api) -> None:
    content = {"rewardpoints": {"orderValueToRewardPointsFactor": 1, **ODD}}
    saved = await api.call("PUT", api.settings_path, json=content)
    merged = await api.call("PATCH", api.settings_path, json={"rewardpoints": {"$inc": {"version": 5}}})
    mixins = (await api.call("GET", api.settings_path.rpartition("/")[0])).json()

    assert saved.json() == content
    assert merged.json()["rewardpoints"] == {**content["rewardpoints"], "$inc": {"version": 5}}
    assert mixins == {"couponSettings": merged.json()}


@pytest.mark.parametrize(
    "query",
    ["siteCode[$ne]=x", "siteCode.$ne=x", "$where=1", "customerId[]=c2", "__proto__[x]=1", "siteCode=%7B%7D&a=%00"],
)
async def test_unknown_query_parameters_are_nothing(fake_api: Api, query: str) -> None:
    answer = await fake_api.call("POST", f"{customer('c1')}/addPoints?{query}", json={"points": 1})
    assert answer.status_code == 201
    assert (await fake_api.call("GET", customer("c1"))).json() == 1


async def test_a_key_cannot_be_an_id_nor_an_order(api: Api) -> None:
    """Idempotency keys, ids and order numbers of one text are different sources: none stands in another's way."""
    add = f"{customer('c1')}/addPoints"
    for number, text in enumerate(["$ne", "id:x", "key:x", "x", "random:x"]):
        keyed = await api.call("POST", add, json={"points": 1}, headers={"Idempotency-Key": text})
        named = await api.call("POST", add, json={"points": 1, "id": text})
        assert (keyed.status_code, named.status_code) == (201, 201)
        assert (await api.call("GET", customer("c1"))).json() == 2 * (number + 1)
