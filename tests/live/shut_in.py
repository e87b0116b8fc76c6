"""
Runs a command under the system call filters of a systemd unit, where no systemd runs:
C{python shut_in.py UNIT COMMAND...}

It does what systemd.exec(5) says of C{SystemCallFilter}, C{MemoryDenyWriteExecute},
C{RestrictAddressFamilies}, C{RestrictNamespaces}, C{RestrictSUIDSGID}, C{CapabilityBoundingSet}
(an empty one), C{NoNewPrivileges} and C{LimitCORE}, with libseccomp, which comes with systemd.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_EQUAL, _MASKED_EQUAL = 4, 7

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_MAX_FAMILY = 45
_CLONE_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000)
_CLONE_NAMESPACES += (0x10000000, 0x20000000, 0x40000000)
_AT_SUID_SGID = 0o6000
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}

_seccomp = ctypes.CDLL("libseccomp.so.2")
_seccomp.seccomp_init.restype = ctypes.c_void_p
_seccomp.seccomp_init.argtypes = [ctypes.c_uint32]
_seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
_libc = ctypes.CDLL(None, use_errno=True)


class _Compare(ctypes.Structure):
    """C{struct scmp_arg_cmp} of seccomp.h."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


_seccomp.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(_Compare),
]


class _Filter:
    """One seccomp filter."""

    def __init__(self, default: int) -> None:
        self._context = _seccomp.seccomp_init(default)
        assert self._context

    def add(self, action: int, call: str, *compare: _Compare) -> None:
        """A rule for a system call, if this machine has it."""
        number = _seccomp.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        array = (_Compare * len(compare))(*compare)
        done = _seccomp.seccomp_rule_add_array(self._context, action, number, len(array), array)
        assert done == 0, (call, done)

    def load(self) -> None:
        """From now on, and for all children."""
        done = _seccomp.seccomp_load(self._context)
        assert done == 0, done


def _settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", unit.read_text()):
        found.setdefault(name, []).append(value)
    return found


def _members(name: str, sets: dict[str, list[str]]) -> set[str]:
    """The system calls of a set, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    return set().union(*(_members(each, sets) for each in sets[name]))


def _allowed(filters: list[str]) -> set[str]:
    said = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    sets: dict[str, list[str]] = {}
    for line in said.splitlines():
        word = line.strip()
        if line.startswith("@"):
            members = sets.setdefault(word, [])
        elif not line.startswith(" "):
            members = []
        elif word and not word.startswith("#"):
            members.append(word)
    calls = _members("@default", sets)
    for line in filters:
        named = set().union(*(_members(each, sets) for each in line.lstrip("~").split()))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


def _deny_write_execute(rules: _Filter) -> None:
    write_exec = mmap.PROT_WRITE | mmap.PROT_EXEC
    rules.add(_REFUSE, "mmap", _Compare(2, _MASKED_EQUAL, write_exec, write_exec))
    for call in ("mprotect", "pkey_mprotect"):
        rules.add(_REFUSE, call, _Compare(2, _MASKED_EQUAL, mmap.PROT_EXEC, mmap.PROT_EXEC))
    shm_exec = 0o100000
    rules.add(_REFUSE, "shmat", _Compare(2, _MASKED_EQUAL, shm_exec, shm_exec))


def _restrict(settings: dict[str, list[str]], rules: _Filter) -> None:
    def on(name: str) -> bool:
        return settings.get(name, [""])[-1] == "yes"

    if on("MemoryDenyWriteExecute"):
        _deny_write_execute(rules)
    families = {_FAMILIES[name] for name in settings["RestrictAddressFamilies"][-1].split()}
    for family in set(range(_MAX_FAMILY + 1)) - families:
        rules.add(_REFUSE, "socket", _Compare(0, _EQUAL, family, 0))
    if on("RestrictNamespaces"):
        for flag in _CLONE_NAMESPACES:
            for call in ("clone", "unshare"):
                rules.add(_REFUSE, call, _Compare(0, _MASKED_EQUAL, flag, flag))
    if on("RestrictSUIDSGID"):
        for bit in (0o4000, 0o2000):
            for call, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1)):
                rules.add(_REFUSE, call, _Compare(place, _MASKED_EQUAL, bit, bit))


def shut_in(unit: Path) -> None:
    """Put this process, and all that it starts, under the unit's filters."""
    settings = _settings(unit)
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["LimitCORE"] == ["0"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowed = _allowed(settings["SystemCallFilter"])
    if os.geteuid() == 0:
        for capability in range(64):
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    assert _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    restrictions = _Filter(_ALLOW)
    _restrict(settings, restrictions)
    restrictions.load()
    calls = _Filter(_REFUSE)
    # systemd's way with clone3, whose flags no filter can see: callers then use clone.
    for call in sorted(allowed - {"clone3"}):
        calls.add(_ALLOW, call)
    calls.add(0x00050000 | errno.ENOSYS, "clone3")
    calls.load()


if __name__ == "__main__":
    shut_in(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
