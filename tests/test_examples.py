"""Examples that take seconds, run smaller than they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import gradtx

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def as_users_run_them(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.wide
@pytest.mark.usefixtures("as_users_run_them")
def test_fine_tuning_is_far_above_chance_and_a_frozen_body_costs_no_state():
    import finetune

    results = finetune.compare(draws=1)
    scratch, whole = results.pop("from scratch")
    assert all(score > max(0.7, scratch) for score, _ in results.values())
    head = (64 * 10 + 10) * 4
    assert results["head alone"][1] == 2 * head < whole == results["head and slow body"][1]


@pytest.mark.wide
@pytest.mark.usefixtures("as_users_run_them")
def test_the_language_model_takes_its_optimizer_from_a_file(monkeypatch, tmp_path, capsys):
    import train_lm
    from transformer import DECAYED

    def parse(*arguments):
        monkeypatch.setattr("sys.argv", ["train_lm.py", *map(str, arguments)])
        return train_lm.parse()

    given = parse("--config", EXAMPLES / "run.toml", "--guard")
    given = {name: given[name] for name in ("config", "guard")}
    tx = train_lm.make_optimizer(train_lm.Settings(**given))
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 2e-3, 100, 1_400)
    adamw = gradtx.adamw(schedule, b2=0.95, weight_decay=0.1, mask=DECAYED)
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), adamw)
    assert tx == gradtx.guard(gradtx.track(clipped, every=10))
    assert train_lm.rate_of(tx.init({"kernel": jax.numpy.ones(1), "bias": jax.numpy.ones(1)})) == 0.0
    assert train_lm.Settings(**json.loads(json.dumps(given))).config == given["config"]

    def wrong(text):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return ["--config", path]

    schedule = 'call = "linear_schedule"\ninit_value = 1.0\nend_value = 0.0\ntransition_steps = 3'
    misspelt = 'call = "adamw"\n[learning_rate]\ncall = "constant_schedule"\nrate = 1.0'
    for arguments, words in [
        (wrong(misspelt), "0.toml: learning_rate.rate: constant_schedule has no argument 'rate'"),
        (wrong(schedule), "1.toml: it has a schedule, which belongs into a transform"),
        (wrong('call = "adamw"\nlearning_rate = 0.1\nmask = 3'), "the mask at"),
        (wrong('call = "scale_by_adam"'), "3.toml: error, ascent: the update goes up the gradient"),
        (["--config", tmp_path / "none.toml"], "none.toml"),
        (["--config", EXAMPLES / "run.toml", "--learning-rate", "1"], "--learning-rate: set it in the file"),
    ]:
        with pytest.raises(SystemExit):
            parse(*arguments)
        assert words in capsys.readouterr().err


@pytest.mark.wide
@pytest.mark.usefixtures("as_users_run_them")
def test_the_language_model_keeps_weights_and_state_as_its_precision_says(monkeypatch):
    import train_lm

    monkeypatch.setattr("sys.argv", ["train_lm.py", "--precision", "7-bytes"])
    assert train_lm.parse()["precision"] == "7-bytes"

    def kept(mode):
        settings = train_lm.Settings(precision=mode)
        params = jax.eval_shape(lambda: train_lm.model(0, train_lm.PRECISIONS[mode][0])[1])
        state = jax.eval_shape(train_lm.make_optimizer(settings).init, params)
        # The embedding alone has 256 x 128 elements, and so the slots that are beside it.
        found = [x.dtype.name for x in jax.tree.leaves((params, state)) if x.shape == (256, 128)]
        return {name: found.count(name) for name in found}

    assert kept("f32") == {"float32": 3}
    assert kept("bf16-nearest") == {"bfloat16": 1, "float32": 2}
    assert kept("bf16") == {"bfloat16": 3}
    assert kept("8bit") == {"float32": 1, "int8": 1, "uint8": 1}
    assert kept("7-bytes") == {"bfloat16": 1, "int8": 2, "uint8": 1}


def in_processes(script, *arguments):
    """What a script prints that starts processes of its own; all compile in the quickest way, as tests do."""
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.wide
@pytest.mark.parametrize(
    "mode",
    [pytest.param(m, marks=() if m == "fsdp" else pytest.mark.full) for m in ("zero1", "fsdp", "muon")],
)
def test_four_processes_have_the_losses_of_one_and_one_goes_on_where_they_stopped(mode, tmp_path):
    script, one, four = EXAMPLES / "train_distributed.py", tmp_path / "one", tmp_path / "four"
    small = ["--mode", mode, "--width", 32, "--layers", 1, "--context", 32, "--batch-size", 8, "--steps", 8]
    in_processes(script, *small, "--out", one)
    expected = one / "losses.json"
    said = in_processes(
        script, *small, "--processes", 4, "--stop-after", 6, "--out", four, "--expect", expected
    )
    assert "4 processes, 4 devices (cpu)" in said
    assert f"the losses of 6 steps differ from {expected}" in said
    if mode != "fsdp":  # in CI two runs are enough
        said = in_processes(script, "--resume", "--devices", 2, "--out", four, "--expect", expected)
        assert "resuming at step 6" in said and "the losses of 8 steps differ" in said
    losses = json.loads((four / "losses.json").read_text())["losses"]
    assert losses == sorted(losses, reverse=True) and losses[0] == pytest.approx(5.545, abs=1e-3)


@pytest.mark.wide
def test_of_equal_gradients_four_processes_make_the_update_of_one(tmp_path):
    script = Path(__file__).with_name("distributed_update.py")
    in_processes(script, "--processes", 1, "--devices", 4, "--out", tmp_path)
    said = in_processes(script, "--processes", 4, "--expect", tmp_path / "update.npz")
    assert re.findall(r"(\w+): \d+ shards of 4 processes, 4 devices are equal", said) == [
        "zero1",
        "fsdp",
        "muon",
    ]


@pytest.mark.wide
@pytest.mark.usefixtures("as_users_run_them")
def test_the_distributed_example_says_what_is_wrong_before_there_are_processes(monkeypatch, capsys):
    import socket

    import train_distributed

    def refused(*arguments):
        monkeypatch.setattr("sys.argv", ["train_distributed.py", *arguments])
        with pytest.raises(SystemExit) as raised:
            train_distributed.main()
        return f"{raised.value} {capsys.readouterr().err}"

    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        where = f"localhost:{taken.getsockname()[1]}"
        for arguments, words in [
            (["--mode", "zero3"], "invalid choice: 'zero3'"),
            (["--processes", "3"], "a batch of 32 windows cannot be split over 3 devices"),
            (
                ["--processes", "3", "--mode", "muon", "--model", "2"],
                "--model 2 does not divide the 3 devices",
            ),
            (["--processes", "2", "--mode", "fsdp", "--model", "2"], "--model is for --mode muon"),
            (["--processes", "2", "--coordinator", where], f"{where}: the port is in use"),
            (["--processes", "2", "--coordinator", "12345"], "must be HOST:PORT"),
            (["--width", "30"], "must be a multiple of 8"),
            (["--cluster", "--processes", "2"], "leave out --processes"),
            (["--expect", "none.json"], "there is no file none.json"),
        ]:
            assert words in refused(*arguments)
