"""What an hour came to: a line through each series, and all of them drawn."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.faults.plot import Panel, Points, plot
from tests.faults.sampler import Sampler, fit

LOAD_ENDS = "load ends"
WARM_UP_SHARE = 1 / 6
"""The fits leave the beginning out: pools, caches and the allocator fill."""


def report(sampler: Sampler) -> dict[str, Any]:
    """Figures: what happened, and how each series goes from the warm-up to the end of the load."""
    end = next(at for at, fault in sampler.faults if fault == LOAD_ENDS)

    def fitted(kind: str, name: str | None = None) -> dict[str, float] | None:
        found = sampler.series(
            lambda sample: sample[kind] if name is None else sample[kind].get(name), after=end * WARM_UP_SHARE
        )
        line = fit([(seconds, value) for seconds, value in found if seconds <= end])
        return line.as_dict() if line else None

    return {
        "seconds of load": round(end, 1),
        "faults": dict(sorted(Counter(fault for _, fault in _faults(sampler)).items())),
        "lag, records": fitted("lag"),
        "chargeback lag, records": fitted("chargebackLag"),
        "due coupon requests": fitted("due"),
        **{f"memory of {name}, MB": fitted("rssMegabytes", name) for name in sampler.processes},
        **{f"CPU of {name}, % of a core": fitted("cpuPercent", name) for name in sampler.processes},
    }


def drawing(sampler: Sampler, title: str) -> str:
    """The SVG of all series."""
    product = [name for name in sampler.processes if name.startswith(("worker", "api"))]
    others = [name for name in sampler.processes if name not in product]

    def lines(kind: str, names: Sequence[str]) -> dict[str, Points]:
        return {name: sampler.series(lambda sample, name=name: sample[kind].get(name)) for name in names}  # type: ignore[misc]  # binds the loop's value

    panels = [
        Panel("memory of the service, MB (1 is killed again and again, 2 never)", lines("rssMegabytes", product)),
        Panel("CPU of the service, % of a core", lines("cpuPercent", product)),
        Panel("lag, order records not committed", {"lag": sampler.series(lambda sample: sample["lag"])}),
        Panel("coupon requests due", {"due": sampler.series(lambda sample: sample["due"])}),
        Panel("memory of the test servers, MB (they hold all data)", lines("rssMegabytes", others)),
        Panel("CPU of the test servers, % of a core", lines("cpuPercent", others)),
    ]
    seconds = max(1.0, *(sample["seconds"] for sample in sampler.samples))
    return plot(title, panels, _faults(sampler), seconds)


def _faults(sampler: Sampler) -> list[tuple[float, str]]:
    return [(at, fault) for at, fault in sampler.faults if fault != LOAD_ENDS]
