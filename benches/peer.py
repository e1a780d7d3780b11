"""One library that does k-means, in a process of its own; started by peers.py.

usage: peer.py NAME TABLE.parquet [THREADS [TASK]]

Reads one JSON task a line from standard input and answers with one JSON line. Every peer clusters all columns but
`customer_id`, in float32, as they are. Tasks:

  {"task": "fit", "k", "iters", "tol", "init": FILE or null, "seed", "check": bool}
      rows are in memory; answers seconds, n_iter and, with "check", the inertia recomputed in float64
  {"task": "whole", "k", "iters", "init": FILE, "labels": FILE}
      from the file to labels in Parquet, beside the customer's id; answers seconds by stage and the peak memory

Imports are not timed. With a TASK on the command line nothing is warmed up beforehand and nothing computed afterwards: the process
does what a user's script does; a fit then contains the import of its library, and whoever starts it may time it from its start to its end.
"""

import json
import os
import pathlib
import resource
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

THREADS = 2


def names_of(path):
    return [name for name in pq.read_schema(path).names if name != "customer_id"]


def read_pyarrow(path):
    """[n_rows x n_features] float32, row-major, and the ids."""
    table = pq.read_table(path)
    names = names_of(path)
    x = np.empty((table.num_rows, len(names)), "f4")
    for j, name in enumerate(names):
        x[:, j] = table[name].to_numpy()
    return x, table["customer_id"]


def read_polars(path):
    import polars as pl

    frame = pl.read_parquet(path)
    x = frame.drop("customer_id").to_numpy(order="c")
    return np.ascontiguousarray(x, "f4"), frame["customer_id"].to_arrow()


def read_init(path, names):
    table = pq.read_table(path)
    return np.stack([table[name].to_numpy() for name in names], 1).astype("f4")


def fit_sklearn(x, k, iters, tol, init, seed, algorithm="lloyd"):
    from sklearn.cluster import KMeans

    start = "k-means++" if init is None else init
    # copy_x=False: it centres the rows in place and puts them back, which takes a pass more and half the memory.
    model = KMeans(k, init=start, n_init=1, max_iter=iters, tol=tol, copy_x=False, algorithm=algorithm, random_state=seed)
    model.fit(x)
    return model.cluster_centers_, model.n_iter_, model.labels_


def fit_elkan(*args):
    return fit_sklearn(*args, algorithm="elkan")


def fit_sklearnex(x, k, iters, tol, init, seed):
    from sklearnex.cluster import KMeans

    start = "k-means++" if init is None else init
    model = KMeans(k, init=start, n_init=1, max_iter=iters, tol=tol, copy_x=False, algorithm="lloyd", random_state=seed)
    model.fit(x)
    return model.cluster_centers_, model.n_iter_, model.labels_


def fit_faiss(x, k, iters, tol, init, seed):
    import faiss

    # All rows, not the sample it takes otherwise. It has no tolerance and makes every iteration.
    model = faiss.Kmeans(x.shape[1], k, niter=iters, max_points_per_centroid=10**9, seed=seed)
    model.train(x, init_centroids=init)
    return model.centroids, iters, None


def labels_of(x, centres):
    """Labels and inertia, in float64."""
    labels, inertia, c = np.empty(len(x), "i4"), 0.0, centres.astype("f8")
    for at in range(0, len(x), 100_000):
        rows = x[at : at + 100_000].astype("f8")
        d2 = (rows * rows).sum(1)[:, None] - 2 * rows @ c.T + (c * c).sum(1)
        labels[at : at + 100_000] = d2.argmin(1)
        inertia += d2.min(1).sum()
    return labels, inertia


def faiss_labels(x, centres):
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(np.ascontiguousarray(centres, "f4"))
    return index.search(x, 1)[1][:, 0].astype("i4")


PEERS = {
    "sklearn": (read_pyarrow, fit_sklearn),
    "sklearn-elkan": (read_pyarrow, fit_elkan),
    "sklearnex": (read_pyarrow, fit_sklearnex),
    "faiss": (read_pyarrow, fit_faiss),
    "polars+sklearn": (read_polars, fit_sklearn),
}


