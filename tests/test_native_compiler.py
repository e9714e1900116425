"""Loops of C as programs: their memory, the compiler, the cache, threads and processes."""

import concurrent.futures
import os
import platform
import shutil
import stat
import subprocess
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.loops import choice, compiler
from native import COMPILED_LOOP, COMPILER, compiles, python, source_of
from rotation import one_of

SANITIZED = (
    *("-g", "-O1"),
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
)
DRIVER = Path(__file__).with_name("native_driver.c")


ODD = {"a": (13, 11), "b": (7,), "c": (3, 5, 2), "d": (), "e": (50_001,), "f": (1, 1)}
OF_BLOCKS = {"a": (96, 128), "b": (130, 70), "c": (257, 3), "d": (40_000,), "e": (5, 64, 48), "f": (7,)}
SANE = {
    "adamw": (gradtx.adamw(1e-3), ODD, ()),
    "lion, a sweep of two axes": (gradtx.lion(1e-3), ODD, (2, 3)),
    "adamw, bfloat16": (gradtx.adamw(1e-3, mu_dtype=jnp.bfloat16), ODD, (2,)),
    "8-bit adamw": (gradtx.precision(gradtx.adamw(1e-3), "8bit", min_size=0), OF_BLOCKS, ()),
    "8-bit adamw, a sweep": (gradtx.precision(gradtx.adamw(1e-3), "8bit", min_size=0), OF_BLOCKS, (2,)),
    "adamw, slots at random": (gradtx.precision(gradtx.adamw(1e-3), "bf16", min_size=0), ODD, ()),
}


def loops_of(jaxpr):
    """The calls of loops in a jaxpr."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "leaf_loop":
            yield eqn
            continue
        for inner in jax.tree.leaves([*eqn.params.values()], is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield from loops_of(getattr(inner, "jaxpr", inner))


def table(name, types, over=()):
    """The lines of `native_driver.c` that say which buffers there are."""
    rows = []
    for k, x in enumerate(types):
        dims = ", ".join(map(str, x.shape or (0,)))
        rows.append(f"{{{x.dtype.itemsize}, {x.ndim}, {{{dims}}}, {dict(over).get(k, -1)}}}")
    return f"static Spec {name}[] = {{{', '.join(rows)}}};"


@pytest.mark.wide
@pytest.mark.parametrize("name", one_of(3, SANE))
@compiles
def test_memory_and_arithmetic_are_sound(name, tmp_path):
    """Sanitizers find nothing in a program of its own, on buffers of exactly the size that they must have."""
    tx, shapes, settings = SANE[name]
    params = {k: jnp.zeros(shape) for k, shape in shapes.items()}

    def step(p, g, rate):
        state = gradtx.set_hyperparams(tx.init(p), learning_rate=rate)
        return gradtx.apply_gradients(tx, g, state, p)

    of_settings = lambda x: jnp.broadcast_to(x, (*settings, *x.shape))  # noqa: E731
    for _ in settings:
        step = jax.vmap(step)
    given = jax.tree.map(of_settings, (params, params, jnp.float32(0.1)))
    with gradtx.kernels("native"):
        calls = [*loops_of(jax.make_jaxpr(step)(*given).jaxpr)]
    assert calls
    most = 0
    for call in calls:
        group = call.params["group"]
        types = [x.aval for x in call.invars]
        over = {made: taken for taken, made in group.in_place.items()}
        (tmp_path / "loop.c").write_text(group.leaves[0].source)
        (tmp_path / "buffers.h").write_text("\n".join([
            f"enum {{ GIVEN = {len(types)}, MADE = {len(call.outvars)} }};",
            table("given", types), table("made", [x.aval for x in call.outvars], over),
            f"static int is_bool[] = {{{', '.join(str(int(x.dtype == bool)) for x in types)}}};",
        ]))  # fmt: skip
        flags = [flag for flag in compiler._flags() if flag not in ("-shared", "-fPIC")]
        command = [
            COMPILER,
            str(DRIVER),
            "-o",
            "driver",
            *flags,
            *SANITIZED,
            f"-I{tmp_path}",
            "-lm",
            "-lpthread",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        done = subprocess.run(["./driver"], cwd=tmp_path, capture_output=True, text=True)
        assert not done.returncode, (done.stdout, done.stderr[-3000:])
        most = max(most, int(done.stdout.split()[0]))
    assert most > 1  # threads were asked for


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a process that knows neither a compiler nor a folder yet."""
    forget = compiler.compiler, compiler.cache_folder, compiler._machine
    monkeypatch.setenv(compiler.FOLDER, str(tmp_path / "cache"))
    for function in forget:
        function.cache_clear()
    yield tmp_path / "cache"
    for function in forget:
        function.cache_clear()


