"""What successive halving saves and loses: every start of a sweep is fitted to its end, and the rule applied to what was logged.

usage: halving.py TABLE... [--binary PATH] [--seeds 6] [--starts 4,8,16] [-- FLAGS OF clientele fit]

Prints the work that is left (passes x clusters) with twins fitted once and with starts given up as well, how often the best start of
a k is given up, and how much higher the inertia is then: the figures of docs/decisions/0011-successive-halving.md.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import tempfile

N_STARTS = 16
COMPARED_AFTER = (4, 8, 16, 32, 64, 128)
A_PASS = re.compile(r"a pass n_clusters=(\d+) restart=(\d+) n_iter=\d+ inertia=(\d+)")


def fit(binary, table, seed, flags):
    """Inertia of every pass by (k, restart), each start fitted to its end, and the rounds that were allowed."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        sweep = ["--k", "2..12", "--restarts", str(N_STARTS), "--seed", str(seed), "--no-halving", "--backend", "cpu"]
        env = {**os.environ, "CLIENTELE_LOG": "clientele_coordinator=debug"}
        command = [binary, "fit", table, "--out", out, *sweep, *flags]
        log = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stderr
        model = json.loads((out / "model.json").read_text())
    passes = collections.defaultdict(list)
    for k, restart, inertia in A_PASS.findall(log):
        passes[int(k), int(restart)].append(int(inertia))
    ends = {(c["n_clusters"], c["restart"]): (c["inertia_grid"], c["n_iter"]) for c in model["candidates"]}
    # The passes of a twin are those of the start that it became one with, an earlier one of the same end.
    for (k, restart), end in sorted(ends.items()):
        seen = passes[k, restart]
        longest = max((passes[k, r] for r in range(restart) if ends[k, r] == end), key=len, default=seen)
        seen.extend(longest[len(seen):])
    return passes, model["max_iter"]


def rule(passes, max_iter):
    """Work by start (all of one k) when every start goes to its end, with twins fitted once, with halving; and who is given up."""
    own, seen = [], set()
    for inertias in passes:
        met = next((t for t, inertia in enumerate(inertias) if (t, inertia) in seen), len(inertias))
        seen.update(enumerate(inertias))
        own.append(met)
    given_up = {}
    for t in COMPARED_AFTER:
        field = [s for s, x in enumerate(passes) if s not in given_up and own[s] >= min(t, len(x))]
        field.sort(key=lambda s: (passes[s][min(t, len(passes[s])) - 1], s))
        for s in field[(len(field) + 1) // 2:]:
            x = passes[s]
            leader = passes[field[0]]
            leads_by = leader[min(t, len(leader)) - 1]
            if len(x) > t and x[t - 1] - (max_iter - t) * (x[t - 2] - x[t - 1]) > leads_by:
                given_up[s] = t
    halved = sum(min(n, given_up.get(s, n)) for s, n in enumerate(own))
    return sum(map(len, passes)), sum(own), halved, given_up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--binary", default="target/release/clientele")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--starts", default="4,8,16")
    args, flags = parser.parse_known_args()
    flags = [flag for flag in flags if flag != "--"]
    fits = [fit(args.binary, t, seed, flags) for t in args.tables for seed in range(1, args.seeds + 1)]
    for n_starts in map(int, args.starts.split(",")):
        all_work = twins_work = halved_work = n = n_differ = n_given_up = 0
        losses = []
        for passes, max_iter in fits:
            for k in sorted({k for k, _ in passes}):
                for first in range(0, N_STARTS, n_starts):
                    group = [passes[k, restart] for restart in range(first, first + n_starts)]
                    every, twins, halved, given_up = rule(group, max_iter)
                    all_work, twins_work, halved_work = all_work + k * every, twins_work + k * twins, halved_work + k * halved
                    best = min(x[-1] for x in group)
                    kept = min(x[-1] for s, x in enumerate(group) if s not in given_up)
                    losses.append(kept / best - 1)
                    n, n_differ, n_given_up = n + 1, n_differ + (kept > best), n_given_up + len(given_up)
        print(
            f"{n_starts} starts: work {twins_work / all_work:.1%} with twins fitted once, {halved_work / all_work:.1%} with halving; "
            f"{n_given_up / n / n_starts:.1%} given up; another best start for {n_differ} of {n} k; "
            f"inertia higher by {sum(losses) / n:.5%} on average, {max(losses):.3%} at worst"
        )


if __name__ == "__main__":
    main()
