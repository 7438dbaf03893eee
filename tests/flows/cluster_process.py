"""A cluster of two worker processes in a process of its own: prints its address, ends with stdin.

    python cluster_process.py

Its workers import the modules beside this script by name, as they would a user's own.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Serve until nobody listens any more."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
