#!/usr/bin/env python3
"""Simulated jobs of other kinds than those in `traces`, so that the estimate is not fitted to those alone; standard library only.

usage: others.py DIR   writes six traces of each kind to DIR, the same ones every time
"""
import csv, heapq, math, os, random, sys


def spread(mean, sigma):
    """Lognormal durations, in milliseconds."""
    return lambda r, t, done, items: mean * math.exp(r.gauss(-sigma * sigma / 2, sigma))


def times(factor, mean, sigma=0.3):
    """Durations whose mean changes with the time or with what is done."""
    return lambda r, t, done, items: mean * factor(t, done) * math.exp(r.gauss(0, sigma))


def per_item(r, t, done, items):
    return 300 * items * math.exp(r.gauss(0, 0.2))


# name: batches, workers, duration; and what else differs: the items of a batch, when a worker joins, when all pause, when the total is known.
KINDS = {
    "exponential": (400, 8, lambda r, t, done, items: r.expovariate(1 / 4000), {}),
    "exponential_alone": (120, 1, lambda r, t, done, items: r.expovariate(1 / 3000), {}),
    "two_kinds": (300, 6, lambda r, t, done, items: (1500 if r.random() < 0.8 else 12000) * math.exp(r.gauss(0, 0.1)), {}),
    "pareto": (300, 10, lambda r, t, done, items: 2000 * r.paretovariate(1.6), {}),
    "slower_and_slower": (500, 5, times(lambda t, done: 1 + 2 * done, 2000), {}),
    "faster_and_faster": (500, 5, times(lambda t, done: 1 - 0.7 * done, 6000), {}),
    "largest_first": (200, 6, per_item, {"items": lambda done: max(1, 40 - int(38 * done))}),
    "smallest_first": (200, 6, per_item, {"items": lambda done: 2 + int(38 * done)}),
    "few": (14, 4, spread(30000, 0.5), {}),
    "one_wave": (12, 12, spread(90000, 0.5), {}),
    "two_waves": (40, 20, spread(40000, 0.4), {}),
    "a_pause": (400, 8, spread(4000, 0.4), {"pause": (60000, 110000)}),
    "workers_join": (400, 12, spread(5000, 0.4), {"joins": 9000}),
    "day_and_night": (400, 8, times(lambda t, done: 1.6 + math.sin(t / 25000), 3000), {}),
    "constant": (300, 7, lambda r, t, done, items: 5000, {}),
    "heavy": (250, 6, spread(5000, 1.0), {}),
    "gamma": (300, 5, lambda r, t, done, items: r.gammavariate(2, 2000), {}),
    "cold_start": (300, 8, times(lambda t, done: 3 if t < 4000 else 1, 4000), {}),
    "slower_by_half": (400, 6, times(lambda t, done: 2 if done > 0.55 else 1, 2500), {}),
    "faster_by_half": (400, 6, times(lambda t, done: 0.5 if done > 0.4 else 1, 5000), {}),
    "small": (40, 3, spread(12000, 0.7), {}),
    "alone": (60, 1, spread(4000, 0.4), {}),
    "many_workers": (1500, 40, spread(7000, 0.6), {}),
    "timeouts": (300, 8, lambda r, t, done, items: 30000 if r.random() < 0.03 else 3000 * math.exp(r.gauss(0, 0.3)), {}),
    "uniform": (200, 4, lambda r, t, done, items: r.uniform(500, 6000), {}),
    "late_total": (200, 4, spread(4000, 0.5), {"total_at": 60000}),
}


def trace(seed, batches, workers, duration, items=None, joins=0, pause=None, total_at=0):
    """The rows of one job."""
    r = random.Random(seed)
    free = [(float(joins * worker), worker) for worker in range(workers)]
    heapq.heapify(free)
    rows = []
    for batch in range(batches):
        begun, worker = heapq.heappop(free)
        size = items(batch / batches) if items else 10
        took = max(5, duration(r, begun, batch / batches, size))
        if pause and pause[0] <= begun < pause[1]:
            begun = pause[1]
        elif pause and begun < pause[0] < begun + took:
            took += pause[1] - pause[0]
        rows.append((int(begun + took), "done", batch, size, int(took)))
        heapq.heappush(free, (begun + took, worker))
    end = max(row[0] for row in rows)
    rows.append((total_at, "total", batches, "", ""))
    rows += [(t, "poll", "", "", "") for t in range(max(2000, end // 100), end, max(2000, end // 100))]
    order = {"total": 0, "done": 1, "poll": 2}
    return sorted(rows, key=lambda row: (row[0], order[row[1]]))


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for kind, (batches, workers, duration, more) in KINDS.items():
        for seed in range(6):
            with open(os.path.join(folder, f"{kind}-{seed}.csv"), "w", newline="") as file:
                out = csv.writer(file)
                out.writerow(["t_ms", "event", "batch", "items", "duration_ms"])
                out.writerows(trace(seed, batches, workers, duration, **more))


if __name__ == "__main__":
    main(sys.argv[1])
