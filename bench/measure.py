"""Runs commands and returns what the kernel counted: CPU seconds and peak memory of the process.

The machines are shared, so that wall time means little and is not in most tables. For a row, our
program and the peer run alternately on the same input; `ratio` is the median of the ratios of their
CPU seconds.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("VOXLOOM_SHARED", ROOT.parent / "shared"))
BIN = Path(os.environ.get("VOXLOOM_BIN", ROOT / "target" / "release"))
PEER_PYTHON = os.environ.get("VOXLOOM_PEER_PYTHON", sys.executable)


# The peak memory that the kernel reports for a child includes that of its parent at the fork. A
# small launcher runs in between, since the benchmarks themselves hold images in memory.
LAUNCH = """
import os, sys
child = os.fork()
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as out:
    print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=out)
sys.exit(abs(os.waitstatus_to_exitcode(status)))
"""


def run(command, **kwargs):
    """CPU seconds, peak MB and stdout of one command; a failure stops the benchmark."""
    command = [str(c) for c in command]
    with tempfile.NamedTemporaryFile("r") as counted:
        launch = [sys.executable, "-I", "-S", "-c", LAUNCH, counted.name, *command]
        done = subprocess.run(launch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr.decode()[-2000:]}")
        cpu, peak = counted.read().split()
    return {"cpu_s": round(float(cpu), 3), "peak_mb": round(int(peak) / 1024, 1), "stdout": done.stdout.decode()}


def peer(script, *args):
    """Runs a script of `bench/peers/` with the Python of the peers."""
    return run([PEER_PYTHON, ROOT / "bench" / "peers" / script, *args])


def ours(program, *args):
    """Runs one of our programs."""
    return run([BIN / program, *args])


def pair(name, ours_once, peer_once, repeats=2, goal=None):
    """Runs both programs alternately; returns the table row. `*_once` return what `run` returns."""
    rows = [(ours_once(), peer_once() if peer_once else None) for _ in range(repeats)]
    mine = statistics.median(a["cpu_s"] for a, _ in rows)
    row = {
        "row": name,
        "ours_cpu_s": round(mine, 3),
        "ours_peak_mb": round(statistics.median(a["peak_mb"] for a, _ in rows), 1),
        "goal": goal or "",
    }
    if peer_once:
        row["peer_cpu_s"] = round(statistics.median(b["cpu_s"] for _, b in rows), 3)
        row["peer_peak_mb"] = round(statistics.median(b["peak_mb"] for _, b in rows), 1)
        row["ratio"] = round(statistics.median(b["cpu_s"] / max(a["cpu_s"], 1e-3) for a, b in rows), 1)
    return row


def machine():
    """The machine, date and commit of the measurement."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system() + " " + platform.release().split("-")[0],
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
    }


def write(name, rows, command):
    """Writes the rows to `bench/results/NAME.json` and, as a table, to `NAME.md` and stdout."""
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    facts = machine()
    (folder / f"{name}.json").write_text(json.dumps({"machine": facts, "command": command, "rows": rows}, indent=1) + "\n")
    columns = list(dict.fromkeys(k for row in rows for k in row))
    lines = [
        f"Made by `{command}` at {facts['commit']}, {facts['date']}, on {facts['processor']}, {facts['cores']} cores.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    (folder / f"{name}.md").write_text(text)
    print(text)