def native_update():
    tx, params = gradtx.adam(0.1), {"w": jnp.arange(6.0)}
    with gradtx.kernels("native"):
        return tx.update(params, tx.init(params), params)[0]["w"]


def library(source):
    """Makes or finds a library; its path."""
    return Path(compiler._library(source, f"gradtx_{compiler._key(source)}")._name)


@pytest.mark.parametrize(
    ("cc", "said"),
    [
        ("/nothing/cc -g", "what the environment variable CC says, '/nothing/cc -g', is none"),
        ("", "tried cc, gcc and clang"),
    ],
)
def test_no_compiler(cc, said, cache, monkeypatch):
    monkeypatch.setenv("CC", cc)
    if not cc:
        monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(RuntimeError) as error:
        native_update()
    assert "needs a C compiler, and there is none" in str(error.value)
    assert said in str(error.value)
    assert "or leave out 'native'" in str(error.value)


@pytest.mark.parametrize("ends", [1, 0], ids=["it fails", "it makes nothing"])
def test_a_compiler_that_fails(ends, cache, tmp_path, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_text(f"#!/bin/sh\necho 'no such instruction' >&2\nexit {ends}\n")
    broken.chmod(0o700)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(RuntimeError, match="the C compiler failed") as error:
        library(source_of(1))
    assert "no such instruction" in str(error.value) and str(broken) in str(error.value)
    assert [*cache.iterdir()] == []


def test_another_machine(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(
        RuntimeError, match=r"for x86-64 and aarch64, and this machine is riscv64\. Leave out"
    ):
        native_update()
    monkeypatch.setattr(platform, "machine", lambda: "")
    with pytest.raises(RuntimeError, match="of an unknown kind"):
        native_update()


def test_words_of_a_compiler(cache, monkeypatch):
    monkeypatch.setenv("CC", "env -u NOTHING cc")
    assert compiler.compiler()[1:] == ("-u", "NOTHING", "cc")


@pytest.mark.wide
@compiles
def test_the_cache_is_private_and_holds_whole_libraries(cache):
    source = source_of(2)
    path = library(source)
    assert path.parent == cache and stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [*cache.iterdir()] == [path]
    content, was = path.read_bytes(), path.stat().st_mtime_ns
    (cache / "making-gone").mkdir()
    (cache / "making-gone/loop.so").write_bytes(b"a part")
    assert library(source) == path and path.stat().st_mtime_ns == was
    # What is cut, changed, empty or another file is made again.
    one_more = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
    for wrong in (content[:-1], content[: len(content) // 2], one_more, b"", content + b"x"):
        path.unlink()
        path.write_bytes(wrong)
        assert not compiler._is_whole(path)
        assert library(source) == path and compiler._is_whole(path)
    path.unlink()
    path.symlink_to("/dev/null/x")
    assert library(source) == path and compiler._is_whole(path) and not path.is_symlink()


@compiles
def test_a_cache_that_is_removed_is_made_again(cache):
    path = library(source_of(4))
    shutil.rmtree(cache)
    assert library(source_of(4)) == path


@pytest.mark.parametrize("wrong", ["/dev/null/x", "open to all", "of a group", "another's"])
@pytest.mark.by_turns(2)
@compiles
def test_a_folder_that_is_none_of_ones_own(wrong, cache, monkeypatch):
    """A warning says so, and each process has its own."""
    folder = Path(wrong) if wrong.startswith("/") else cache
    why = "Not a directory"
    if folder == cache:
        cache.mkdir(mode=0o700)
        why = "others than its user may write"
        if wrong == "another's":
            monkeypatch.setattr(os, "getuid", lambda: 12345)
        else:
            cache.chmod(0o777 if wrong == "open to all" else 0o720)
    monkeypatch.setenv(compiler.FOLDER, str(folder))
    compiler.compiler()
    with pytest.warns(
        UserWarning, match=f"gradtx cannot keep its loops in {folder} .*{why}.*{compiler.FOLDER}"
    ):
        made = library(source_of(3))
    assert made.parent not in (folder, cache) and compiler._is_whole(made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library(source_of(3)) == made  # it is said once


def test_wrong_choices(monkeypatch):
    with pytest.raises(
        ValueError, match=r"gradtx.kernels: there are no kernels 'c'\. Choose 'xla' or 'native'"
    ):
        gradtx.kernels("c")
    monkeypatch.setenv(choice.VARIABLE, "Native")
    with pytest.raises(ValueError, match=r"variable GRADTX_KERNELS: there are no kernels 'Native'\. Choose"):
        choice._first()


def test_a_jax_that_does_not_let_libraries_choose(monkeypatch):
    monkeypatch.setattr(choice, "_CONTEXT", None)
    monkeypatch.delattr(jax, "make_user_context")
    with pytest.raises(
        RuntimeError, match=r"gradtx.kernels needs JAX 0\.8\.0 or newer, and this one is older"
    ):
        gradtx.kernels("native")
    assert choice.chosen() == "xla"
    with choice.by_xla():
        assert choice.chosen() == "xla"
    assert choice._first() == "xla"
    monkeypatch.setenv(choice.VARIABLE, "native")
    with pytest.raises(RuntimeError, match=r"GRADTX_KERNELS=native needs JAX 0\.8"):
        choice._first()


@pytest.mark.wide
@compiles
def test_eight_threads_trace_and_run_at_once(cache):
    """Some of them make the same loops; nothing of XLA's choice gets into them."""
    params = {"w": jnp.linspace(-1, 1, 70_001), "b": jnp.ones(3)}

    def run(k):
        tx = gradtx.chain(gradtx.scale_by_adam(), *[gradtx.scale(0.5)] * (k % 3), gradtx.scale(-0.1))
        step = jax.jit(lambda p, s: gradtx.apply_gradients(tx, p, s, p))
        made = []
        for kernels in ("native", "xla") if k % 2 else ("xla", "native"):
            with gradtx.kernels(kernels):
                p, s = params, tx.init(params)
                has = COMPILED_LOOP in step.lower(p, s).compile().as_text()
                assert has == (kernels == "native")
                for _ in range(5):
                    p, s = step(p, s)
                made.append(p)
        return made

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got, want in pool.map(run, range(16)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-7, atol=1e-9), got, want)


STEP = """
import jax, jax.numpy as jnp, os, sys, gradtx
def run():
    tx, p = gradtx.adam(0.1), {"w": jnp.linspace(-1, 1, 40_001)}
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p)[0]["w"])
    made = step(p, tx.init(p), p)
    assert 'custom_call_target="gradtx' in step.lower(p, tx.init(p), p).compile().as_text()
    return float(made.sum()), float(made[7])
"""


@pytest.mark.wide
@compiles
def test_processes(tmp_path):
    """Two make the same loop at once, a third uses what they have made, without a compiler that works."""
    env = {
        **{"GRADTX_KERNELS": "native", "GRADTX_CACHE_DIR": str(tmp_path / "loops"), "XLA_FLAGS": ""},
        **{
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    cc = tmp_path / "counting-cc"
    cc.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) ;; *) echo made >> {tmp_path}/count ;; esac\n{COMPILER} "$@"\n'
    )
    cc.chmod(0o700)
    if COMPILER:
        env["CC"] = str(cc)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: python(STEP + "print(*run())", env), range(2))
    assert first == second
    assert len([*(tmp_path / "loops").iterdir()]) == 1
    made = (tmp_path / "count").read_text()
    programs = {path.name for path in (tmp_path / "programs").iterdir() if path.name.endswith("-cache")}
    assert programs
    assert python(STEP + "print(*run())", env) == first
    assert (tmp_path / "count").read_text() == made
    assert {
        path.name for path in (tmp_path / "programs").iterdir() if path.name.endswith("-cache")
    } == programs


FORK = """
import threading
from gradtx.core.loops import compiler
held, end = threading.Event(), threading.Event()
def hold():
    with compiler._ONE_AT_A_TIME.lock:
        held.set()
        end.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
children = []
while len(children) < 3 and 0 not in children:
    children.append(os.fork())
if 0 in children:
    os.write(1, f"{run()}\\n".encode())
    os._exit(0)
end.set()
assert all(os.waitstatus_to_exitcode(os.waitpid(k, 0)[1]) == 0 for k in children)
print(run())
"""


@pytest.mark.wide
@compiles
def test_forks_before_jax_has_started(tmp_path):
    """A thread of the parent makes a loop just then: its children wait for none of it."""
    out, _ = python(
        STEP + FORK, {"GRADTX_KERNELS": "native", "GRADTX_CACHE_DIR": str(tmp_path), "XLA_FLAGS": ""}
    )
    lines = out.splitlines()
    assert len(lines) == 4 and len(set(lines)) == 1


@pytest.mark.wide
def test_a_wrong_variable_is_said_at_the_import():
    with pytest.raises(RuntimeError, match="variable GRADTX_KERNELS: there are no kernels 'fast'"):
        python("import gradtx", {"GRADTX_KERNELS": "fast"})
