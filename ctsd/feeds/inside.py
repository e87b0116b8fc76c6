"""
The inside of a child process of ours that does one piece of work (L{ctsd.feeds.children} is the
outside).

The first line of its standard input is what it is given, as JSON. Standard input stays open for as
long as the work is wanted: when it ends, because the daemon closed it or died, the work ends, too.
The one line of its standard output says how it went: C{{"built": ...}}, C{{"refused": "why"}} or
C{{"failed": "why"}}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctsd.errors import StoreError
from ctsd.feeds.job import Refused

#: How far it stands back behind the daemon on a busy core.
NICENESS = 15


def answer(work: Callable[[dict[str, Any]], object]) -> int:
    """
    Do what the first line of standard input says.

    :param work: its result is what was C{built}.
    :return: the exit status.
    """
    os.nice(NICENESS)
    with suppress(OSError):
        # A huge file may take more memory than there is: then it is this process that ends.
        Path("/proc/self/oom_score_adj").write_text("1000")
    given: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        said: dict[str, object] = {"built": work(given)}
    except Refused as error:
        said = {"refused": str(error)}
    except StoreError as error:
        said = {"failed": error.reason}
    except OSError as error:
        said = {"failed": told(error)}
    except Exception as error:
        # Where, but not what: a message may hold what stands in the source.
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = {"failed": f"{type(error).__name__} at {last.filename}:{last.lineno}"}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    return 0 if "built" in said else 1


def told(error: OSError) -> str:
    """What went wrong, and with which file."""
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)
