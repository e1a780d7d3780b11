"""clientele beside the libraries that people use for k-means today: same Parquet, same seeds, same machine, same minutes.

usage: peers.py passes|whole|sweep|converge --data DIR [options]

  passes    milliseconds an iteration of the plain pass, rows in memory, by features and clusters
  whole     from the Parquet file to labels on disk: seconds and peak memory
  sweep     k = 2..12 with 4 restarts: one clientele run, 44 clientele runs, 44 scikit-learn fits
  converge  a fit to its fixed point, with pruning and without, on plain and on skewed data

Whoever is measured takes turns with the others, so that a busy minute hits all of them; figures are medians. Every row has
the inertia that was reached, what the machine gave in that minute (`clientele bench --controls`), and where we lose. Tables
go to benches/results/ as Markdown and JSON. Needs `pip install -r benches/requirements.txt` and a release build.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
N_GROUPS = 40


class Bench:
    def __init__(self, args):
        self.args = args
        self.data = pathlib.Path(args.data)
        self.data.mkdir(parents=True, exist_ok=True)
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="peers-", dir=self.data))
        self.env = dict(os.environ, OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
            self.env[name] = str(args.threads)
        self.rows = []

    # Data

    def table(self, n_features, skewed=False):
        """The table of that many features, made if it is not there."""
        path = self.data / f"{self.args.rows}x{n_features}{'-skewed' if skewed else ''}.parquet"
        if not path.exists():
            say(f"making {path}")
            part = path.with_suffix(".part")
            make = [sys.executable, HERE / "make_customers.py", str(self.args.rows), str(n_features), str(N_GROUPS), part]
            subprocess.run(make + ["7"] + ["--skewed"] * skewed, check=True)
            part.rename(path)
        return path

    def init(self, table, k):
        """k rows of `table`, for everybody to start from."""
        path = table.with_name(f"{table.stem}.init{k}.parquet")
        if not path.exists():
            # In a process of its own: what the system calls the peak memory of a process begins with what its parent has.
            with concurrent.futures.ProcessPoolExecutor(1) as other:
                other.submit(draw, table, k, path).result()
        return path

    # Runs

    def controls(self):
        """What the machine gives right now."""
        command = [self.args.binary, "bench", "--controls", "--backend", "cpu", "--format", "json"]
        command += ["--threads", str(self.args.threads)]
        found = json.loads(run(command, self.env).stdout)["devices"][0]["controls"]
        return {
            "copy_gb_s": found["copy_bytes_per_s"] / 1e9,
            "read_gb_s": found["read_bytes_per_s"] / 1e9,
            "multiply_add_g_s": found["multiply_adds_per_s"] / 1e9,
        }

    def fit(self, table, *options, prune=None):
        """A run of clientele; what it says, with the seconds and the peak memory that the system saw."""
        out = self.scratch / "run"
        shutil.rmtree(out, ignore_errors=True)
        command = [self.args.binary, "fit", table, "--id", "customer_id", "--out", out, "--format", "json"]
        command += ["--transform", "none", "--backend", "cpu", "--threads", str(self.args.threads), *map(str, options)]
        env = self.env if prune is None else dict(self.env, CLIENTELE_PRUNE=prune)
        ran = run(command, env)
        summary = json.loads(ran.stdout)
        summary["wall_seconds"], summary["model"] = ran.seconds, json.loads((out / "model.json").read_text())
        summary["peak_rss_bytes"] = max(ran.peak_rss_bytes, summary["peak_rss_bytes"] or 0)
        shutil.rmtree(out)
        return summary

    def script(self, name, table, **task):
        """A library in a process that does one thing, as a user's script does; what the system saw, and the answer."""
        ran = run([sys.executable, HERE / "peer.py", name, table, self.args.threads, json.dumps(task)], self.env)
        return ran, json.loads(ran.stdout)

    def peer(self, name, table):
        return Peer(name, table, self.args.threads, self.env)

    # Results

    def add(self, row):
        self.rows.append(row)
        say("  " + ", ".join(f"{key} {show(value)}" for key, value in row.items()))

    def save(self, title, notes):
        folder = pathlib.Path(self.args.results)
        folder.mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = [f"# {title}", "", *notes, "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(show(row.get(c)) for c in columns) + " |" for row in self.rows]
        machine = json.loads(run([self.args.binary, "bench", "--controls", "--backend", "cpu", "--format", "json"], self.env).stdout)
        cpu = machine["machine"]
        lines += ["", f"{cpu['cpu']}, {cpu['n_cores']} cores, {self.args.threads} threads; {self.args.rows:,} rows; medians of {self.args.times}."]
        lines += [f"clientele {machine['clientele']}; " + ", ".join(f"{n} {v}" for n, v in versions().items()) + "."]
        stem = folder / (self.args.mode + (f"-{self.args.label}" if self.args.label else ""))
        stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
        saved = {"title": title, "rows": self.rows, "machine": cpu, "versions": versions(), "n_rows": self.args.rows, "times": self.args.times}
        stem.with_suffix(".json").write_text(json.dumps(saved, indent=1) + "\n")
        print("\n".join(lines))
        say(f"written: {stem}.md, {stem}.json")


def draw(table, k, path):
    """Writes k rows of `table`."""
    import numpy
    import pyarrow.parquet as pq

    rows = pq.read_table(table)
    drawn = numpy.random.default_rng(0).choice(len(rows), k, replace=False)
    pq.write_table(rows.take(drawn).drop_columns(["customer_id"]), path)


class Ran:
    def __init__(self, stdout, seconds, peak_rss_bytes):
        self.stdout, self.seconds, self.peak_rss_bytes = stdout, seconds, peak_rss_bytes


def run(command, env):
    """Runs to the end; the child's own peak memory comes from wait4."""
    import time

    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        child = subprocess.Popen([str(part) for part in command], stdout=output, stderr=errors, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if child.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\nended with {child.returncode}:\n{errors.read().decode()}")
        return Ran(output.read().decode(), seconds, usage.ru_maxrss * 1024)


class Peer:
    """A library in a process of its own that holds the rows and is asked again and again."""

    def __init__(self, name, table, threads, env):
        command = [sys.executable, HERE / "peer.py", name, table, str(threads)]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
        self.answer()

    def ask(self, **task):
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended without an answer; run benches/peer.py by hand to see why")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def alternate(times, turns):
    """Everybody once, then everybody again; one list of answers each."""
    answers = {name: [] for name in turns}
    for nth in range(times):
        for name, turn in turns.items():
            answers[name].append(turn(nth))
    return answers


def median(values):
    return statistics.median(values)


def losses(ours, peers):
    """Who is faster than we are, and by how much."""
    faster = {name: ours / theirs for name, theirs in peers.items() if theirs < ours}
    return ", ".join(f"{name} {by:.2f} x" for name, by in sorted(faster.items())) or "-"


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("scikit-learn", "scikit-learn-intelex", "faiss-cpu", "polars", "pyarrow", "pyspark"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def show(value):
    if isinstance(value, float):
        return f"{value:.9e}" if abs(value) >= 1e6 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "" if value is None else str(value)


def say(text):
    print(text, file=sys.stderr, flush=True)


def worst(inertias, ours):
    """The largest relative difference of an inertia from ours."""
    return max((abs(i / ours - 1) for i in inertias if i), default=0.0)


# Modes


def passes(bench, args):
    """ms an iteration: ours is `seconds.passes / n_passes`, a peer's the seconds of its fit by its iterations."""
    for d in args.features:
        table = bench.table(d)
        open_peers = [bench.peer(name, table) for name in args.peers if name != "polars+sklearn"]
        for k in args.clusters:
            init = bench.init(table, k)
            controls = bench.controls()

            def ours(_, table=table, init=init):
                found = bench.fit(table, "--init", init, "--tol", 0, "--max-iter", args.iters, prune="off")
                return {"ms": 1e3 * found["seconds"]["passes"] / found["n_passes"], "inertia": found["inertia"]}

            def theirs(nth, peer, init=init, k=k):
                found = peer.ask(task="fit", k=k, iters=args.iters, tol=0.0, init=str(init), seed=0, check=nth == 0)
                return {"ms": 1e3 * found["seconds"] / found["n_iter"], "inertia": found["inertia"]}

            def script(_, name, table=table, init=init, k=k):
                _, found = bench.script(name, table, task="fit", k=k, iters=args.iters, tol=0.0, init=str(init), seed=0, check=False)
                return {"ms": 1e3 * found["seconds"] / found["n_iter"], "inertia": None}

            turns = {"clientele": ours}
            turns |= {peer.name: lambda nth, peer=peer: theirs(nth, peer) for peer in open_peers}
            if args.scripts:
                turns |= {f"{peer.name} script": lambda nth, name=peer.name: script(nth, name) for peer in open_peers}
            answers = alternate(args.times, turns)
            ms = {name: median([a["ms"] for a in of]) for name, of in answers.items()}
            mine = ms.pop("clientele")
            script_ms = {name: ms.pop(name) for name in list(ms) if name.endswith(" script")}
            limit = max(
                args.rows * d * 4 / (max(controls["copy_gb_s"], controls["read_gb_s"]) * 1e9),
                args.rows * d * k / (controls["multiply_add_g_s"] * 1e9),
            )
            inertia = answers["clientele"][0]["inertia"]
            same_seeds = [of[0]["inertia"] for name, of in answers.items() if name not in ("clientele", "spark")]
            bench.add(
                {"d": d, "k": k, "clientele ms": mine}
                | {f"{name} ms": value for name, value in ms.items()}
                | {f"{name} ms": value for name, value in script_ms.items()}
                | {
                    "best peer / clientele": min(ms.values()) / mine if ms else None,
                    "best script / clientele": min(script_ms.values()) / mine if script_ms else None,
                    "limit ms": 1e3 * limit,
                    "share of limit": 1e3 * limit / mine,
                    "inertia": inertia,
                    "inertia differs by": f"{worst(same_seeds, inertia):.1e}",
                    "where we lose": losses(mine, ms),
                }
                | controls
            )
        for peer in open_peers:
            peer.__exit__()
    bench.save(
        "Milliseconds an iteration, plain pass",
        [f"{args.iters} iterations from the same rows, nothing pruned, rows in memory. Ours is a process of its own each time, the first pass included; peers have their imports and a first fit behind them, rows in memory; a script makes its only fit, import of the library included, as in the script that the aim was set with. Limit: reading the rows once, or all multiply-adds, by the controls of the same minute."],
    )


def whole(bench, args):
    """From the file to labels on disk. Ours is a whole process. A peer is measured twice: as a script, a whole process too, and warm,
    its imports and its first fit not counted."""
    d, k, iters = args.features[0], args.clusters[0], args.iters
    table = bench.table(d)
    init = bench.init(table, k)
    raw = args.rows * d * 4
    controls = bench.controls()

    def ours(_):
        found = bench.fit(table, "--init", init, "--tol", 0, "--max-iter", iters)
        return {"seconds": found["wall_seconds"], "peak_rss_bytes": found["peak_rss_bytes"], "inertia": found["inertia"], "stages": found["seconds"]}

    def theirs(nth, name):
        labels = bench.scratch / f"labels-{name}-{nth}"
        with bench.peer(name, table) as peer:
            return peer.ask(task="whole", k=k, iters=iters, init=str(init), labels=str(labels))

    def script(nth, name):
        labels = bench.scratch / f"labels-{name}-script-{nth}"
        ran, found = bench.script(name, table, task="whole", k=k, iters=iters, init=str(init), labels=str(labels))
        found["stages"]["start and end"] = ran.seconds - found["seconds"]
        return found | {"seconds": ran.seconds}

    turns = {"clientele": ours}
    for name in args.peers:
        turns[f"{name}, script"] = lambda nth, name=name: script(nth, name)
        turns[f"{name}, warm"] = lambda nth, name=name: theirs(nth, name)
    answers = alternate(args.times, turns)
    seconds = {name: median([a["seconds"] for a in of]) for name, of in answers.items()}
    mine, inertia = seconds["clientele"], answers["clientele"][0]["inertia"]
    for name, of in answers.items():
        stages = {s: median([a["stages"][s] for a in of]) for s in of[0]["stages"] if s != "total"}
        peak = median([a["peak_rss_bytes"] for a in of])
        bench.add(
            {
                "": name,
                "seconds": seconds[name],
                "best": min(a["seconds"] for a in of),
                "by clientele": seconds[name] / mine,
                "of which": ", ".join(f"{s} {v:.2f}" for s, v in stages.items()),
                "peak MB": peak / 1e6,
                "peak by raw matrix": peak / raw,
                "inertia": of[0]["inertia"],
                "where we lose": losses(mine, {name: seconds[name]}) if name != "clientele" else "",
            }
            | controls
        )
    bench.save(
        f"From Parquet to labels on disk: {args.rows:,} x {d}, k = {k}, {iters} iterations",
        [f"The raw matrix is {raw / 1e6:.0f} MB. clientele: the whole process, seeds given; it also checks ids, and writes distances, second choices and a board. Peers as scripts: the whole process as well, from the start of Python to labels in Parquet; warm: from reading on, in a process that has its imports and a first small fit behind it. Spark starts from rows of its own."],
    )


def sweep(bench, args):
    """44 models: all at once, one by one, and by scikit-learn."""
    table = bench.table(args.features[0])
    ks, restarts = range(args.k_min, args.k_max + 1), range(args.restarts)
    common = ["--max-iter", args.iters, "--tol", 1e-4]

    def at_once(*halving):
        sweep = ["--k", f"{args.k_min}..{args.k_max}", "--restarts", args.restarts, "--seed", 1, *common]
        found = bench.fit(table, *sweep, *halving)
        models = {(c["n_clusters"], c["restart"]): c for c in found["model"]["candidates"]}
        return {"seconds": found["wall_seconds"], "models": models}

    def one_by_one(_):
        seconds, models = 0.0, {}
        for k in ks:
            for restart in restarts:
                found = bench.fit(table, "--k", k, "--restarts", 1, "--seed", 1 + restart, *common)
                seconds += found["wall_seconds"]
                models[k, restart] = found["model"]["candidates"][0]
        return {"seconds": seconds, "models": models}

    def peers(_):
        seconds, inertias = 0.0, {}
        for k in ks:
            for restart in restarts:
                found = sklearn.ask(task="fit", k=k, iters=args.iters, tol=1e-4, init=None, seed=restart, check=restart == 0)
                seconds += found["seconds"]
                inertias[k] = found["inertia"] or inertias[k]
        return {"seconds": seconds, "inertias": inertias}

    controls = bench.controls()
    with bench.peer("sklearn", table) as sklearn:
        runs = {"at once": lambda _: at_once("--no-halving"), "halving": lambda _: at_once(), "one by one": one_by_one, "sklearn": peers}
        answers = alternate(args.times, runs)
    seconds = {name: median([a["seconds"] for a in of]) for name, of in answers.items()}
    together, apart = answers["at once"][0]["models"], answers["one by one"][0]["models"]
    # The first restart of seed 1 is in both, and must be the same to the last digit.
    same = all(together[k, 0]["inertia_grid"] == apart[k, 0]["inertia_grid"] and together[k, 0]["n_iter"] == apart[k, 0]["n_iter"] for k in ks)
    best_at_k_max = {"sklearn": answers["sklearn"][0]["inertias"][args.k_max]}
    for name in ("at once", "halving", "one by one"):
        best_at_k_max[name] = min(m["inertia"] for (k, _), m in answers[name][0]["models"].items() if k == args.k_max)
    n_models = len(ks) * args.restarts
    names = {"at once": f"clientele, one run of {n_models}", "halving": "the same with halving", "one by one": f"clientele, {n_models} runs", "sklearn": f"scikit-learn, {n_models} fits"}
    for name, title in names.items():
        bench.add(
            {
                "": title,
                "seconds": seconds[name],
                "by one run": seconds[name] / seconds["at once"],
                f"best inertia at k = {args.k_max}": best_at_k_max[name],
                "same models as one run": {"at once": "", "halving": "but those given up", "one by one": "yes" if same else "NO", "sklearn": "own seeds"}[name],
                "where we lose": losses(seconds["at once"], {title: seconds[name]}) if name != "at once" else "",
            }
            | controls
        )
    bench.save(
        f"A sweep: k = {args.k_min}..{args.k_max}, {args.restarts} restarts, {args.rows:,} x {args.features[0]}",
        ["Whole processes for clientele, reading and labels included; fits alone for scikit-learn, rows in memory, k-means++ of its own. The first restart of each k is compared between the runs to the last digit."],
    )
    if not same:
        sys.exit("the sweep and the separate runs found different models")


def converge(bench, args):
    """To the fixed point with and without pruning: the same bytes, sooner."""
    for skewed in (False, True):
        table = bench.table(args.features[0], skewed)
        for k in args.clusters:
            init = bench.init(table, k)
            controls = bench.controls()
            fit = lambda prune: bench.fit(table, "--init", init, "--tol", 0, "--max-iter", args.max_iter, prune=prune)  # noqa: E731
            answers = alternate(args.times, {"on": lambda _: fit(None), "off": lambda _: fit("off")})
            hashes = {(a["model_hash"], a["assignments_hash"]) for of in answers.values() for a in of}
            on, off = (median([a["seconds"]["passes"] for a in answers[which]]) for which in ("on", "off"))
            wall = {which: median([a["wall_seconds"] for a in of]) for which, of in answers.items()}
            first = answers["on"][0]
            bench.add(
                {
                    "data": "skewed" if skewed else "mixture",
                    "k": k,
                    "iterations": first["n_iter"],
                    "passes s, pruned": on,
                    "passes s, plain": off,
                    "plain / pruned": off / on,
                    "whole s, pruned": wall["on"],
                    "whole s, plain": wall["off"],
                    "inertia": first["inertia"],
                    "same bytes": "yes" if len(hashes) == 1 else "NO",
                    "where we lose": losses(on, {"plain": off}),
                }
                | controls
            )
    bench.save(
        f"A fit to its fixed point, {args.rows:,} x {args.features[0]}",
        [f"From the same rows, no tolerance, {args.max_iter} iterations at most; plain is CLIENTELE_PRUNE=off."],
    )
    if any(row["same bytes"] == "NO" for row in bench.rows):
        sys.exit("pruning has changed an answer")


MODES = {"passes": passes, "whole": whole, "sweep": sweep, "converge": converge}
DEFAULTS = {
    "passes": {"features": [8, 16, 32, 64], "clusters": [8, 16, 32, 64], "iters": 10, "peers": ["sklearn", "sklearnex", "faiss"]},
    "whole": {"features": [32], "clusters": [8], "iters": 20, "peers": ["sklearn", "polars+sklearn", "sklearnex", "faiss"]},
    "sweep": {"features": [32], "clusters": [], "iters": 100, "peers": []},
    "converge": {"features": [32], "clusters": [8, 16, 32, 64], "iters": 0, "peers": []},
}


def main():
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--data", required=True, help="folder for generated tables and scratch files; tables are kept")
    parser.add_argument("--binary", default=HERE.parent / "target/release/clientele", help="the clientele to measure")
    parser.add_argument("--results", default=HERE / "results", help="folder for the tables")
    parser.add_argument("--label", default="", help="added to the names of the tables")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--features", type=numbers, help="such as 8,32; the modes but passes take the first")
    parser.add_argument("--clusters", type=numbers, help="such as 8,64; whole takes the first")
    parser.add_argument("--iters", type=int, help="Lloyd iterations (in sweep: at most)")
    parser.add_argument("--max-iter", type=int, default=300, help="in converge: iterations, at most")
    parser.add_argument("--k-min", type=int, default=2)
    parser.add_argument("--k-max", type=int, default=12)
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--scripts", action=argparse.BooleanOptionalAction, default=True, help="in passes: peers also in a process of their own each time")
    parser.add_argument("--times", type=int, default=5, help="turns of everybody; figures are their medians")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers", type=lambda text: text.split(","), help="of sklearn, sklearn-elkan, sklearnex, faiss, polars+sklearn, spark")
    args = parser.parse_args()
    for name, value in DEFAULTS[args.mode].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if not pathlib.Path(args.binary).exists():
        parser.error(f"there is no {args.binary}; build it with `cargo build --release`, or name it with --binary")
    bench = Bench(args)
    try:
        MODES[args.mode](bench, args)
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
