"""Record what others' QK-clip does to weights: `qk_clip.npz`.

    pip install torch==2.13.0 numpy==2.4.6
    python tests/golden/make_qk_clip.py torch FOLDER
    pip install jax==0.10.2 numpy==2.4.6
    python tests/golden/make_qk_clip.py jax FOLDER

Either adds its cases to the file. FOLDER has a folder `OWNER+NAME` for each repository of `COMMITS`, at that
commit. Nothing else is needed: of Megatron-LM the methods alone are run, and what MaxText's module imports
beside jax is replaced by an empty module.

Needed only to record anew: the tests read the file. It has, below `CASE/`, `max_logits` of the query heads,
weights as (inputs, heads, size of a head) and, with `_new` at the end, the weights after, all in float64.
`golden.load_qk_clip` reads it, and `golden.QK_CASES` says each case in this library's words.
"""

import ast
import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "qk_clip.npz"

COMMITS = {
    "NVIDIA+Megatron-LM": "d98e8a64ddf34856e74b24714e3bedb2f5a39553",
    "AI-Hypercomputer+maxtext": "e591f30cbbf217ed67ef71263ec0538239f9c3b8",
    "casinca+LLM-quest": "e7ab4635c5f447ae93bf8f536625d81e9700e485",
}

# Case: whose code, and its numbers.
CASES = {
    "megatron_mha": ("megatron", {"heads": 3, "groups": 3, "tau": 10.0, "alpha": 0.5}),
    "megatron_gqa": ("megatron", {"heads": 4, "groups": 2, "tau": 10.0, "alpha": 0.3}),
    "megatron_mla": ("megatron_mla", {"heads": 3, "tau": 10.0, "alpha": 0.5}),
    "megatron_mla_alpha": ("megatron_mla", {"heads": 3, "tau": 10.0, "alpha": 0.3}),
    "llm_quest_gqa": ("llm_quest", {"heads": 4, "groups": 2, "tau": 10.0, "alpha": 0.3}),
    "maxtext_mla": ("maxtext", {"heads": 3, "tau": 10.0, "alpha": 0.5}),
}
# A head: without rotation, rotated, of a value; the inputs.
NOPE, ROPE, VALUE, INPUTS = 4, 2, 5, 6


def first_weights(case: str) -> dict:
    """Weights of one layer, (inputs, heads, size of a head), and the largest logits of its heads."""
    kind, numbers = CASES[case]
    heads, groups = numbers["heads"], numbers.get("groups", numbers["heads"])
    rng = np.random.default_rng(1)
    sizes = {"query": (heads, NOPE), "key": (groups, NOPE), "value": (groups, VALUE)}
    if "groups" not in numbers:
        sizes["rotary_query"] = (heads, ROPE)
    elif kind == "megatron":
        sizes["value"] = (groups, NOPE)
    weights = {name: rng.normal(size=(INPUTS, *size)) for name, size in sizes.items()}
    return weights | {"max_logits": np.array([25.0, 8.0, 160.0, 10.5][:heads])}


def of_torch(weight: np.ndarray) -> np.ndarray:
    """(inputs, heads, size) as torch has it: (heads * size, inputs)."""
    return weight.reshape(len(weight), -1).T.copy()


def back(weight: np.ndarray, heads: int) -> np.ndarray:
    return weight.T.reshape(weight.shape[1], heads, -1)


def load(folder: Path, where: str, package: str, name: str):
    """A module of a folder, of whose package nothing else is run."""
    parent = types.ModuleType(package)
    parent.__path__ = [str(folder / where)]
    sys.modules[package] = parent
    return importlib.import_module(f"{package}.{name}")


def empty_module(name: str, **contents) -> None:
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    vars(sys.modules[name]).update(contents)


def methods(path: Path, kind: str, names: tuple, globals_: dict) -> dict:
    """Methods of a class in a file, of which nothing else is run."""
    tree = ast.parse(path.read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind]
    wanted = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert len(wanted) == len(names)
    space = dict(globals_)
    exec(compile(ast.Module(wanted, type_ignores=[]), str(path), "exec"), space)
    return {name: space[name] for name in names}


