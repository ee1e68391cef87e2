"""The pages of redeem options and site settings."""

from decimal import Decimal
from typing import Any

import pytest

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.redeem_options import RedeemOption, option_content
from rewardpoints.domain.site_settings import Rounding, SettingsVersion, parse_site_settings
from rewardpoints.settings import SiteSettingsMode, SiteSettingsSettings
from tests.api.harness import OPTION
from tests.console.fakes import TENANT
from tests.console.harness import HOSTILE, Desk, fields_of, scripts_of, text_of

SAVE_OPTION = "/console/redeem-options/save"
SAVE_SETTINGS = "/console/site-settings/save"


def put_option(desk: Desk, option_id: str = "o1", *, tenant: str = TENANT, **changes: Any) -> RedeemOption:
    now = desk.clock()
    content = option_content({**OPTION, **changes})
    option = RedeemOption(tenant=tenant, id=option_id, content=content, version=1, created_at=now, modified_at=now)
    desk.redeem_options.options[tenant, option_id] = option
    return option


def put_settings(desk: Desk, *, tenant: str = TENANT, site: str = "main", **content: Any) -> None:
    now = desk.clock()
    given = {"orderValueToRewardPointsFactor": Decimal("1.5"), "ownField": "kept", **content}
    versions = desk.site_settings.versions.setdefault((tenant, site), [])
    versions.append(
        SettingsVersion(
            tenant=tenant,
            site_code=site,
            version=len(versions) + 1,
            saved_at=now,
            effective_at=now,
            settings=parse_site_settings(given),
            content=given,
        )
    )


async def test_options_are_listed(desk: Desk) -> None:
    put_option(desk)
    put_option(desk, "o2", name="Theirs", tenant="other")
    put_option(
        desk,
        "o3",
        name="Plain",
        description=None,
        coupon={"name": "P", "discountType": "PERCENT", "discountPercentage": 5},
    )
    said = text_of((await (await desk.signed_in()).get("/redeem-options")).text)
    assert "10 euro voucher 90 points become" in said
    assert "10 EUR" in said
    assert "Plain 90 P 5 %" in said
    assert "Theirs" not in said


async def test_no_options_are_said(desk: Desk) -> None:
    assert "There are no redeem options" in (await (await desk.signed_in()).get("/redeem-options")).text


async def test_who_may_not_change_options_is_offered_nothing_to_change(desk: Desk) -> None:
    put_option(desk)
    page = (await (await desk.signed_in("rewardspoints.rewardpoints_view")).get("/redeem-options")).text
    assert "10 euro voucher" in page
    assert "/console/redeem-options/edit" not in page


