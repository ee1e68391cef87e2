"""The commands that read the ledger and the one that adds to it, as Typer has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Final

import typer

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import kafka_errors
from rewardpoints.domain.accounts import DEFAULT_SITE_CODE, Account, account_of, check_id, check_tenant
from rewardpoints.domain.adjustments import Adjustment
from rewardpoints.domain.liability import Liability, PeriodLength
from rewardpoints.domain.reasons import ExplainedAccount
from rewardpoints.ledger.verify import Scope
from rewardpoints.operate import show_verify
from rewardpoints.operate.adjust import Adjusted
from rewardpoints.operate.adjust import adjust as add_adjustment
from rewardpoints.operate.explain import explain_account
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.liability import LiabilityRun
from rewardpoints.operate.progress import Progressing
from rewardpoints.operate.published import PublishedRequests
from rewardpoints.operate.show_explain import print_explanation
from rewardpoints.operate.show_liability import print_csv, print_report_json, print_table
from rewardpoints.operate.terminal import AsJson, TrialFolder, instant, load_settings, run
from rewardpoints.operate.verify import VerifyRun
from rewardpoints.settings import Settings

PROGRESS_EVERY_SECONDS: Final = 0.2

Tenant = Annotated[str, typer.Option(help="The tenant.")]
OneTenant = Annotated[str | None, typer.Option(help="Only this tenant.")]
Customer = Annotated[str, typer.Option(help="The customer's id.")]
OneCustomer = Annotated[str | None, typer.Option(help="Only this customer; needs --tenant.")]


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.command()(verify)
    cli.command()(adjust)
    cli.command()(explain)
    cli.command()(liability)


def verify(
    *,
    tenant: OneTenant = None,
    customer: OneCustomer = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=instant,
            metavar="TIME",
            help="Only accounts that gained an entry since then (2025-06-10 or 2025-06-10T12:31:39Z).",
        ),
    ] = None,
    topics: Annotated[
        bool, typer.Option("--topics", help="Also compare with the coupon requests and dead letters on Kafka.")
    ] = False,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Check every invariant of the ledger, account by account; may run beside the service, and repairs nothing.

    Prints each violation and, where points can set it right, the `rewardpoints adjust` command an operator may apply.
    Answers 0 only if everything holds, or has been corrected so. Whether a lot is missing, `rebuild --check` tells.
    """
    scope = Scope(tenant=tenant and check_tenant(tenant), account=_account(tenant, customer), since=since)
    show = show_verify.as_json() if as_json else show_verify.as_text()
    if not run(_verify(load_settings(data), scope, show, topics=topics)):
        raise typer.Exit(1)


async def _verify(settings: Settings, scope: Scope, show: show_verify.Show, *, topics: bool) -> bool:
    with contextlib.ExitStack() as stack:
        published: PublishedRequests | None = None
        if topics:
            published = stack.enter_context(PublishedRequests(utc_now))
            with Progressing("coupon requests read", None) as reading, kafka_errors():
                async with _told(reading, lambda: published.records):
                    await published.read(settings.kafka)
        async with open_ledger(settings) as ledger:
            verification = VerifyRun(settings, ledger, utc_now, scope, published=published)
            with Progressing("entries judged", await verification.about()) as progress:
                async with _told(progress, lambda: verification.verdict.entries):
                    async for finding in verification.findings():
                        show.finding(finding)
    show.verdict(verification.verdict)
    return verification.verdict.clean


