"""
Three nodes, one PostgreSQL and HAProxy under a steady load of scans with a slow searcher: a node
is killed every few seconds, one is frozen for longer than its lease lasts, PostgreSQL restarts.

    python benchmarks/cluster.py [--secs 60] [--seed 1]

It prints what happened and what clients were told; it ends with status 1 when a scan that was
answered 303 did not become final with all its hits, when two answers contradict each other, or
when something is left in the store.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.live.storm import storm


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description="What a cluster keeps of its promises.")
    parser.add_argument("--secs", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        storm(Path(directory), seed=given.seed) as (raging, database),
    ):
        raging.rage(given.secs, kill_secs=4.0, frozen_secs=20.0, away_secs=2.0)
        print(raging.report())
        wrong = raging.wrong()
        left = raging.leftovers(database)
        for each in wrong[:20]:
            print(f"  WRONG: {each}")
        print(f"  contradictions and lost promises: {len(wrong)}; left in the store: {left}")
        for node in raging.nodes:
            if "Traceback" in node.log.read_text():
                print(f"  a traceback in {node.log}")
                print(node.log.read_text()[-5000:])
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
