import hashlib
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.accounts import (
    RESERVED_TENANTS,
    account_of,
    check_id,
    check_tenant,
    customer_of,
    entry_id,
    tenant_of,
    tenant_range,
)
from rewardpoints.domain.errors import InvalidInput

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(text, text)
def test_an_account_names_its_tenant_and_customer(tenant: str, customer: str) -> None:
    account = account_of(tenant, customer)
    assert (tenant_of(account), customer_of(account)) == (tenant, customer)


@given(text, text)
def test_an_account_is_quoted_as_urls_are(tenant: str, customer: str) -> None:
    # stored in every ledger there is
    assert account_of(tenant, customer) == f"{quote(tenant, safe='')}/{quote(customer, safe='')}"


@given(text, text, text)
def test_a_tenants_range_holds_its_accounts_and_no_others(tenant: str, other: str, customer: str) -> None:
    low, high = tenant_range(tenant)
    assert low <= account_of(tenant, customer) < high
    assert (low <= account_of(other, customer) < high) == (other == tenant)


@given(st.lists(st.lists(st.text(max_size=4), min_size=1, max_size=4), min_size=2, max_size=6))
def test_entry_ids_are_injective_on_part_lists(part_lists: list[list[str]]) -> None:
    ids = {tuple(parts): entry_id(*parts) for parts in part_lists}
    assert len(set(ids.values())) == len(ids)


def test_entry_ids_do_not_run_together() -> None:
    # the classic mistakes: a separator inside a part, a part split elsewhere, an empty part
    alike = [("a", "b"), ("ab",), ("a:b",), ("", "ab"), ("ab", ""), ("a", "", "b"), ("1:a", "b"), ("a1:b",)]
    ids = sorted(entry_id(*parts) for parts in alike)
    assert all(first != second for first, second in pairwise(ids))


def test_entry_ids_never_change() -> None:
    # stored in every ledger there is: a change here would grant every replayed order twice
    assert entry_id("shop/c1", "order", "EON1200") == "2cd3e29e819f36ff391c2af3762abd712fb3fc58bd9b130ac7dc909cb12df103"


@pytest.mark.parametrize("value", ["", "a" * 257, "a\x00b", "line\nbreak", "\x7f", "\ud800"])
def test_unusable_ids_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        check_id("id", value)


@pytest.mark.parametrize("value", ["EON1200", "a/b", "a b", "Ünïcode", "$where", "a.b", "%2F", "😀"])
def test_odd_but_usable_ids_are_kept(value: str) -> None:
    assert check_id("id", value) == value


@pytest.mark.parametrize("tenant", sorted(RESERVED_TENANTS))
def test_tenants_that_collide_with_paths_are_refused(tenant: str) -> None:
    with pytest.raises(InvalidInput, match="reserved"):
        check_tenant(tenant)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4))
def test_entry_ids_are_hashes_of_the_parts_bytes_after_their_lengths(parts: list[str]) -> None:
    encoded = [part.encode() for part in parts]
    expected = hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in encoded)).hexdigest()
    assert entry_id(*parts) == expected