def clip_megatron(folder: Path, weights: dict, heads: int, tau: float, alpha: float, groups=None) -> dict:
    import torch

    place = folder / "NVIDIA+Megatron-LM" / "megatron/core/transformer"
    mla = groups is None
    if mla:
        names = ("clip_qk", "_clip_q_proj_weight", "_clip_kv_proj_weight")
        found = methods(place / "multi_latent_attention.py", "MLASelfAttention", names, {"torch": torch})
    else:
        found = methods(
            place / "attention.py", "SelfAttention", ("clip_qk", "_clip_linear_qkv"), {"torch": torch}
        )

    def linear(*blocks):
        """Of each head the blocks one after another."""
        together = np.concatenate([x.reshape(INPUTS, groups or heads, -1) for x in blocks], axis=2)
        weight = torch.nn.Parameter(torch.tensor(of_torch(together)))
        return types.SimpleNamespace(weight=weight)

    layer = types.SimpleNamespace(
        config=types.SimpleNamespace(
            qk_clip=True,
            qk_clip_threshold=tau,
            qk_clip_alpha=alpha,
            q_lora_rank=INPUTS,
            qk_head_dim=NOPE,
            qk_pos_emb_head_dim=ROPE,
            v_head_dim=VALUE,
        ),
        core_attention=types.SimpleNamespace(current_max_attn_logits=torch.tensor(weights["max_logits"])),
        cache_mla_latents=False,
        num_attention_heads_per_partition=heads,
        num_query_groups_per_partition=groups,
        query_projection_size=heads * NOPE,
        kv_projection_size=(groups or heads) * NOPE,
    )
    for name, function in found.items():
        setattr(layer, name, types.MethodType(function, layer))
    if mla:
        layer.linear_q_up_proj = linear(weights["query"], weights["rotary_query"])
        layer.linear_kv_up_proj = linear(weights["key"], weights["value"])
    else:
        layer.linear_qkv = linear(weights["query"], weights["key"], weights["value"])
    layer.clip_qk()
    assert layer.core_attention.current_max_attn_logits is None

    def split(module, *sizes):
        return np.split(back(module.weight.detach().numpy(), groups or heads), np.cumsum(sizes), axis=2)

    if mla:
        query, rotary_query = split(layer.linear_q_up_proj, NOPE)
        key, value = split(layer.linear_kv_up_proj, NOPE)
        return {"query": query, "rotary_query": rotary_query, "key": key, "value": value}
    query, key, value = split(layer.linear_qkv, heads // groups * NOPE, NOPE)
    return {"query": query.reshape(INPUTS, heads, NOPE), "key": key, "value": value}


def clip_llm_quest(folder: Path, weights: dict, heads: int, groups: int, tau: float, alpha: float) -> dict:
    import torch

    module = load(folder, "casinca+LLM-quest/llm_quest/common", "llm_quest_common", "qk_clip")
    attention = types.SimpleNamespace(num_heads=heads, num_kv_groups=groups)
    for name, key in (("w_queries", "query"), ("w_keys", "key")):
        setattr(attention, name, types.SimpleNamespace(weight=torch.tensor(of_torch(weights[key]))))
    model = types.SimpleNamespace(trf_blocks=[types.SimpleNamespace(att=attention)])
    module.QKClip(tau, alpha)(model, [torch.tensor(weights["max_logits"])])
    return {
        "query": back(attention.w_queries.weight.numpy(), heads),
        "key": back(attention.w_keys.weight.numpy(), groups),
        "value": weights["value"],
    }


def clip_maxtext(folder: Path, weights: dict, heads: int, tau: float, alpha: float) -> dict:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    empty_module("flax", nnx=None)
    module = load(folder, "AI-Hypercomputer+maxtext/src/maxtext/utils", "maxtext_utils", "qk_clip_utils")
    together = {
        "wq_b": np.concatenate([weights["query"], weights["rotary_query"]], axis=2),
        "wkv_b": np.concatenate([weights["key"], weights["value"]], axis=2),
    }
    params = {"layer": {name: {"kernel": jnp.asarray(x)} for name, x in together.items()}}
    state = types.SimpleNamespace(params=params, replace=lambda params: params)
    # Of two sequences in the batch.
    logits = jnp.stack([weights["max_logits"], weights["max_logits"] - 3.0])
    config = types.SimpleNamespace(attention_type="mla", qk_clip_threshold=tau, qk_nope_head_dim=NOPE)
    new = module.apply_qk_clip(state, {"layer": {"max_logits": (logits,)}}, config)["layer"]
    query, rotary_query = np.split(np.asarray(new["wq_b"]["kernel"]), [NOPE], axis=2)
    key, value = np.split(np.asarray(new["wkv_b"]["kernel"]), [NOPE], axis=2)
    return {"query": query, "rotary_query": rotary_query, "key": key, "value": value}


CLIPS = {
    "megatron": ("torch", clip_megatron),
    "megatron_mla": ("torch", clip_megatron),
    "llm_quest": ("torch", clip_llm_quest),
    "maxtext": ("jax", clip_maxtext),
}


def record(library: str, folder: Path) -> dict:
    made = {}
    for case, (kind, numbers) in CASES.items():
        where, clip = CLIPS[kind]
        if where == library:
            given = first_weights(case)
            new = clip(folder, given, **numbers)
            made |= {f"{case}/{name}": x for name, x in given.items()}
            made |= {f"{case}/{name}_new": x for name, x in new.items()}
    return made


def main(library: str, folder: str) -> None:
    before = dict(np.load(FILE)) if FILE.exists() else {}
    about = json.loads(str(before.pop("about", "{}")))
    versions = {library: importlib.import_module(library).__version__, "numpy": np.__version__}
    about |= {"commits": COMMITS, **versions}
    arrays = before | record(library, Path(folder).resolve())
    np.savez_compressed(FILE, about=json.dumps(about), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
