"""Site settings as earning and redeeming read them: cached, and never staler than the answer allows."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection as Sites
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.domain.ports import Clock, SiteKey
from rewardpoints.domain.site_settings import SettingsHistory

MOST_SITES: Final = 10_000
LARGEST_MARGIN: Final = timedelta(seconds=30)


class Histories(Protocol):
    """The store this reads from."""

    async def histories(self, sites: Sites[SiteKey]) -> Mapping[SiteKey, SettingsHistory]:
        """All versions of each of the sites."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    history: SettingsHistory
    at: datetime
    number: int


class SettingsCache:
    """Implements the port ``SettingsReader``.

    A version takes effect ``cache_seconds`` after it is saved. So a list read at an instant judges every instant up to
    ``cache_seconds`` later (less a tenth, at most 30 s, for a save in flight and for clocks that differ): whoever reads
    later finds the same version in force there. An empty list is never kept: a site's first version applies at once.
    An instant further ahead than that is judged by a list read during the call.
    """

    def __init__(self, store: Histories, clock: Clock, *, cache_seconds: float, most_sites: int = MOST_SITES) -> None:
        self._store = store
        self._clock = clock
        good_for = timedelta(seconds=cache_seconds)
        self._good_for = good_for - min(LARGEST_MARGIN, good_for / 10)
        self._most_sites = most_sites
        self._cached: OrderedDict[SiteKey, _Read] = OrderedDict()  # least recently used first
        self._reading: dict[SiteKey, asyncio.Task[Mapping[SiteKey, _Read]]] = {}
        self._reads = 0

    async def histories(self, needed: Mapping[SiteKey, datetime]) -> Mapping[SiteKey, SettingsHistory]:
        """The history of each site, fresh enough to judge the given instant of it. Calls at one time share a read.

        Raises:
            LedgerUnavailable: a list is missing or too old, and the store cannot be read.
        """
        reads_before = self._reads
        answered: dict[SiteKey, SettingsHistory] = {}
        found: Mapping[SiteKey, _Read] = {site: self._cached[site] for site in needed if site in self._cached}
        while True:
            for site, read in found.items():
                if read.number > reads_before or (read.history.versions and needed[site] < read.at + self._good_for):
                    answered[site] = read.history
                    if site in self._cached:
                        self._cached.move_to_end(site)
            missing = [site for site in needed if site not in answered]
            if not missing:
                return answered
            found = await self._join_or_read(missing)

    async def _join_or_read(self, sites: Iterable[SiteKey]) -> Mapping[SiteKey, _Read]:
        """Wait for the reads of these sites that are under way and for one read of the others."""
        wanted = set(sites)
        others = wanted - self._reading.keys()
        if others:
            task = asyncio.create_task(self._read(frozenset(others)))
            task.add_done_callback(_retrieve)
            self._reading.update(dict.fromkeys(others, task))
        found: dict[SiteKey, _Read] = {}
        for task in {self._reading[site] for site in wanted}:
            # Shielded: one caller that gives up must not take the read from the others
            found |= {site: read for site, read in (await asyncio.shield(task)).items() if site in wanted}
        return found

    async def _read(self, sites: frozenset[SiteKey]) -> Mapping[SiteKey, _Read]:
        self._reads += 1
        number, at = self._reads, self._clock()
        try:
            histories = await self._store.histories(sites)
        finally:
            for site in sites:
                del self._reading[site]
        read = {site: _Read(history, at, number) for site, history in histories.items()}
        for site, one in read.items():
            if one.history.versions:
                self._cached[site] = one
                self._cached.move_to_end(site)
        while len(self._cached) > self._most_sites:
            self._cached.popitem(last=False)
        return read


def _retrieve(task: asyncio.Task[Mapping[SiteKey, _Read]]) -> None:
    """Take note of a failure nobody waits for any more, or asyncio would report it as forgotten."""
    if not task.cancelled():
        with suppress(RewardPointsError):
            task.result()
