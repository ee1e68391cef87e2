import fcntl
import os
from pathlib import Path

from rewardpoints.embedded.errors import DataFolderInUse

LOCK_FILE = "lock"


class FolderLock:
    """An exclusive lock on a data folder, held from ``acquire`` to ``release`` or to the end of the process.

    The system lets go of it when its holder ends, however that ends, so there are no stale locks. A process that
    inherits ``fd`` holds it too: the servers do, so that a folder stays locked while a server still works in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The descriptor that holds the lock. Raises RuntimeError while it is not held."""
        if self._fd is None:
            raise RuntimeError(f"the lock of {self._folder} is not held")
        return self._fd

    def acquire(self) -> None:
        """Takes the lock, making the folder where it is missing, and leaves this process's id in the lock file.

        Raises DataFolderInUse at once where another process holds it, OSError where the folder cannot be written.
        """
        if self._fd is not None:
            raise RuntimeError(f"the lock of {self._folder} is held already")
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise DataFolderInUse(self._folder, int(holder) if holder.isdigit() else None) from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Lets go of the lock; does nothing where it is not held. The file stays: removing it would race."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
