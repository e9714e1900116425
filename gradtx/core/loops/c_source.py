"""Operations on one element as C, and around them the loop over the elements of a leaf."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from gradtx.core.loops.elementwise import FLOATS, Operation, Value

C_TYPES = {
    "float32": "float", "float64": "double", "bfloat16": "float", "float16": "float", "bool": "int32_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""The C type in which an operation has a number; a float of 16 bits is one of 32 that it can be."""

IN_MEMORY = {**C_TYPES, "bfloat16": "bfloat16_t", "float16": "_Float16", "bool": "uint8_t"}
"""The C type of an array's elements."""

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip

OF_C = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf", "exp",
    "exp2", "expm1", "log", "log1p", "pow", "sin", "sinh", "tan", "tanh",
})  # fmt: skip
"""Functions that C has by the same name."""

HANDLER = Path(__file__).with_name("call.c")
"""What XLA calls: it hands parts of the leaves to the threads that XLA has."""

EACH, ONE, BLOCK = "each", "one", "block"
"""Of what an array has a number: of each element of a leaf, of the leaf, or of each block of it."""

MOST_OF_BLOCK, MOST_AXES = 128, 16
"""The most elements of a block, and the most axes of a leaf with blocks: so many are there for in C."""

PLACE = Value("place", "uint32", each=True)
"""Where an element stands in its leaf, counted through all of it."""


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a leaf that a loop takes or makes.

    Attributes:
        dtype: the name of its dtype.
        of: of what it has a number.
    """

    dtype: str
    of: str = EACH


@dataclasses.dataclass(frozen=True)
class InBlocks:
    """What is made in a second pass over the elements of a block.

    Attributes:
        size: what the first pass makes of an element; the largest one of a block decides its scale.
        of_scale: what makes the scale of the largest.
        scale: the scale.
        operations: what makes the code of an element, from its size and the scale.
        code: the code.
        makes: which arrays the codes and the scales go into.
    """

    size: Value
    of_scale: tuple[Operation, ...]
    scale: Value
    operations: tuple[Operation, ...]
    code: Value
    makes: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Body:
    """What a loop does.

    Attributes:
        numbers: the dtype of the vector of numbers, and how many there are.
        shared: the dtypes of numbers that are not in the vector.
        takes: the arrays of a leaf that it takes.
        makes: the arrays that it makes.
        in_place: for each array that it makes, which it takes and is written over; None for none.
        operations: what it does to an element.
        results: what of it goes into the arrays that it makes; None for what a second pass makes.
        in_blocks: what second passes make.
    """

    numbers: tuple[str, int]
    shared: tuple[str, ...]
    takes: tuple[Array, ...]
    makes: tuple[Array, ...]
    in_place: tuple[int | None, ...]
    operations: tuple[Operation, ...]
    results: tuple[Value | None, ...]
    in_blocks: tuple[InBlocks, ...] = ()


def given_values(
    numbers: tuple[str, int], shared: Sequence[str], takes: Sequence[Array]
) -> tuple[list[Value], list[Value], list[Value]]:
    """What the numbers, the shared ones and the elements of arrays are called in a loop."""
    vector = [Value(f"number{i}", numbers[0]) for i in range(numbers[1])]
    others = [Value(f"shared{i}", dtype) for i, dtype in enumerate(shared)]
    return vector, others, [Value(f"a{i}", array.dtype, array.of == EACH) for i, array in enumerate(takes)]


def size_value(i: int, dtype: str) -> Value:
    """What a second pass calls what the first has made of an element."""
    return Value(f"size{i}", dtype, each=True)


def largest_value(i: int, dtype: str) -> Value:
    """What the largest of a block is called."""
    return Value(f"largest{i}", dtype)


def c_source(body: Body) -> str:
    """The C source of a loop and of the function that XLA calls."""
    arrays = (*body.takes, *body.makes)
    head = [
        f"#define NUMBERS {body.numbers[1]}",
        f"#define SHARED {len(body.shared)}",
        f"#define TAKES {len(body.takes)}",
        f"#define MAKES {len(body.makes)}",
        f"#define IN_BLOCKS {int(bool(body.in_blocks))}",
        f"#define MOST_OF_BLOCK {MOST_OF_BLOCK}",
        f"#define MOST_AXES {MOST_AXES}",
        f"typedef {C_TYPES[body.numbers[0]]} number_t;",
        f"#define WIDTHS {', '.join(f'sizeof({IN_MEMORY[array.dtype]})' for array in arrays)}",
        f"#define KINDS {', '.join(array.of.upper() for array in arrays)}",
    ]
    loop = "\n".join(_Writer(body).loop())
    return "\n".join([*head, HANDLER.read_text().replace("/* LOOP */", loop)])


class _Writer:
    """The lines of a loop."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.pointers: list[str] = []
        """What is there once for all elements of a leaf."""
        self.numbers: list[str] = []
        """What is the same for all elements, or for those of a block."""
        self.loads: list[str] = []
        """What is loaded for each."""
        self.names = self._arrays()

    def _arrays(self) -> list[str]:
        """The names of the pointers of what is made; one pointer for what is read and written."""
        body = self.body
        for i in range(body.numbers[1]):
            self.numbers.append(f"{C_TYPES[body.numbers[0]]} number{i} = numbers[{i}];")
        for i, dtype in enumerate(body.shared):
            self._load(self.numbers, dtype, f"shared{i}", f"*(const {IN_MEMORY[dtype]} *)shared[{i}]")
        written = {taken: made for made, taken in enumerate(body.in_place) if taken is not None}
        for i, array in enumerate(body.takes):
            at = len(body.takes) + written[i] if i in written else i
            self.pointers.append(f"{IN_MEMORY[array.dtype]} *restrict array{i} = arrays[{at}];")
            index = {EACH: "[i]", ONE: "[0]", BLOCK: "[block]"}[array.of]
            lines = self.loads if array.of == EACH else self.numbers
            self._load(lines, array.dtype, f"a{i}", f"array{i}{index}")
        names = []
        for i, (array, taken) in enumerate(zip(body.makes, body.in_place, strict=True)):
            names.append(f"made{i}" if taken is None else f"array{taken}")
            if taken is None:
                kind = IN_MEMORY[array.dtype]
                self.pointers.append(f"{kind} *restrict made{i} = arrays[{len(body.takes) + i}];")
        return names

    def _load(self, lines: list[str], dtype: str, name: str, element: str) -> None:
        lines.append(f"{C_TYPES[dtype]} {name} = {_loaded(dtype, element)};")

    def loop(self) -> list[str]:
        """The function that goes over some elements, or some blocks, of one leaf."""
        once, inside = self._split(self.body.operations)
        for i, result in enumerate(self.body.results):
            if result is not None:
                inside.append(f"{self.names[i]}[i] = {_stored(self.body.makes[i].dtype, _term(result))};")
        each = ["uint32_t place = (uint32_t)i;", *self.loads, *inside]
        head = [
            "static void loop(const number_t *numbers, void *const *shared, void *const *arrays,",
            "                 const Shape *shape, int64_t start, int64_t stop) {",
            *self.pointers,
        ]
        if not self.body.in_blocks:
            return [*head, *self.numbers, *once, *_for("int64_t i = start; i < stop; i++", each), "}"]
        # Sizes are kept from the first pass over a block for the second one.
        sizes, finish, second = [], [], []
        for k, part in enumerate(self.body.in_blocks):
            kind = C_TYPES[part.size.dtype]
            sizes.append(f"{kind} sizes{k}[MOST_OF_BLOCK];")
            each.append(f"sizes{k}[j + k] = {_term(part.size)};")
            bits = "64" if part.size.dtype == "float64" else "32"
            finish.append(f"{kind} largest{k} = largest_{bits}(sizes{k}, shape->elements);")
            finish += [_statement(x) for x in part.of_scale]
            codes, scales = part.makes
            finish.append(f"{self.names[scales]}[block] = {_term(part.scale)};")
            own, coded = self._split(part.operations)
            finish += own
            second += [f"{kind} size{k} = sizes{k}[j + k];", *coded]
            second.append(
                f"{self.names[codes]}[i] = {_stored(self.body.makes[codes].dtype, _term(part.code))};"
            )
        again = ["int64_t i = rows[row] + k;", "uint32_t place = (uint32_t)i;", *second]
        rows = "int64_t row = 0, j = 0; row < count; row++, j += width"
        along = "int64_t k = 0; k < width; k++"
        block = [
            "int64_t width, count = rows_of(shape, block, rows, &width);",
            *self.numbers,
            *once,
            *_for(rows, _for(along, ["int64_t i = rows[row] + k;", *each]), free=False),
            *finish,
            *_for(rows, _for(along, again), free=False),
        ]
        over = _for("int64_t block = start; block < stop; block++", block, free=False)
        return [*head, "int64_t rows[MOST_OF_BLOCK];", *sizes, *over, "}"]

    @staticmethod
    def _split(operations: Sequence[Operation]) -> tuple[list[str], list[str]]:
        """What is done once, and what to each element."""
        once = [_statement(x) for x in operations if not x.gives.each]
        return once, [_statement(x) for x in operations if x.gives.each]


