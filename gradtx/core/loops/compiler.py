"""The system's C compiler, and the libraries that it has made, kept in the user's cache folder."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import jax

FLAGS = (
    "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing",
    "-shared", "-fPIC", "-w",
)  # fmt: skip
"""No flag that changes a result: a product and a sum are rounded one by one, wherever an element stands."""

FOR_THIS_CPU = {
    "x86_64": "-march=native",
    "amd64": "-march=native",
    "aarch64": "-mcpu=native",
    "arm64": "-mcpu=native",
}

FOLDER = "GRADTX_CACHE_DIR"
"""The environment variable that says where libraries are kept."""

_SEAL = b"gradtx:"
"""What stands behind a library in its file, before the digest of what stands in front."""


class _Lock:
    """A lock that a forked process has anew, in which nobody would open it."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Makes it open."""
        self.lock = threading.RLock()


_ONE_AT_A_TIME = _Lock()
_BUILT: dict[str, str] = {}


def built(source: str) -> str:
    """The name by which XLA calls a library of a source; it is made where there is none.

    Raises:
        RuntimeError: there is no compiler, it fails, or the machine is of another kind.
    """
    with _ONE_AT_A_TIME.lock:
        if source not in _BUILT:
            name = f"gradtx_{_key(source)}"
            library = _library(source, name)
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library.handler), platform="cpu")
            _BUILT[source] = name
        return _BUILT[source]


def check_machine() -> None:
    """Raises where no loops can be compiled."""
    if platform.machine().lower() not in FOR_THIS_CPU:
        raise RuntimeError(
            f"gradtx.kernels('native') makes loops for x86-64 and aarch64, and this machine is "
            f"{platform.machine() or 'of an unknown kind'}. Leave out 'native'; XLA's kernels run everywhere."
        )
    compiler()


@functools.cache
def compiler() -> tuple[str, ...]:
    """The command of the C compiler: what `CC` says, as `ccache gcc`, or the first of cc, gcc and clang."""
    said = os.environ.get("CC", "").strip()
    for name, *more in [shlex.split(said)] if said else (["cc"], ["gcc"], ["clang"]):
        if found := shutil.which(name):
            return found, *more
    tried = f"what the environment variable CC says, {said!r}, is none" if said else "tried cc, gcc and clang"
    raise RuntimeError(
        f"gradtx.kernels('native') needs a C compiler, and there is none ({tried}). Install gcc or clang, or "
        f"say where one is by the environment variable CC; or leave out 'native'."
    )


@functools.cache
def _machine() -> str:
    """What a library depends on beside its source."""
    version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True).stdout
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = "\n".join(
            sorted(
                {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
            )
        )
    api = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_bytes()
    parts = (
        platform.system(),
        platform.machine(),
        cpu,
        *compiler(),
        version,
        hashlib.sha256(api).hexdigest(),
    )
    return "\n".join(parts)


def _flags() -> tuple[str, ...]:
    return (*FLAGS, FOR_THIS_CPU[platform.machine().lower()], "-I", jax.ffi.include_dir())


def _key(source: str) -> str:
    whole = "\n".join([source, *FLAGS, _machine()])
    return hashlib.sha256(whole.encode()).hexdigest()[:24]


def _library(source: str, name: str) -> ctypes.CDLL:
    folder = cache_folder()
    if not folder.is_dir():  # someone has tidied up since
        cache_folder.cache_clear()
        folder = cache_folder()
    path = folder / f"{name}.so"
    if not _is_whole(path):
        _compile(source, path)
    return ctypes.CDLL(str(path))


def _is_whole(path: Path) -> bool:
    """Whether a library is there, and is what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    library, seal, digest = content.rpartition(_SEAL)
    return bool(seal) and hashlib.sha256(library).digest() == digest


def _compile(source: str, path: Path) -> None:
    """Makes a library. It is written beside its place and moved there, so that nobody reads a part of it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="making-") as made:
        file, library = Path(made, "loop.c"), Path(made, "loop.so")
        file.write_text(source)
        command = [*compiler(), str(file), "-o", str(library), *_flags(), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not library.exists():
            raise RuntimeError(
                f"gradtx.kernels('native'): the C compiler failed, so that no loop could be made.\n"
                f"{' '.join(command)}\n{done.stderr.strip()[:2000]}"
            )
        content = library.read_bytes()
        with library.open("ab") as end:
            end.write(_SEAL + hashlib.sha256(content).digest())
        os.replace(library, path)


@functools.cache
def cache_folder() -> Path:
    """Where libraries are kept, which nobody else may write to; one for this process where there is none.

    It is what `GRADTX_CACHE_DIR` says, or `gradtx` in the user's cache folder.
    """
    said = os.environ.get(FOLDER)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(said or Path(home, "gradtx"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"others than its user may write to {folder}")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        warnings.warn(
            f"gradtx cannot keep its loops in {folder} ({error}), so that each process compiles them again. "
            f"Say by the environment variable {FOLDER} where it may write.",
            stacklevel=2,
        )
        return _of_this_process()
    return folder


def _of_this_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gradtx-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    """Removes the folder of a process where that ends; a process that is forked from it goes on using it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
