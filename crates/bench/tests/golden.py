"""Makes the bench's rows again, independently of the Rust, and the integers that its tests expect.

usage: golden.py
"""

import math

MASK = (1 << 64) - 1
SEED, N_GROUPS, UNIT = 7, 40, 1 << 16


def mix(state):
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def draw(seed, nth, key):
    bits = mix((mix((mix(seed) + nth) & MASK) + key) & MASK)
    return round(2**40 * -math.log(((bits >> 11) + 1) / 2**53))


class Random:
    def __init__(self, state):
        self.state = state

    def next(self):
        out = mix(self.state)
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        return out

    def normal(self):
        words = [self.next() for _ in range(3)]
        return sum(word >> 16 * lane & 0xFFFF for word in words for lane in range(4)) - 6 * (UNIT - 1)


def towards_zero(a, b):
    return abs(a) // b * (1 if a >= 0 else -1)


def table(data, n_rows, d):
    random = Random(mix(SEED))
    centres = [[towards_zero(random.normal() * 6, 5) for _ in range(d)] for _ in range(N_GROUPS)]
    ends, end = [], 0
    for group in range(N_GROUPS):
        if data == "mixture":
            end += sum(draw(SEED, nth, group) for nth in range(3)) >> 24
        else:
            end += (1 << 20) // (group + 1)
        ends.append(end)
    rows = []
    for row in range(n_rows):
        random = Random(mix(SEED ^ mix(row)))
        at = (random.next() >> 32) * ends[-1] >> 32
        centre = centres[next(g for g in range(N_GROUPS) if ends[g] > at)]
        values = []
        for f in range(d):
            x = centre[f] + random.normal()
            if data == "mixture":
                values.append(x * 4 + (random.state >> 62))
            elif f % 2 == 1:
                values.append(towards_zero(x, 64))
            else:
                y = math.exp(0.6 * (x / UNIT)) * 1024
                values.append(math.floor(y + 0.5))
        rows.append(values)
    return rows


def ties_even(total, n):
    floor, rest = divmod(total, n)
    return floor + (1 if 2 * rest > n or (2 * rest == n and floor % 2 == 1) else 0)


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b))


def lloyd(rows, k, n_iter):
    """Centroids, sizes and inertia after `n_iter` rounds; no cluster may come out empty."""
    centroids = [rows[j * len(rows) // k] for j in range(k)]
    for last in [False] * n_iter + [True]:
        labels = [min(range(k), key=lambda j: (distance(row, centroids[j]), j)) for row in rows]
        sizes = [labels.count(j) for j in range(k)]
        inertia = sum(distance(row, centroids[label]) for row, label in zip(rows, labels))
        if not last:
            sums = [[sum(r[f] for r, l in zip(rows, labels) if l == j) for f in range(len(rows[0]))] for j in range(k)]
            centroids = [[ties_even(s, sizes[j]) for s in sums[j]] for j in range(k)]
    return centroids, sizes, inertia


for data in ("mixture", "skewed"):
    rows = table(data, 70_000, 4)
    print(data, "sums", sum(r[0] for r in rows), sum(r[1] for r in rows), "squares", sum(v * v for r in rows for v in r))
    print(data, "inertia of 2000 rows, k = 3, 2 rounds:", lloyd(rows[:2_000], 3, 2)[2])