def _for(head: str, lines: Sequence[str], *, free: bool = True) -> list[str]:
    """A loop; in a free one no element waits for those before it."""
    start = ["#pragma GCC ivdep"] if free else []
    return [*start, f"for ({head}) {{", *(f"  {line}" for line in lines), "}"]


def _loaded(dtype: str, element: str) -> str:
    return {"bfloat16": f"widened({element})", "float16": f"(float)({element})"}.get(dtype, element)


def _stored(dtype: str, value: str) -> str:
    return {"bfloat16": f"narrowed({value})", "float16": f"(_Float16)({value})"}.get(dtype, value)


def _rounded(dtype: str, value: str) -> str:
    """What an operation on floats of 16 bits makes, computed in 32."""
    return {"bfloat16": f"widened(narrowed({value}))", "float16": f"(float)(_Float16)({value})"}.get(
        dtype, value
    )


def _term(value: Value) -> str:
    if value.name:
        return value.name
    x, kind = value.constant, C_TYPES[value.dtype]
    if value.dtype not in FLOATS:
        x = int(x)
        if x == -(2**63):
            return "INT64_MIN"
        return f"(({kind}){x}{'ull' if x >= 2**63 else 'll'})"
    if math.isnan(x):
        return f"(({kind})NAN)"
    if math.isinf(x):
        return f"(({kind}){'-' if x < 0 else ''}INFINITY)"
    return f"(({kind}){float(x).hex()})"


