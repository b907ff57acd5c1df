"""Run histories and tell of the first that breaks a promise: `python tests/sim/sim_main.py --first 1 --count 100`.

One history again, in words: `--first SEED --count 1 --story`. With `--plant NAME` a bug is planted first, which a run
must find. Exits 1 if a promise was broken, its history shrunk and told.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from sim_history import history, shrunk  # noqa: E402
from sim_planted import PLANTED  # noqa: E402

STEPS = 200


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--first", type=int, default=1, help="the seed of the first history")
    words.add_argument("--count", type=int, default=100)
    words.add_argument("--steps", type=int, default=STEPS)
    words.add_argument("--story", action="store_true", help="tell each history in words, also one that went well")
    words.add_argument("--plant", choices=sorted(PLANTED), help="with this bug")
    chosen = words.parse_args()
    if chosen.plant:
        PLANTED[chosen.plant]()
    gc.disable()  # nothing of a killed process may ever be finalised
    began, checks = time.monotonic(), 0
    for seed in range(chosen.first, chosen.first + chosen.count):
        outcome = history(seed, chosen.steps)
        checks += outcome.checks
        if outcome.violation:
            least = outcome if chosen.plant else shrunk(outcome)
            print(f"seed {seed}: {outcome.violation}\n{len(least.steps)} of {len(outcome.steps)} steps are enough:")
            print("\n".join(least.story))
            return 1
        if chosen.story:
            print("\n".join(outcome.story))
    took = time.monotonic() - began
    print(f"{chosen.count} histories of {chosen.steps} steps, {checks} looks, {took:.0f} s: every promise kept")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
