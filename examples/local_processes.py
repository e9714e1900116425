"""Several processes of one program on this machine: started together, watched, and stopped together."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def is_free(port: int) -> bool:
    """Whether a program may listen on a port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("localhost", port))
        except OSError:
            return False
    return True


def run_together(commands: Sequence[Sequence[str]]) -> None:
    """Run commands at the same time; the output of the first is seen, that of the others if one fails.

    Where one fails, the rest would wait for it: they are stopped, and this exits with its status. So they are
    on Ctrl-C and where this process is told to end.
    """
    with tempfile.TemporaryDirectory() as folder:
        started: list[subprocess.Popen] = []
        logs = [Path(folder, f"{i}") for i in range(len(commands))]
        before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        # Ctrl-C reaches every process of a terminal. The ones that start here ignore it as this one does now.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _end)
        try:
            for i, (command, log) in enumerate(zip(commands, logs, strict=True)):
                with log.open("wb") as file:
                    to: dict[str, Any] = {"stdout": file, "stderr": subprocess.STDOUT} if i else {}
                    started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, **to))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            failed = _first_failure(started)
        except KeyboardInterrupt:
            raise SystemExit("\ninterrupted: all processes were stopped") from None
        finally:
            for one in started:
                one.kill()  # JAX takes a SIGTERM for a warning, and goes on
            for one in started:
                one.wait()
            for one, handler in before.items():
                signal.signal(one, handler)
        if failed is not None:
            said = logs[failed].read_text(errors="replace").splitlines()[-30:]
            for line in said:
                print(f"process {failed}: {line}", file=sys.stderr)
            print(f"process {failed} of {len(commands)} failed, the others were stopped", file=sys.stderr)
            raise SystemExit(_status(started[failed]))


def _end(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _first_failure(started: list[subprocess.Popen]) -> int | None:
    """Waits for all, or for one that fails, whose number it gives."""
    while True:
        codes = [one.poll() for one in started]
        failed = next((i for i, code in enumerate(codes) if code), None)
        if failed is not None or None not in codes:
            return failed
        time.sleep(0.05)


def _status(one: subprocess.Popen) -> int:
    """The exit status as a shell has it: 128 and the signal for what a signal has ended."""
    return one.returncode if one.returncode >= 0 else 128 - one.returncode