def _statement(operation: Operation) -> str:
    gives = operation.gives
    terms = [_term(x) for x in operation.takes]
    kind = C_TYPES[gives.dtype]
    made = _expression(operation, terms)
    return f"{kind} {gives.name} = {_rounded(gives.dtype, f'({kind})({made})')};"


def _expression(operation: Operation, terms: list[str]) -> str:
    name, takes, gives = operation.primitive, operation.takes, operation.gives
    of, said = takes[-1].dtype, dict(operation.said)
    suffix = "" if of == "float64" else "f"
    x = terms[0]
    if name in INFIX:
        return f"{x} {INFIX[name]} {terms[1]}"
    if name in ("max", "min"):
        return _extreme(name, takes, terms)
    if name == "clamp":
        low, mid, high = takes
        least = _extreme("max", (low, mid), terms[:2])
        return _extreme("min", (Value("?", of), high), [f"({least})", terms[2]])
    if name == "select_n":
        return f"{x} ? {terms[2]} : {terms[1]}"
    if name in ("floor", "ceil"):
        return f"__builtin_{name}{suffix}({x})"
    if name == "round":
        return f"__builtin_{'rint' if said['rounding_method'] else 'round'}{suffix}({x})"
    if name in OF_C:
        return f"{name}{suffix}({', '.join(terms)})"
    if name == "convert_element_type":
        return _converted(x, takes[0].dtype, gives.dtype)
    if name == "bitcast_convert_type":
        return _same_bits(x, takes[0].dtype, gives.dtype)
    if name == "integer_pow":
        return _power(x, said["y"], gives.dtype)
    if name in ("shift_left", "shift_right_logical", "shift_right_arithmetic"):
        return _shifted(name, of, *terms)
    return {
        "abs": f"__builtin_fabs{suffix}({x})" if of in FLOATS else f"{x} < 0 ? -{x} : {x}",
        "is_finite": f"{x} - {x} == 0",
        "logistic": f"1 / (1 + exp{suffix}(-{x}))",
        "neg": f"-{x}",
        "not": f"!{x}" if of == "bool" else f"~{x}",
        "rsqrt": f"1 / __builtin_sqrt{suffix}({x})",
        "sign": f"{x} > 0 ? 1 : {x} < 0 ? -1 : {x} * 0",
        "sqrt": f"__builtin_sqrt{suffix}({x})",
        "square": f"{x} * {x}",
    }[name]


