"""Where the database file may lie, and how it comes to be there: owned and readable by one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from ctsd.errors import StoreError
from ctsd.syncing import sync

#: Types of file systems, without the C{fuse.} that some have in front.
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "davfs2",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "rclone",
        "s3fs",
        "smb2",
        "smb3",
        "smbfs",
        "sshfs",
    }
)
_MOUNTS = Path("/proc/self/mountinfo")


def is_network_filesystem(path: Path, *, mounts: Path = _MOUNTS) -> bool:
    """
    Whether a path lies, or would lie, on a file system of another machine.

    SQLite's locks and shared memory do not work there (U{https://www.sqlite.org/wal.html}).

    :param mounts: the kernel's list, in the format of proc(5), C{/proc/[pid]/mountinfo}; where
        there is none, the answer is False.
    """
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return False
    target = os.fsencode(os.path.realpath(path))
    longest, kind = -1, b""
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields = before.split()
        if len(fields) < 5 or not after.split():
            continue
        point = _unescaped(fields[4])
        below = point if point.endswith(b"/") else point + b"/"
        # A later mount at the same place hides the earlier one.
        if (target == point or target.startswith(below)) and len(point) >= longest:
            longest, kind = len(point), after.split()[0]
    name = kind.decode("ascii", "replace")
    return name.removeprefix("fuse.") in _NETWORK


def _unescaped(point: bytes) -> bytes:
    for octal, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        point = point.replace(octal, char)
    return point


def refuse_network(*paths: Path, mounts: Path = _MOUNTS) -> None:
    """
    Make sure that these paths lie, or would lie, on this machine.

    :param mounts: see L{is_network_filesystem}.
    :raises StoreError: one does not.
    """
    for path in paths:
        if is_network_filesystem(path, mounts=mounts):
            raise StoreError(f"{path} is on a network file system, where locks do not work")


def lock_state(state_dir: Path) -> int:
    """
    Take the lock that says that this process uses this C{state_dir}; it ends with the process.

    :return: its descriptor, to be closed.
    :raises StoreError: another process has it.
    :raises OSError: there is no such directory, or it is not ours.
    """
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreError(f"{state_dir} is used by another ctsd that is running") from None
    return lock


def make_place(path: Path, *, mounts: Path = _MOUNTS) -> None:
    """
    Make sure that the database file is there, for its owner alone, in a directory that is there.

    A directory that has to be made gets the mode 0700, the file 0600. What root makes in
    somebody's directory belongs to that somebody, as the files that SQLite puts beside it will.

    :param mounts: see L{is_network_filesystem}.
    :raises StoreError: that is not possible, or the place is on another machine.
    """
    directory = path.parent
    try:
        refuse_network(directory, mounts=mounts)
        made = _missing(directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in made:
            _give(each, each.parent)
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _give(path, directory)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync(directory)
        except FileExistsError:
            os.close(os.open(path, flags))
            if path.stat().st_mode & 0o077:
                with contextlib.suppress(PermissionError):
                    path.chmod(0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _missing(directory: Path) -> list[Path]:
    chain = [directory, *directory.parents]
    return [each for each in reversed(chain) if not each.exists()]


def _give(made: Path, beside: Path) -> None:
    if os.geteuid() == 0:
        owner, is_now = beside.stat(), made.stat()
        if (owner.st_uid, owner.st_gid) != (is_now.st_uid, is_now.st_gid):
            os.chown(made, owner.st_uid, owner.st_gid)
