"""What a process has used, from /proc. A process stands for itself and its children."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEGABYTE = 1e6
_USER, _SYSTEM = 11, 12
"""Fields of /proc/PID/stat, counted from behind the command's name."""


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds, user and system together, and the instant (monotonic) they were read at."""

    cpu_seconds: float
    at: float


def used(*pids: int) -> Used:
    """What processes have used so far, together. Raises OSError where one has gone."""
    return Used(sum(_cpu_seconds(pid) for root in pids for pid in family(root)), time.monotonic())


def resident_megabytes(pid: int) -> float:
    """What a process holds in memory now. Raises OSError where it has gone."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / _MEGABYTE


def most_resident_megabytes(pid: int) -> float:
    """The most a process ever held in memory. Raises OSError where it has gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _MEGABYTE
    raise OSError(f"process {pid} has no memory")


def family(pid: int) -> Sequence[int]:
    """A process and what descends from it."""
    return [pid, *(one for child in _children(pid) for one in family(child))]


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            yield from map(int, (task / "children").read_text().split())
        except OSError:  # the thread has ended
            continue


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
