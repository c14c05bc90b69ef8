"""Becomes the command it is given, tied to its parent's life and, where asked, without root's rights.

Run by path: `python -I -S launch.py PARENT_PID SIGNAL RIGHTS COMMAND...`. A program of its own, not a `preexec_fn`:
that would run Python between fork and exec of a parent that has threads.

1. RIGHTS `namespace`: enter a user namespace in which this user is nobody. Files of the parent's user still belong to
   it, so nothing is chowned or opened up. `nobody`: really become nobody, where the kernel forbids that namespace
   (Docker's default seccomp profile does). `same`: stay.
2. PR_SET_PDEATHSIG, after step 1: prctl(2) clears it whenever credentials change.
3. Exit if the parent died before step 2; else exec COMMAND.

The kernel sends the signal when the parent's *thread* that started this ends: start children from a lasting thread.
"""

import ctypes
import os
import sys

NOBODY = 65534
CLONE_NEWUSER = 0x1000_0000  # unshare(2)
PR_SET_PDEATHSIG = 1  # prctl(2)

libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: int) -> None:
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def enter_namespace() -> None:
    """user_namespaces(7): a single id may be mapped by anyone, the group only once setgroups is denied."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    write("/proc/self/gid_map", f"{NOBODY} {group} 1")


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def main(parent: int, death_signal: int, rights: str, command: list[str]) -> None:
    if rights == "namespace":
        enter_namespace()
    elif rights == "nobody":
        become_nobody()
    call("prctl", PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        sys.exit("launch: the parent is gone")
    os.execv(command[0], command)  # noqa: S606 (no shell is what we want)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    except OSError as error:
        sys.exit(f"launch: {' '.join(sys.argv[4:5])}: {error}")
