"""Several real processes on this machine, each with some devices, that work on one mesh."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent
WORKER = TESTS / "process_worker.py"


def free_port():
    """A port that nobody is using now."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def started(count, devices, work):
    """The processes, and the file of what each says."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    path = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    port, found = free_port(), []
    for index in range(count):
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `ended`; a pipe that nobody reads would fill
        asked = json.dumps([index, count, devices, port, work])
        process = subprocess.Popen(
            [sys.executable, WORKER, asked], env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        found.append((process, said))
    return found


def ended(processes, timeout, patience):
    """What each gave back and said; what runs longer, or so long after one has failed, is killed."""
    try:
        until = time.monotonic() + timeout
        while any(process.poll() is None for process, _ in processes) and time.monotonic() < until:
            if any(process.poll() for process, _ in processes):
                until, patience = min(until, time.monotonic() + patience), timeout
            time.sleep(0.05)
        codes = [process.poll() for process, _ in processes]
    finally:
        for process, _ in processes:
            process.kill()
            process.wait()
    texts = []
    for _, said in processes:
        said.seek(0)
        texts.append(said.read().decode(errors="replace"))
        said.close()
    return codes, texts


def together(count, devices, *, timeout=600, patience=5, fails=False, **work):
    """Has some processes do one work of `process_worker.work` together.

    Args:
        count: the number of processes.
        devices: the number of devices of each.
        timeout: after so many seconds all are killed.
        patience: so many seconds after one has failed the others are killed.
        fails: whether one of them is meant to fail.
        **work: what they do, as JSON can say it.

    Returns:
        For each process its exit status, None if it had to be killed, and what it said.
    """
    for _ in range(3):
        codes, texts = ended(started(count, devices, work), timeout, patience)
        if "connected\n" in "".join(texts):
            break  # else another program took the port in between
    if not fails and any(codes):
        worst = next(i for i, code in enumerate(codes) if code)
        raise AssertionError(f"process {worst} of {count} ended with {codes[worst]}:\n{texts[worst][-6000:]}")
    if not fails and None in codes:
        shown = "\n".join(f"process {i}: {text[-2000:]}" for i, text in enumerate(texts))
        raise AssertionError(f"{count} processes took more than {timeout} s:\n{shown}")
    return codes, texts
