"""Run by its path, not imported: becomes the command that follows, tied to the life of the process that started it.

``python tether.py PARENT_PID SIGNAL COMMAND ARGUMENT...`` asks Linux to send SIGNAL to this process when its parent
ends, however it ends, then executes COMMAND in its place; the pid stays the same and the request survives the exec.

Why a program of its own: the request must be made in the child, and between fork and exec (``preexec_fn``) running
Python in a process with threads may deadlock. Only the standard library is used, so it starts in a few milliseconds.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Does not return: it executes the command, or exits with a message on standard error."""
    parent, signal, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before the request was made, so no signal will ever come
        sys.exit(f"process {parent}, which started this one, has ended")
    os.execv(command[0], command)  # noqa: S606  # the launcher's own command line, no shell


if __name__ == "__main__":
    main()
