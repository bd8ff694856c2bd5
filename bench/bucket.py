"""Rows: `apply-transform` of a 512^3 volume from and to a bucket, compared with the same on the
local disk, with a delay added to each request.

The bucket is one of versitygw on the loopback interface, behind a proxy that holds back what the
program sends. Wall time is measured, so the variants take turns and the best time of each counts.
The program runs with one thread on the first core of the machine, the server and the proxy run on
the others, so that they do not take processor time from it; `server_cpu_s` is theirs.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

SIZE = int(os.environ.get("VOXLOOM_BENCH_SIZE", "512"))
DELAY = 0.05
OWN = "0"
OTHERS = f"1-{max(1, os.cpu_count() - 1)}"
REPEATS = 3
KEYS = {"ID": "voxloom", "SECRET": "loopback-only"}

# Forwards connections from its port to another; what a client sends arrives DELAY seconds later.
PROXY = """
import asyncio, sys
own, other, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

async def pump(reader, writer, delay):
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue(64)
    async def send():
        while (item := await queue.get()) is not None:
            due, data = item
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            writer.write(data)
            await writer.drain()
        writer.close()
    sender = asyncio.create_task(send())
    try:
        while data := await reader.read(1 << 18):
            await queue.put((loop.time() + delay, data))
    except OSError:
        pass
    await queue.put(None)
    await asyncio.gather(sender, return_exceptions=True)

async def serve(reader, writer):
    there, back = await asyncio.open_connection("127.0.0.1", other, limit=1 << 20)
    await asyncio.gather(pump(reader, back, delay), pump(there, writer, 0))

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", own, limit=1 << 20) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not answer")


def cpu_of(process):
    """CPU seconds of a running process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def once(command, env):
    begun = time.perf_counter()
    cpu = measure.run(["taskset", "-c", OWN, *command, "--threads", "1"], env=env)["cpu_s"]
    return time.perf_counter() - begun, cpu


def main():
    server = subprocess.check_output([measure.ROOT / "tests/tools/versitygw.sh"], text=True).strip()
    rows = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("VOXLOOM_BENCH_DISK")) as folder:
        folder = Path(folder)
        (folder / "s3/bench").mkdir(parents=True)
        ports = free_port(), free_port()
        gateway = subprocess.Popen(
            ["taskset", "-c", OTHERS, server, "--port", f"127.0.0.1:{ports[1]}", "posix", folder / "s3"],
            env={**os.environ, "ROOT_ACCESS_KEY_ID": KEYS["ID"], "ROOT_SECRET_ACCESS_KEY": KEYS["SECRET"]},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        proxy = subprocess.Popen(["taskset", "-c", OTHERS, sys.executable, "-c", PROXY, *map(str, ports), str(DELAY)])
        try:
            rows = compare(folder, ports[0], [gateway, proxy])
        finally:
            proxy.kill()
            gateway.kill()
            gateway.wait()
    measure.write("bucket", rows, "python bench/bucket.py")


def compare(folder, port, servers):
    env = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEYS["ID"],
        "AWS_SECRET_ACCESS_KEY": KEYS["SECRET"],
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    wait_for(port)
    source = folder / "moving.npy"
    phantom_volume(source)
    matrix = folder / "map.txt"
    matrix.write_text("0.9998 0.02 0 0.4\n-0.02 0.9998 0.01 0.3\n0 -0.01 1 0.2\n0 0 0 1\n")
    places = {"local": str(folder), "bucket": "s3://bench"}
    rows = []
    for chunk in (64, 128):
        for place in places.values():
            convert = [measure.BIN / "transcode", source, "--to", "zarr3", "--spacing", "1,1,1", "--chunk",
                       f"{chunk},{chunk},{chunk}", "-o", f"{place}/moving{chunk}.zarr", "-q"]
            measure.run(convert, env=env)
        best = {}
        for i in range(REPEATS):
            for read, write in [("local", "local"), ("bucket", "local"), ("local", "bucket"), ("bucket", "bucket")]:
                volume = f"{places[read]}/moving{chunk}.zarr"
                command = [measure.BIN / "apply-transform", volume, "--onto", f"{folder}/moving{chunk}.zarr",
                           "-t", matrix, "--chunk", f"{chunk},{chunk},{chunk}",
                           "-o", f"{places[write]}/out{i}{read}.zarr", "-q"]
                before = sum(map(cpu_of, servers))
                wall, cpu = once(command, env)
                found = wall, cpu, sum(map(cpu_of, servers)) - before
                best[read, write] = min(best.get((read, write), found), found)
            for made in [*folder.glob("out*.zarr"), *folder.glob("s3/bench/out*.zarr")]:
                shutil.rmtree(made)
        for (read, write), (wall, cpu, served) in best.items():
            rows.append({
                "row": f"{SIZE}^3, chunks of {chunk}^3, from {read} to {write}",
                "wall_s": round(wall, 2),
                "ratio": round(wall / best["local", "local"][0], 2),
                "cpu_s": round(cpu, 2),
                "server_cpu_s": round(served, 2),
                "goal": "1.3" if (read, write) == ("bucket", "bucket") else "",
            })
    return rows


def phantom_volume(path):
    """Writes a uint16 `.npy` volume: smooth structure with noise in its low bits, as from a
    camera."""
    import numpy as np

    z, y, x = (np.arange(SIZE, dtype=np.float32) / 16 for _ in range(3))
    smooth = np.sin(z)[:, None, None] + np.sin(y)[None, :, None] + np.sin(x)[None, None, :]
    noise = np.random.default_rng(0).normal(0, 8, smooth.shape).astype(np.float32)
    np.save(path, (400 + 100 * smooth + noise).astype(np.uint16))


if __name__ == "__main__":
    main()
