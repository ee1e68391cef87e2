"""Flood guard: bad records by the hundred are not the records' fault, and are held back for somebody to look.

A newer producer that renames a field, a topic fed to the wrong service or settings that cannot be read make every
record of a deploy's traffic bad. Sent to the dead-letter topic one by one they would look dealt with.
"""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from rewardpoints.domain.errors import RejectReason, RewardPointsError
from rewardpoints.events.dead_letters import Rejection, is_retried
from rewardpoints.events.records import Record
from rewardpoints.settings import ServiceSettings


class FloodOfBadRecords(RewardPointsError):
    """Too many of the latest records are bad; judging the same ones again may come out differently.

    ``first`` is the first bad record of those at hand, ``reason`` the commonest one, ``bad`` of ``judged`` records are.
    """

    def __init__(self, first: Record, *, reason: RejectReason, bad: int, judged: int) -> None:
        super().__init__(
            f"{bad} of the last {judged} records are bad, most of them {reason.value}, "
            f"from offset {first.offset} of {first.topic}/{first.partition} on"
        )
        self.first = first
        self.reason = reason
        self.bad = bad
        self.judged = judged


class _Passed(NamedTuple):
    judged: int
    bad: Sequence[RejectReason]


class FloodGuard:
    """Judges the bad records of one consumer by their share of the latest ones it judged.

    It looks at the records at hand and, where these are fewer than ``flood_window_records``, at those before them. A
    flood is at least ``flood_share`` of what it looks at, and at least that share of a full window: with 0.5 of 500,
    249 bad records are none however quiet the topic is, and the 500th bad one in a row is one whatever came before.
    Records that concern nobody (orders of another status, say) are not judged, neither as good nor as bad: a stream
    that is mostly those must not hide that all the others are bad. Nor are bad records that an operator published
    again: they were dead letters before, and a retry of thousands must not hold up everybody else's.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._on = settings.flood_pause
        self._share = settings.flood_share
        self._window_records = settings.flood_window_records
        self._passed: deque[_Passed] = deque()
        self._passed_records = 0

    def judge(self, rejections: Sequence[Rejection], *, judged: int) -> None:
        """Judge records that have not been passed yet; ``judged`` counts the good ones too. Remembers nothing.

        Raises:
            FloodOfBadRecords: none of them may be passed over.
        """
        rejections, judged = _without_retried(rejections, judged)
        if not self._on or not rejections:
            return
        looked_at = [_reasons(rejections)]
        for earlier in reversed(self._passed):
            if judged >= self._window_records:
                break
            judged += earlier.judged
            looked_at.append(earlier.bad)
        bad = sum(map(len, looked_at))
        if bad >= self._share * max(judged, self._window_records):
            ((reason, _),) = Counter(chain.from_iterable(looked_at)).most_common(1)
            raise FloodOfBadRecords(rejections[0].record, reason=reason, bad=bad, judged=judged)

    def passed(self, rejections: Sequence[Rejection], *, judged: int) -> None:
        """Remember what was judged, once it is dealt with: a batch that is tried again must count once."""
        rejections, judged = _without_retried(rejections, judged)
        if not self._on or not judged:
            return
        self._passed.append(_Passed(judged, _reasons(rejections)))
        self._passed_records += judged
        while self._passed_records - self._passed[0].judged >= self._window_records:
            self._passed_records -= self._passed.popleft().judged


def _without_retried(rejections: Sequence[Rejection], judged: int) -> tuple[Sequence[Rejection], int]:
    new = [rejection for rejection in rejections if not is_retried(rejection.record)]
    return new, judged - (len(rejections) - len(new))


def _reasons(rejections: Sequence[Rejection]) -> Sequence[RejectReason]:
    return [rejection.error.reason for rejection in rejections]
