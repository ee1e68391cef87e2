"""The text ``rewardpoints dev`` prints: where everything is, and calls that can be pasted into a shell."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from rewardpoints.trial.environment import Addresses, TrialEnvironment
from rewardpoints.trial.samples import CUSTOMER, SITE_CODE, TENANT
from rewardpoints.trial.tokens import MANAGEMENT_SCOPES

_TEXT = """
Reward points are up.  Ctrl-C stops everything.

  API       {api}   (also /docs, /openapi.json, /asyncapi, /metrics, /readyz)
  Console   {api}/console   (sign in with the EMPLOYEE token below)
  Kafka     {kafka}
  MongoDB   {mongodb}
  Data      {folder}

Paste into another terminal, from this folder:

  API={api}
  CUSTOMER={customer_token}
  EMPLOYEE={employee_token}
  rewardpoints() {{ {command} "$@"; }}

  # {customer}'s balance, and the lots it consists of
  curl -s $API/reward-points/public/customer -H "Authorization: Bearer $CUSTOMER"; echo
  curl -s $API/reward-points/public/customer/summary -H "Authorization: Bearer $CUSTOMER"; echo

  # an order is completed: the balance grows by 42
  rewardpoints topics publish order-completed --data {folder} --header tenant={tenant} \\
    '{{"id": "'ORDER-$RANDOM'", "status": "COMPLETED", "customer": {{"id": "{customer}"}}, "totalPrice": 42.95}}'
  sleep 1; curl -s $API/reward-points/public/customer -H "Authorization: Bearer $CUSTOMER"; echo

  # what the points can be spent on; 100 points for a voucher
  curl -s $API/reward-points/{tenant}/redeemOptions -H "Authorization: Bearer $CUSTOMER"; echo
  curl -s $API/reward-points/public/customer/redeem?siteCode={site} -H "Authorization: Bearer $CUSTOMER" \\
    -H 'Content-Type: application/json' -H "Idempotency-Key: $RANDOM-$RANDOM" -d '{{"id": "voucher-5-euro"}}'; echo

  # the coupon service is asked for that code; it cannot create it, and the points come back as a new lot
  rewardpoints topics read coupon-creation-requests --last 1 --data {folder}
  REDEMPTION=$(rewardpoints topics read coupon-creation-requests --last 1 --data {folder} \\
    | {python} -c 'import json, sys; print(json.load(sys.stdin)["value"]["id"])')
  rewardpoints topics publish chargebacks --data {folder} \\
    '{{"redemptionId": "'$REDEMPTION'", "tenant": "{tenant}", "reason": "out of codes"}}'
  sleep 1; curl -s $API/reward-points/customer/{customer}/summary -H "Authorization: Bearer $EMPLOYEE"; echo
"""


def session(environment: TrialEnvironment, addresses: Addresses) -> str:
    """The text, with tokens that are valid for seven days."""
    tokens = environment.tokens
    return _TEXT.format(
        **asdict(addresses),
        folder=shlex.quote(str(environment.folder)),
        tenant=TENANT,
        site=SITE_CODE,
        customer=CUSTOMER,
        customer_token=tokens.issue(tenant=TENANT, customer_id=CUSTOMER),
        employee_token=tokens.issue(tenant=TENANT, scopes=MANAGEMENT_SCOPES),
        python=shlex.quote(sys.executable),
        command=shlex.quote(str(_command())),
    )


def _command() -> Path:
    """The command as it was called, as far as it can be called again."""
    called = Path(sys.argv[0])
    return called if called.name == "rewardpoints" else Path(sys.executable).with_name("rewardpoints")
