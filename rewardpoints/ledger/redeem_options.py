"""Redeem options as they are stored."""

from collections.abc import Sequence

from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.errors import VersionConflict
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.ledger.documents import option_document, option_from, option_key
from rewardpoints.ledger.driver import Collection, Database, driver_errors


class RedeemOptions:
    """Implements the port of the same name."""

    def __init__(self, database: Database) -> None:
        self._options: Collection = database.redeem_options

    async def all(self, tenant: str) -> Sequence[RedeemOption]:
        """All options of the tenant, oldest first.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = await self._options.find({"tenant": tenant}).sort("createdAt", 1).to_list(None)
        return sorted(map(option_from, found), key=lambda option: (option.created_at, option.id))

    async def find(self, tenant: str, option_id: str) -> RedeemOption | None:
        """One option.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = await self._options.find_one({"_id": option_key(tenant, option_id)})
        return option_from(found) if found else None

    async def create(self, option: RedeemOption) -> None:
        """Store a new option under its id. The same option again changes nothing.

        Raises:
            VersionConflict: another option has this id; nothing was changed.
            InvalidInput: its content holds a text that is no valid unicode.
            LedgerUnavailable: create it again.
        """
        with driver_errors(writing=True):
            try:
                await self._options.insert_one(option_document(option))
            except DuplicateKeyError as error:
                if await self.find(option.tenant, option.id) != option:
                    raise VersionConflict from error

    async def replace(self, option: RedeemOption, *, stored_version: int) -> bool:
        """Store ``option`` in place of ``stored_version``; False when the stored version is another by now, or none.

        Raises:
            InvalidInput: its content holds a text that is no valid unicode.
            LedgerUnavailable: read the option before another try, this one may have been applied.
        """
        document = option_document(option)
        with driver_errors(writing=True):
            result = await self._options.replace_one({"_id": document["_id"], "version": stored_version}, document)
        return result.matched_count == 1

    async def delete(self, tenant: str, option_id: str) -> None:
        """Delete an option. Idempotent.

        Raises:
            LedgerUnavailable: delete it again.
        """
        with driver_errors(writing=True):
            await self._options.delete_one({"_id": option_key(tenant, option_id)})
