"""Strict settings for every test, eight simulated devices, one cache of compiled programs, and how much runs.

A run of the whole folder is one that a person waits for: what is marked `wide` is left out, and of a test
that is marked `by_turns(n)` n cases run. `--rest` runs what that leaves out, `--wide` both; so does a run of
named files or of names (`-k`). `--full` runs the whole product of the catalogue's dimensions too. With
`--optimized` a run compiles as users do, which takes twice as long.
"""

import functools
import gc
import importlib
import itertools
import os
import subprocess
import sys
import tempfile

import jax
import pytest

from plain_run import in_a_plain_run, in_the_rest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# A worker comes to hold many small objects, all of which a collection looks at.
gc.set_threshold(100_000, 50, 1_000)


def pytest_addoption(parser):
    for option, what in {
        "--wide": "run every case of every test",
        "--rest": "run what a plain run leaves out of these, of a test with many cases a half",
        "--full": "run the whole product of the catalogue's dimensions too",
        "--optimized": "compile the machine code that users run",
    }.items():
        parser.addoption(option, action="store_true", help=what)


# A run spends most of its time compiling. The programs stay the same down to what XLA fuses; the machine
# code is made in the quickest way, and with --optimized it is the code that users run. A program that is
# compiled in many parts at once takes twice the processor time of one, and the workers keep the cores busy.
QUICKLY = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]


def pytest_configure(config):
    if not config.getoption("--optimized"):
        share_contexts()
    if hasattr(config, "workerinput"):
        config.option.wide = config.workerinput["wide"]
        return  # a worker has the flags in its environment
    config.option.wide |= is_of_names(config)
    flags = ["--xla_force_host_platform_device_count=8"]  # the laws about sharding need several
    if not config.getoption("--optimized"):
        flags += known(QUICKLY)
    # XLA reads them when the first array is made.
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])
    # What one worker has compiled the others need not; the cache ends with the run.
    cache = tempfile.TemporaryDirectory(prefix="gradtx-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ |= {
        # A folder that the environment names is kept, and the next run finds there what has not changed.
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache.name),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # The loops of C that one worker has compiled, too.
        "GRADTX_CACHE_DIR": os.environ.get("GRADTX_CACHE_DIR", cache.name),
    }


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tells a worker what has been found out of the command line, which it does not see as it was given."""
    node.workerinput["wide"] = node.config.option.wide


def share_contexts():
    """Lowers a hundred programs in one context of MLIR; to make one takes as long as to lower a program.

    JAX makes one for each. The function is private to JAX; where it is not found, the tests only take longer.
    """
    mlir = importlib.import_module("jax._src.interpreters.mlir")
    if (fresh := getattr(mlir, "make_ir_context", None)) is None:
        return
    programs = itertools.count()

    @functools.lru_cache(maxsize=1)
    def context(hundred):
        return fresh()

    mlir.make_ir_context = lambda: context(next(programs) // 100)


def known(flags):
    """Those flags that the installed XLA has; it aborts the process over one that it does not have."""
    code = "import jax; jax.numpy.zeros(())"
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    if not subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode:
        return flags
    return [] if len(flags) == 1 else [found for flag in flags for found in known([flag])]


def pytest_pycollect_makeitem(collector, name, obj):
    """Leaves out a test none of whose cases run: to lay out their product takes time."""
    marks = getattr(obj, "pytestmark", ())
    return [] if {mark.name for mark in marks} & left_out(collector.config) else None


def pytest_collection_modifyitems(config, items):
    full, rest = config.getoption("--full"), config.getoption("--rest")
    plain = not (full or rest or config.getoption("--wide"))
    if not full:
        keep(config, items, [item for item in items if not item.get_closest_marker("full")])
    if plain or rest:
        chosen = in_a_plain_run(items) if plain else in_the_rest(items)
        keep(config, items, [item for item in items if item in chosen])
    # To empty the caches late takes long by itself, and what is compiled by then is compiled again.
    items.sort(key=lambda item: not item.get_closest_marker("clears_caches"))


def left_out(config):
    """The marks of tests that do not run."""
    if config.getoption("--full"):
        return set()
    return {"full"} if config.getoption("--rest") or config.getoption("--wide") else {"full", "wide"}


def keep(config, items, kept):
    """Leaves the other items out of a run, which says how many they were."""
    if left_out := set(items) - set(kept):
        config.hook.pytest_deselected(items=list(left_out))
    items[:] = kept


def is_of_names(config):
    """Whether someone has said which tests are to run."""
    named = [argument.rstrip("/") for argument in config.args] != list(config.getini("testpaths"))
    return bool(named or config.getoption("keyword") or config.getoption("markexpr"))
