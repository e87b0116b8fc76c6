"""
One large upload, chunked, and a second client's small POSTs meanwhile:
`python benchmarks/upload.py`.

The server has one core, both clients share the other.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from http_load import Server, ask, wait_for

PORT = 8803
BOUNDARY = b"hNkAJef6-C3sLds5cHApeUTcq-9GtzFHS1"
HEAD = (
    b"--" + BOUNDARY + b"\r\n"
    b'Content-Disposition: form-data; name="artifact"\r\n'
    b"Content-Type: application/json\r\n\r\n"
    b'{"type":"file.content","value":"big.bin"}\r\n'
    b"--" + BOUNDARY + b"\r\n"
    b'Content-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
)


def chunk(data: bytes) -> bytes:
    """As it goes over the wire."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def upload(mib: int) -> float:
    """Seconds that it took to send a file and read its answer."""
    client = socket.create_connection(("127.0.0.1", PORT))
    piece = chunk(os.urandom(65536))
    started = time.monotonic()
    client.sendall(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n\r\n" + chunk(HEAD)
    )
    for _ in range(mib * 16):
        client.sendall(piece)
    client.sendall(chunk(b"\r\n--" + BOUNDARY + b"--\r\n") + b"0\r\n\r\n")
    answer = http.client.HTTPResponse(client)
    answer.begin()
    if answer.status != 200:
        raise SystemExit(f"the upload was answered {answer.status}: {answer.read()!r}")
    client.close()
    return time.monotonic() - started


def post_until(done: threading.Event, latencies: list[float]) -> None:
    """Small POSTs on one connection, 100 a second at the most."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    number = 0
    while not done.is_set():
        number += 1
        body = json.dumps({"type": "net.uri", "value": f"http://small-{number}.example/"})
        started = time.monotonic()
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        latencies.append(time.monotonic() - started)
        time.sleep(0.01)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="ctsd-upload-"))
    config = where / "ctsd.toml"
    config.write_text(f'listen = ["tcp:{PORT}:interface=127.0.0.1"]\n')
    twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]
    server = Server("ctsd", PORT, [*twistd, "ctsd", "--config", str(config)], where, 0)
    os.sched_setaffinity(0, {1})
    try:
        wait_for(lambda: ask(PORT, "OPTIONS", "/"), 30)
        rates, latencies = [], []
        for _ in range(options.rounds):
            done = threading.Event()
            poster = threading.Thread(target=post_until, args=(done, latencies))
            poster.start()
            rates.append(options.mib * 1.048576 / upload(options.mib))
            done.set()
            poster.join()
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        ordered = sorted(latencies)
        print(
            f"{options.mib} MiB chunked, {options.rounds} times: "
            f"{statistics.median(rates):.0f} MB/s (from {min(rates):.0f} to {max(rates):.0f}); "
            f"peak {peak:.0f} MiB RSS; small POSTs meanwhile: p50 "
            f"{statistics.median(ordered) * 1000:.1f} ms, "
            f"p99 {ordered[int(len(ordered) * 0.99)] * 1000:.1f} ms of {len(ordered)}"
        )
    finally:
        server.stop()
        subprocess.run(["rm", "-r", str(where)], check=True)


if __name__ == "__main__":
    main()
