"""Examples that take seconds, run smaller than they are."""

import json
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