async def test_an_option_is_changed_and_what_has_no_field_stays(desk: Desk) -> None:
    before = put_option(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/redeem-options/edit?id=o1")).text, SAVE_OPTION)
    assert fields["amount"] == "10"
    answer = await browser.post("/redeem-options/save", {**fields, "points": "120", "amount": "12.50"})
    assert answer.status_code == 303, text_of(answer.text)
    after = desk.redeem_options.options[TENANT, "o1"]
    assert after.version == 2
    assert after.points == 120
    assert after.content["coupon"]["discountAbsolute"] == {"amount": Decimal("12.50"), "currency": "EUR"}
    assert after.content["coupon"]["maxRedemptions"] == before.content["coupon"]["maxRedemptions"]
    followed = await browser.client.get(answer.headers["location"])
    assert "Saved." in followed.text


async def test_saving_a_form_as_it_is_changes_nothing(desk: Desk) -> None:
    before = put_option(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/redeem-options/edit?id=o1")).text, SAVE_OPTION)
    assert (await browser.post("/redeem-options/save", fields)).status_code == 303
    assert desk.redeem_options.options[TENANT, "o1"] == before


async def test_a_form_over_an_older_version_is_refused(desk: Desk) -> None:
    put_option(desk)
    one, other = await desk.signed_in(), await desk.signed_in()
    fields = fields_of((await one.get("/redeem-options/edit?id=o1")).text, SAVE_OPTION)
    assert (await other.post("/redeem-options/save", {**fields, "points": "100"})).status_code == 303
    answer = await one.post("/redeem-options/save", {**fields, "points": "200", "name": "Mine"})
    assert answer.status_code == 409
    assert "it is version 2 now" in text_of(answer.text)
    again = fields_of(answer.text, SAVE_OPTION)
    assert (again["points"], again["name"], again["version"]) == ("200", "Mine", "1")
    assert (await one.post("/redeem-options/save", again)).status_code == 409
    assert desk.redeem_options.options[TENANT, "o1"].points == 100


async def test_a_discount_becomes_a_percentage(desk: Desk) -> None:
    put_option(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/redeem-options/edit?id=o1")).text, SAVE_OPTION)
    fields |= {"discount_type": "PERCENT", "percentage": "15"}
    assert (await browser.post("/redeem-options/save", fields)).status_code == 303
    coupon = desk.redeem_options.options[TENANT, "o1"].content["coupon"]
    assert (coupon["discountType"], coupon["discountPercentage"]) == ("PERCENT", 15)
    assert "discountAbsolute" not in coupon


async def test_an_option_is_added(desk: Desk) -> None:
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/redeem-options/edit")).text, SAVE_OPTION)
    fields |= {"name": "Five", "points": "50", "coupon_name": "Five euros", "amount": "5", "currency": "EUR"}
    assert (await browser.post("/redeem-options/save", fields)).status_code == 303
    (added,) = desk.redeem_options.options.values()
    assert (added.tenant, added.points, added.version) == (TENANT, 50, 1)


@pytest.mark.parametrize(
    "wrong",
    [{"points": "many"}, {"points": "0"}, {"amount": "1e9"}, {"amount": ""}, {"name": " "}, {"currency": "EURO"},
     {"discount_type": "FREE_SHIPPING"}, {"version": "x", "points": "1"}, {"amount": "9" * 13}],
)  # fmt: skip
async def test_a_wrong_field_is_said_and_nothing_is_changed(desk: Desk, wrong: dict[str, str]) -> None:
    before = put_option(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/redeem-options/edit?id=o1")).text, SAVE_OPTION)
    answer = await browser.post("/redeem-options/save", {**fields, **wrong})
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert desk.redeem_options.options[TENANT, "o1"] == before


async def test_refused_forms_change_nothing(desk: Desk) -> None:
    before = put_option(desk)
    theirs = put_option(desk, "o1", tenant="other", name="Theirs")
    put_settings(desk)
    browser = await desk.signed_in()
    option = fields_of((await browser.get("/redeem-options/edit?id=o1")).text, SAVE_OPTION) | {"points": "1"}
    settings = fields_of((await browser.get("/site-settings")).text, SAVE_SETTINGS) | {"factor": "9"}
    viewer = await desk.signed_in("rewardspoints.rewardpoints_view")
    for path, fields in (("/redeem-options/save", option), ("/site-settings/save", settings)):
        assert (await desk.browser().client.post(f"/console{path}", data=fields)).status_code == 401
        assert (await browser.post(path, fields, token="0" * 64)).status_code == 403
        assert (await viewer.post(path, fields)).status_code == 403
        cross = {**fields, "form_token": await browser.form_token()}
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert (await browser.client.post(f"/console{path}", data=cross, headers=headers)).status_code == 403
    assert desk.redeem_options.options == {(TENANT, "o1"): before, ("other", "o1"): theirs}
    assert len(desk.site_settings.versions[TENANT, "main"]) == 1


async def test_another_tenants_option_is_not_there(desk: Desk) -> None:
    theirs = put_option(desk, "o9", tenant="other")
    browser = await desk.signed_in()
    assert (await browser.get("/redeem-options/edit?id=o9")).status_code == 404
    answer = await browser.post("/redeem-options/save", {"id": "o9", "version": "1", "tenant": "other", "points": "1"})
    assert answer.status_code == 404
    assert desk.redeem_options.options == {("other", "o9"): theirs}


async def test_hostile_names_of_options_are_text(desk: Desk) -> None:
    put_option(desk, HOSTILE, name=HOSTILE, description=HOSTILE)
    browser = await desk.signed_in()
    for answer in (
        await browser.get("/redeem-options"),
        await browser.get("/redeem-options/edit", params={"id": HOSTILE}),
        await browser.get("/redeem-options/edit", params={"id": f"no{HOSTILE}"}),
    ):
        assert not scripts_of(answer.text)
        assert "<script>alert" not in answer.text
    page = (await browser.get("/redeem-options/edit", params={"id": HOSTILE})).text
    assert fields_of(page, SAVE_OPTION)["id"] == HOSTILE


async def test_a_ledger_that_is_down_is_said(desk: Desk) -> None:
    browser = await desk.signed_in()
    desk.faults.plant("redeem_options.all", LedgerUnavailable("no primary"))
    desk.faults.plant("site_settings.history", LedgerUnavailable("no primary"))
    for path in ("/redeem-options", "/site-settings"):
        answer = await browser.get(path)
        assert answer.status_code == 503
        assert "MongoDB does not answer" in answer.text


async def test_settings_are_shown_with_their_versions(desk: Desk) -> None:
    put_settings(desk)
    put_settings(desk, orderValueToRewardPointsFactor=2, rounding="CEILING")
    put_settings(desk, site="eu", tenant="other")
    page = (await (await desk.signed_in()).get("/site-settings")).text
    fields = fields_of(page, SAVE_SETTINGS)
    assert (fields["factor"], fields["rounding"], fields["version"]) == ("2", "CEILING", "2")
    assert "2 in force" in text_of(page)
    assert "eu" not in [one for one in text_of(page).split() if one == "eu"]


async def test_a_site_without_settings_says_so_and_takes_the_first(desk: Desk) -> None:
    browser = await desk.signed_in()
    page = (await browser.get("/site-settings?site=eu")).text
    assert "its orders earn nothing" in text_of(page)
    answer = await browser.post("/site-settings/save", fields_of(page, SAVE_SETTINGS) | {"factor": "0.25"})
    assert answer.status_code == 303
    (version,) = desk.site_settings.versions[TENANT, "eu"]
    assert version.settings.factor == Decimal("0.25")
    assert (version.effective_at - version.saved_at).total_seconds() == 900
    assert "Saved as version 1" in text_of((await browser.client.get(answer.headers["location"])).text)


async def test_settings_are_changed_and_what_has_no_field_stays(desk: Desk) -> None:
    put_settings(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/site-settings")).text, SAVE_SETTINGS)
    del fields["enabled"]
    fields |= {"rounding": "HALF_UP", "months": "12", "time_zone": "Europe/Berlin"}
    assert (await browser.post("/site-settings/save", fields)).status_code == 303
    latest = desk.site_settings.versions[TENANT, "main"][-1]
    assert latest.version == 2
    assert not latest.settings.enabled
    assert latest.settings.rounding is Rounding.HALF_UP
    assert latest.settings.factor == Decimal("1.5")
    assert latest.content["ownField"] == "kept"


async def test_settings_over_an_older_version_are_refused(desk: Desk) -> None:
    put_settings(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/site-settings")).text, SAVE_SETTINGS)
    put_settings(desk, orderValueToRewardPointsFactor=3)
    answer = await browser.post("/site-settings/save", {**fields, "factor": "4"})
    assert answer.status_code == 409
    assert fields_of(answer.text, SAVE_SETTINGS)["factor"] == "4"
    assert fields_of(answer.text, SAVE_SETTINGS)["version"] == "1"
    assert len(desk.site_settings.versions[TENANT, "main"]) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"factor": "-1"}, {"factor": "x"}, {"months": "0"}, {"code_prefix": "a b"}, {"time_zone": "Mars"},
     {"description_template": "{order.id}"}, {"base": "tax"}],
)  # fmt: skip
async def test_wrong_settings_are_said_and_not_saved(desk: Desk, wrong: dict[str, str]) -> None:
    put_settings(desk)
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/site-settings")).text, SAVE_SETTINGS)
    answer = await browser.post("/site-settings/save", {**fields, **wrong})
    assert answer.status_code == 400
    assert len(desk.site_settings.versions[TENANT, "main"]) == 1


async def test_settings_of_elsewhere_can_only_be_viewed() -> None:
    remote = SiteSettingsSettings(mode=SiteSettingsMode.REMOTE, url="https://sites.example", sites=("shop/main",))
    desk = Desk(site_mode=remote)
    put_settings(desk)
    browser = await desk.signed_in()
    page = (await browser.get("/site-settings")).text
    assert "managed by the Site Settings Service" in page
    assert "Save as version" not in page
    answer = await browser.post("/site-settings/save", fields_of(page, SAVE_SETTINGS) | {"factor": "9"})
    assert answer.status_code == 409
    assert len(desk.site_settings.versions[TENANT, "main"]) == 1


async def test_hostile_settings_are_text(desk: Desk) -> None:
    put_settings(desk, site=HOSTILE, descriptionTemplate=f"{HOSTILE} {{orderId}}")
    page = (await (await desk.signed_in()).get("/site-settings", params={"site": HOSTILE})).text
    assert not scripts_of(page)
    assert fields_of(page, SAVE_SETTINGS)["site"] == HOSTILE