def _extreme(name: str, takes: Sequence[Value], terms: Sequence[str]) -> str:
    """The larger or the smaller of two: NaN if one is, and of the two zeros the one with the right sign."""
    a, b = terms
    sign = ">" if name == "max" else "<"
    if takes[0].dtype not in FLOATS:
        return f"{a} {sign} {b} ? {a} : {b}"
    if any(not x.name and x.constant != 0 for x in takes):
        return f"({a} {sign} {b}) | ({a} != {a}) ? {a} : {b}"
    return f"{name}_{'64' if takes[0].dtype == 'float64' else '32'}({a}, {b})"


def _converted(x: str, before: str, after: str) -> str:
    if after == "bool":
        return f"{x} != 0"
    if before in FLOATS and after not in FLOATS:
        return f"{after}_of_{'64' if before == 'float64' else '32'}({x})"
    return x


def _same_bits(x: str, before: str, after: str) -> str:
    sixteen = {"bfloat16": f"narrowed({x})", "float16": f"bits_of_float16({x})"}.get(before)
    if sixteen is not None:
        return sixteen if after not in FLOATS else _from_bits(sixteen, after)
    if before in FLOATS and after in FLOATS:
        return x
    if before in FLOATS:
        return f"bits_of_{'64' if before == 'float64' else '32'}({x})"
    return _from_bits(x, after)


def _from_bits(x: str, after: str) -> str:
    if after == "bfloat16":
        return f"widened((bfloat16_t)({x}))"
    if after == "float16":
        return f"float16_of_bits({x})"
    return {"float64": f"of_bits_64({x})", "float32": f"of_bits_32({x})"}.get(after, x)


def _power(x: str, y: int, dtype: str) -> str:
    """A whole power by repeated squares, in the order in which JAX multiplies, each product rounded."""
    if y == 0:
        return "1"
    left, factor, made = abs(y), x, ""
    while left:
        if left & 1:
            made = _rounded(dtype, f"({made} * {factor})") if made else factor
        left >>= 1
        factor = _rounded(dtype, f"({factor} * {factor})")
    return f"1 / {made}" if y < 0 else made


def _shifted(name: str, dtype: str, x: str, by: str) -> str:
    """A shift, of which XLA says what it is if it is by all bits or more."""
    bits = int("".join(c for c in dtype if c.isdigit()))
    unsigned, kind = f"uint{bits}_t", C_TYPES[dtype]
    inside = f"({unsigned}){by} < {bits}"
    if name == "shift_right_arithmetic":
        return f"(int{bits}_t){x} >> ({inside} ? {by} : {bits - 1})"
    sign = "<<" if name == "shift_left" else ">>"
    return f"{inside} ? ({kind})(({unsigned}){x} {sign} {by}) : 0"