class InMemory:
    """A library that clusters a numpy array."""

    def __init__(self, name, path, is_warm):
        self.path, self.names = path, names_of(path)
        self.read, self.fit = PEERS[name]
        self.x = None
        self.is_warm = is_warm
        if not is_warm:
            return
        # Imports and thread pools, out of the way of the clock.
        tiny = np.random.default_rng(0).normal(size=(64, len(self.names))).astype("f4")
        self.fit(tiny, 2, 2, 0.0, tiny[:2].copy(), 0)
        if self.fit is fit_faiss:
            import faiss

            faiss.omp_set_num_threads(THREADS)
        if self.read is read_polars:
            import polars  # noqa: F401

    def run_fit(self, task):
        if self.x is None:
            self.x, _ = self.read(self.path)
        init = read_init(task["init"], self.names) if task["init"] else None
        started = time.perf_counter()
        centres, n_iter, _ = self.fit(self.x, task["k"], task["iters"], task["tol"], init, task["seed"])
        seconds = time.perf_counter() - started
        inertia = labels_of(self.x, centres)[1] if task["check"] else None
        return {"seconds": seconds, "n_iter": int(n_iter), "inertia": inertia}

    def run_whole(self, task):
        init = read_init(task["init"], self.names)
        t0 = time.perf_counter()
        x, ids = self.read(self.path)
        t1 = time.perf_counter()
        centres, n_iter, labels = self.fit(x, task["k"], task["iters"], 0.0, init, 0)
        t2 = time.perf_counter()
        if labels is None:
            labels = faiss_labels(x, centres)
        pq.write_table(pa.table({"customer_id": ids, "persona_id": labels}), task["labels"])
        t3 = time.perf_counter()
        peak = peak_rss_bytes()
        return {
            "seconds": t3 - t0,
            "stages": {"read": t1 - t0, "fit": t2 - t1, "labels": t3 - t2},
            "n_iter": int(n_iter),
            "inertia": labels_of(x, centres)[1] if self.is_warm else None,
            "peak_rss_bytes": peak,
        }


class Spark:
    """Spark MLlib on this machine's cores. It takes no starting centroids, so its inertia is that of its own."""

    def __init__(self, path):
        from pyspark.sql import SparkSession

        self.path, self.names = path, names_of(path)
        builder = SparkSession.builder.master(f"local[{THREADS}]").config("spark.driver.memory", "8g")
        self.session = builder.config("spark.ui.enabled", "false").getOrCreate()
        self.session.sparkContext.setLogLevel("ERROR")
        self.frame = None

    def vectors(self):
        from pyspark.ml.feature import VectorAssembler

        assembler = VectorAssembler(inputCols=self.names, outputCol="v")
        frame = assembler.transform(self.session.read.parquet(self.path)).select("customer_id", "v").cache()
        frame.count()
        return frame

    def fit(self, frame, k, iters, tol, seed):
        from pyspark.ml.clustering import KMeans

        return KMeans(k=k, maxIter=iters, tol=tol, initMode="random", seed=seed, featuresCol="v").fit(frame)

    def run_fit(self, task):
        self.frame = self.frame or self.vectors()
        started = time.perf_counter()
        model = self.fit(self.frame, task["k"], task["iters"], task["tol"], task["seed"] + 1)
        seconds = time.perf_counter() - started
        # trainingCost is that of the centroids before the last update; near enough to be seen beside the others.
        return {"seconds": seconds, "n_iter": model.summary.numIter, "inertia": model.summary.trainingCost}

    def run_whole(self, task):
        t0 = time.perf_counter()
        frame = self.vectors()
        t1 = time.perf_counter()
        model = self.fit(frame, task["k"], task["iters"], 0.0, 1)
        t2 = time.perf_counter()
        model.transform(frame).select("customer_id", "prediction").write.parquet(task["labels"])
        t3 = time.perf_counter()
        return {
            "seconds": t3 - t0,
            "stages": {"read": t1 - t0, "fit": t2 - t1, "labels": t3 - t2},
            "n_iter": model.summary.numIter,
            "inertia": model.summary.trainingCost,
            "peak_rss_bytes": peak_rss_bytes_of_java(),
        }


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_rss_bytes_of_java():
    """Of the largest process that this one has started: Spark's work is done by its Java."""
    peak = 0
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if fields["Name"].strip() == "java" and int(fields["PPid"]) == os.getpid():
            peak = max(peak, int(fields["VmHWM"].split()[0]) * 1024)
    return peak or peak_rss_bytes()


def main():
    global THREADS
    name, path = sys.argv[1:3]
    if len(sys.argv) > 3:
        THREADS = int(sys.argv[3])
    # Libraries print as they please; answers go where nothing else does.
    answers = open(1, "w", closefd=False)
    sys.stdout = sys.stderr
    once = sys.argv[4:]
    peer = Spark(path) if name == "spark" else InMemory(name, path, is_warm=not once)
    if not once:
        print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in once or sys.stdin:
        task = json.loads(line)
        run = {"fit": peer.run_fit, "whole": peer.run_whole}[task.pop("task")]
        print(json.dumps(run(task)), file=answers, flush=True)


if __name__ == "__main__":
    main()
