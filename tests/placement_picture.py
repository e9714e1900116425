"""Who keeps what on four devices, in each mode, as `gradtx` places it: writes docs/placement.svg.

python tests/placement_picture.py
"""

import dataclasses
from pathlib import Path

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

TARGET = Path(__file__).parents[1] / "docs" / "placement.svg"
COLOURS = "#0072b2", "#d55e00", "#009e73", "#aa4499"
SIDE, GAP, COLUMN, LEFT = 34, 7, 192, 122  # a square, what is between two, a mode, the names of the rows
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 15px; font-weight: 600 }
.code { font: 12px ui-monospace, monospace }
.soft { fill: #59636e }
.letter { font-weight: 600; fill: #ffffff; text-anchor: middle }
.sheet { fill: #ffffff; stroke: #d1d9e0 }
.box { fill: #eff2f5; stroke: #818b98 }
.line { stroke: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .soft { fill: #9198a1 }
  .sheet { fill: #0d1117; stroke: #3d444d }
  .box { fill: #212830; stroke: #656c76 }
  .line { stroke: #3d444d }
}
"""


@dataclasses.dataclass(frozen=True)
class Mode:
    """A column: what it is called, how a parameter is sharded on which mesh, the optimizer, what moves."""

    name: str
    code: str
    mesh: tuple[tuple[str, int], ...]
    spec: PartitionSpec
    optimizer: str
    of_model: tuple[str, ...]
    of_step: tuple[str, ...]


MODES = (
    Mode(
        "data parallel",
        "adamw(...)",
        (("data", 4),),
        PartitionSpec(),
        "adamw",
        ("gradients, summed:", "all-reduce"),
        ("nothing",),
    ),
    Mode(
        "ZeRO-1",
        "shard_state(adamw(...))",
        (("data", 4),),
        PartitionSpec(),
        "shard_state",
        ("gradients, summed:", "reduce-scatter"),
        ("parameters: all-gather",),
    ),
    Mode(
        "FSDP",
        "adamw(...)",
        (("data", 4),),
        PartitionSpec("data"),
        "adamw",
        ("parameters: all-gather", "gradients, summed:", "reduce-scatter"),
        ("nothing",),
    ),
    Mode(
        "Muon, 2 x 2 devices",
        "muon(...)",
        (("data", 2), ("model", 2)),
        PartitionSpec("data", "model"),
        "muon",
        ("as FSDP along “data”,", "and activations", "along “model”"),
        ("matrices, to whole", "ones and back:", "all-to-all"),
    ),
)


def placed(mode):
    """The mesh, and how parameters, gradients and state of a matrix are sharded on it."""
    names, sizes = zip(*mode.mesh, strict=True)
    mesh = jax.make_mesh(sizes, names, (AxisType.Auto,) * len(names), devices=jax.devices()[:4])
    whole = {"kernel": jax.ShapeDtypeStruct((8, 8), "float32")}
    tx = {
        "adamw": lambda: gradtx.adamw(1e-3),
        "shard_state": lambda: gradtx.shard_state(gradtx.adamw(1e-3), mesh, "data", min_size=0),
        "muon": lambda: gradtx.scale_by_muon(weight_dimension_numbers=gradtx.matrix_view("rc")),
    }[mode.optimizer]()
    own = NamedSharding(mesh, mode.spec)
    state = gradtx.state_sharding(tx, whole, mode.spec, mesh)
    of_state = next(
        s
        for path, s in jax.tree_util.tree_leaves_with_path(state)
        if jax.tree_util.keystr(path).endswith("['mu']['kernel']")
    )
    # What is summed over the devices goes to where the state is.
    return mesh, {"parameters": own, "gradients": of_state, "optimizer state": of_state}


def parts_of(mesh, sharding):
    """For each device rows and columns of its part of a matrix of 8 x 8."""
    found = sharding.devices_indices_map((8, 8))
    return [[range(8)[one] for one in found[device]] for device in mesh.devices.flat]


def squares(x, y, parts):
    """Four matrices beside each other, of each the part that one device has."""
    lines, unit = [], SIDE / 8
    for i, (rows, columns) in enumerate(parts):
        left = x + i * (SIDE + GAP)
        inside = (left + columns.start * unit, y + rows.start * unit, len(columns) * unit, len(rows) * unit)
        lines.append(f'<rect class="box" x="{left}" y="{y}" width="{SIDE}" height="{SIDE}" rx="2"/>')
        lines.append(
            '<rect x="{:g}" y="{:g}" width="{:g}" height="{:g}" rx="1.5" fill="{}"/>'.format(
                *inside, COLOURS[i]
            )
        )
    return lines


def text(x, y, words, kind=""):
    return f'<text x="{x:g}" y="{y:g}"{kind and f" class={chr(34)}{kind}{chr(34)}"}>{words}</text>'


def draw():
    """The picture, as SVG."""
    width, height = LEFT + 4 * COLUMN + 6, 494
    rows = {"parameters": 96, "gradients": 158, "optimizer state": 220, "a device updates": 282}
    title = "Who keeps what on four devices: data parallel, ZeRO-1, FSDP, and Muon on a mesh of two axes"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{title}">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="sheet" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
    ]
    for name, y in rows.items():
        out.append(text(14, y + SIDE / 2 + 4, name))
    out.append(text(14, 366, "the model moves"))
    out.append(text(14, 440, "the step moves"))
    for y in (346, 420):
        out.append(f'<line class="line" x1="14" x2="{width - 14}" y1="{y}" y2="{y}"/>')
    for column, mode in enumerate(MODES):
        x = LEFT + column * COLUMN + 14
        mesh, places = placed(mode)
        out += [text(x, 30, mode.name, "head"), text(x, 50, mode.code, "code soft")]
        for i in range(4):
            out.append(
                f'<text x="{x + i * (SIDE + GAP) + SIDE / 2:g}" y="82" text-anchor="middle" '
                f'style="fill:{COLOURS[i]};font-weight:600">{i}</text>'
            )
        for name, sharding in places.items():
            out += squares(x, rows[name], parts_of(mesh, sharding))
        y = rows["a device updates"]
        if mode.optimizer == "muon":
            out += squares(x, y, [[range(8), range(8)]] * 4)
            for i in range(4):
                out.append(text(x + i * (SIDE + GAP) + SIDE / 2, y + SIDE / 2 + 5, f"W{i + 1}", "letter"))
            said = "a whole matrix of four"
        else:
            out += squares(x, y, parts_of(mesh, places["optimizer state"]))
            said = "what it keeps the state of"
        out.append(text(x, y + SIDE + 18, said, "soft"))
        for y, words in ((366, mode.of_model), (440, mode.of_step)):
            out += [text(x, y + 18 * i, line) for i, line in enumerate(words)]
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4)
    TARGET.write_text(draw())
    print(f"docs/{TARGET.name}")
