#!/usr/bin/env python3
"""A million leads into batches of ten as JSON: `splitter preview` beside the same work in pandas, in turn, in one run.

    python3 -m venv target/tools/pandas && target/tools/pandas/bin/pip install pandas
    cargo build --release -p splitter && target/tools/pandas/bin/python benches/splitter-vs-pandas.py

Prints seconds and peak memory of each, and fails if the splitter is less than six times as fast or takes 64 MB.
"""
import argparse
import csv
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PANDAS = """
import json, sys
import pandas
rows = pandas.read_csv(sys.argv[1], dtype=str, keep_default_na=False).to_dict("records")
for batch in range(0, len(rows), 10):
    leads = rows[batch:batch + 10]
    print(json.dumps({"batch": batch // 10, "file_name": "leads.csv", "first_row": batch + 1, "leads": leads}, ensure_ascii=False))
"""


def generate(path, rows):
    """The hundred leads of tests/data, over and over, each with a number of its own."""
    with open(ROOT / "tests/data/leads-100.csv", newline="") as file:
        header, *leads = csv.reader(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(header)
        for n in range(rows):
            out.writerow([n + 1, *leads[n % len(leads)][1:]])


def measure(command):
    """Wall seconds and peak memory in MB, by the operating system's account of the process."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.monotonic() - begun, usage.ru_maxrss / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--splitter", default=ROOT / "target/release/splitter")
    arguments = parser.parse_args()
    file = ROOT / f"target/bench/leads-{arguments.rows}.csv"
    if not file.exists():
        generate(file, arguments.rows)
    commands = {
        "splitter": [str(arguments.splitter), "preview", str(file)],
        "pandas": [sys.executable, "-c", PANDAS, str(file)],
    }
    runs = [{name: measure(command) for name, command in commands.items()} for _ in range(arguments.runs)]
    print(f"{arguments.rows:,} rows, {file.stat().st_size / 1e6:.0f} MB, {arguments.runs} runs in turn, medians:")
    for name in commands:
        seconds, megabytes = (statistics.median(run[name][i] for run in runs) for i in (0, 1))
        print(f"  {name:10} {seconds:7.2f} s {megabytes:8.1f} MB")
    ratio = statistics.median(run["pandas"][0] / run["splitter"][0] for run in runs)
    memory = max(run["splitter"][1] for run in runs)
    print(f"  the splitter is {ratio:.1f} times as fast, and takes {memory:.1f} MB at most")
    if ratio < 6 or memory >= 64:
        sys.exit("that is worse than it is to be: 6 times as fast, 64 MB")


if __name__ == "__main__":
    main()
