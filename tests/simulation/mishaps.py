"""What goes wrong around the service: processes killed, partitions moved, a network in trouble."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World


class Mishaps:
    """Each of them some seconds after it is asked for."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance

    async def kill(self, after: float) -> None:
        await asyncio.sleep(after)
        services, kind = self._chance.choice(((self._world.workers, "worker"), (self._world.apis, "api")))
        victim = self._chance.choice(services)
        if victim.process.dies_at is not None:  # it is doomed already
            return
        gone = asyncio.Event()
        victim.process.when_dead.append(gone.set)
        victim.process.dies_at = victim.process.steps + self._chance.randint(1, 150)
        await gone.wait()
        self._world.counts["kills"] += 1
        self._world.loop.note(f"killed {victim.process.name}")
        await asyncio.sleep(self._chance.uniform(0.1, 4))
        if victim in services:
            services[services.index(victim)] = self._world.new(kind, worker=kind == "worker")

    async def rebalance(self, after: float) -> None:
        await asyncio.sleep(after)
        topic = self._chance.choice(sorted(self._world.broker.groups))
        self._world.broker.group(topic).rebalance(self._chance)

    async def trouble(self, after: float) -> None:
        await asyncio.sleep(after)
        if self._chance.random() < 0.4:
            self._world.network.deaf_to_commits = True
            await asyncio.sleep(self._chance.uniform(2, 15))
            self._world.network.deaf_to_commits = False
            return
        self._world.network.trouble = True
        await asyncio.sleep(self._chance.uniform(0.5, 5))
        self._world.network.trouble = False