def adjust(
    *,
    tenant: Tenant,
    customer: Customer,
    points: Annotated[int, typer.Option(help="Points to add; negative takes them (write --points=-30).")],
    key: Annotated[str, typer.Option(help="Names this adjustment: a second time under it adds nothing.")],
    reason: Annotated[str, typer.Option(help="Why; the customer sees it as the entry's description.")],
    site: Annotated[str, typer.Option(help="The site whose settings hold.")] = DEFAULT_SITE_CODE,
    valid_until: Annotated[
        datetime | None,
        typer.Option(parser=instant, metavar="TIME", help="When added points expire; else after the site's months."),
    ] = None,
    open_account: Annotated[
        bool, typer.Option("--open-account", help="Also where the customer has no account yet.")
    ] = False,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Add an explained entry to a customer's account that gives points or takes them. No existing entry is changed.

    The way to apply what `rewardpoints verify` proposes. Repeating it is harmless.
    """
    adjustment = Adjustment(
        account=account_of(check_tenant(tenant), check_id("customer", customer)),
        points=points,
        key=key,
        reason=reason,
        site_code=site,
        valid_until=valid_until,
    )
    adjusted = run(_adjust(load_settings(data), adjustment, open_account=open_account))
    show_verify.adjusted(adjusted, as_json=as_json)


async def _adjust(settings: Settings, adjustment: Adjustment, *, open_account: bool) -> Adjusted:
    async with open_ledger(settings) as ledger:
        return await add_adjustment(ledger, utc_now, adjustment, open_account=open_account)


def explain(
    *,
    tenant: Tenant,
    customer: Customer,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=instant,
            metavar="TIME",
            help="The account as it was, or will be, then (2025-06-10 or 2025-06-10T12:31:39Z).",
        ),
    ] = None,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Say why a customer has the points they have, and when they expire.

    Shows the balance, when what is left of it expires, every lot with its reason (order, rule, factor, settings
    version, Kafka record), and every entry, draw and expiry with the balance right after it.
    """
    account = account_of(check_tenant(tenant), check_id("customer", customer))
    print_explanation(run(_explain(load_settings(data), account, at)), as_json=as_json)


async def _explain(settings: Settings, account: Account, at: datetime | None) -> ExplainedAccount:
    async with open_ledger(settings) as ledger:
        return await explain_account(ledger, utc_now, account, at)


def liability(
    *,
    tenant: OneTenant = None,
    site: Annotated[
        str | None, typer.Option(help="Only lots of this site; draws count for the site of their lot.")
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=instant, metavar="TIME", help="As of then (2025-06-10 or 2025-06-10T12:31:39Z) instead of now."
        ),
    ] = None,
    by: Annotated[PeriodLength, typer.Option(help="Length of a period, in UTC.")] = PeriodLength.MONTH,
    as_csv: Annotated[bool, typer.Option("--csv", help="A line a period, for a spreadsheet.")] = False,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Add up what customers may still spend, by when it expires, and what came and went in each period.

    Outstanding = earned + given + given back - redeemed - expired, exactly, at the end of each period. Breakage: of the
    points of all lots whose validity had ended, the share that expired unspent; lots still valid count neither way.
    """
    if as_csv and as_json:
        raise typer.BadParameter("either --csv or --json", param_hint="--csv")
    report = Liability(at or utc_now(), by=by, site_code=site)
    run(_liability(load_settings(data), report, tenant and check_tenant(tenant)))
    if as_csv:
        print_csv(report)
    elif as_json:
        print_report_json(report, tenant=tenant)
    else:
        print_table(report)


async def _liability(settings: Settings, report: Liability, tenant: str | None) -> None:
    async with open_ledger(settings) as ledger:
        work = LiabilityRun(ledger, report, tenant=tenant)
        with Progressing("entries added up", await work.about()) as progress:
            async with _told(progress, lambda: report.entries):
                await work.complete()


def _account(tenant: str | None, customer: str | None) -> Account | None:
    if customer is None:
        return None
    if tenant is None:
        raise typer.BadParameter("needs --tenant", param_hint="--customer")
    return account_of(check_tenant(tenant), check_id("customer", customer))


@contextlib.asynccontextmanager
async def _told(progress: Progressing, done: Callable[[], int]) -> AsyncIterator[None]:
    """Tell the progress how far it is while something else runs."""

    async def tell() -> None:
        while True:
            progress.at(done())
            await asyncio.sleep(PROGRESS_EVERY_SECONDS)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
