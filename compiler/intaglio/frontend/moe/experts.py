"""The expert MLPs of a region: pairs of products with constant weights, and what lies before, between and after them.

Experts come one by one (two matrices each) or stacked (one weight [E, ..] for all). What moves tokens about (gathers by
index, reshapes, ..) is passed over: an expert is a function of one token. Whether that is right is proven afterwards
(`prove.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from intaglio.frontend.load import describe
from intaglio.frontend.moe.view import View

PRODUCTS = {"MatMul", "Gemm", "Einsum"}
QDQ = {"QuantizeLinear", "DequantizeLinear"}
MOVES = {
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Identity",
    "Expand",
    "Tile",
    "Slice",
    "Split",
}
TRANSPORT = MOVES | {"Gather", "GatherND", "GatherElements", "Compress"}
"""Ops that copy rows of their first operand."""

PARTING = {"Slice", "Split"}

UNARY = {
    "Abs", "Cast", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg", "Relu",
    "Selu", "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh", *QDQ,
}  # fmt: skip
BINARY = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"}


class NoExpertsError(Exception):
    """Why no mixture of experts is recognised here; of several reasons the one of the highest `rank` is told."""

    def __init__(self, reason: str, rank: int = 0) -> None:
        super().__init__(reason)
        self.rank = rank


@dataclass(frozen=True)
class Product:
    """A product of an activation with a constant: `weight` is the constant tensor, of two or three dimensions.

    `orientations`: the ways to read it as [in, out], of which one is right; True where it is transposed.
    """

    node: onnx.NodeProto
    activation: str
    weight: str
    stacked: bool
    orientations: tuple[bool, ...]


@dataclass(frozen=True)
class Expert:
    """One MLP (or a stack of them): `before`, `between` and `after` hold the elementwise nodes around its products.

    `hidden`: the tensor that the second product reads; `result`: the tensor behind the last node of `after`.
    """

    first: Product
    second: Product
    source: str
    before: list[onnx.NodeProto] = field(repr=False)
    between: list[onnx.NodeProto] = field(repr=False)
    after: list[onnx.NodeProto] = field(repr=False)


def find(view: View, region: list[onnx.NodeProto], known: set[str], count: int) -> list[Expert]:
    """The experts in `region`, in its order: `count` of them, or one that is a stack.

    `known`: tensors that the logits depend on; the experts' input is one of them. Raises NoExpertsError.
    """
    products = {p.node.output[0]: p for node in region if (p := _product(view, node, known, count))}
    if len(products) < 2:
        raise NoExpertsError("no MLPs of experts with constant weights are found between it and its results")
    finder = _Finder(view, products, known)
    experts = [expert for product in products.values() if (expert := finder.expert(product))]
    if not experts:
        reason = finder.reason or "no product of an expert reads that of another"
        raise NoExpertsError(reason, rank=1 + 2 * bool(finder.reason))
    if experts[0].first.stacked:
        return experts[:1]
    if len(experts) != count:
        raise NoExpertsError(
            f"there are {count} gate logits, but {len(experts)} MLPs with constant weights"
            + (f" ({finder.reason})" if finder.reason else ""),
            rank=1,
        )
    return experts


def constant_root(view: View, tensor: str) -> str | None:
    """The constant that `tensor` copies, moved or picked from by index; None if it is computed."""
    while not view.is_constant(tensor):
        node = view.node(tensor)
        if node is None or node.op_type not in TRANSPORT | QDQ | {"Cast"}:
            return None
        tensor = node.input[0]
    return tensor


def _product(view: View, node: onnx.NodeProto, known: set[str], count: int) -> Product | None:
    if node.op_type not in PRODUCTS or node.domain or node.output[0] in known:
        return None
    for index in (1, 0):
        if len(node.input) < 2 or view.is_constant(node.input[1 - index]):
            continue
        root = constant_root(view, node.input[index])
        shape = view.shapes.get(root or "", ())
        direct = root == node.input[index] and node.op_type != "Einsum"
        if root is None or constant_root(view, node.input[1 - index]) is not None:
            continue
        stacked = len(shape) == 3 and shape[0] == count and not (direct and count == 1)
        if not stacked and sum(n > 1 for n in shape) > 2:
            continue
        if stacked or (len(shape) == 2 and direct):
            ways = _ways(node, index) if direct else (False, True)
            return Product(node, node.input[1 - index], root, stacked, ways)
    return None


def _ways(node: onnx.NodeProto, index: int) -> tuple[bool, ...]:
    """How MatMul and Gemm read their constant operand."""
    attributes = {a.name: (a.i, a.f) for a in node.attribute}
    if node.op_type == "Gemm":
        return (bool(attributes.get("transB", (0, 0.0))[0]),)
    return (False,) if index == 1 else (True,)


class _Finder:
    """Walks back from the products. `reason`: why the last pair that looked like an expert is none."""

    def __init__(self, view: View, products: dict[str, Product], known: set[str]) -> None:
        self.view = view
        self.products = products
        self.known = known
        self.reason = ""
        self._split = False

    def expert(self, second: Product) -> Expert | None:
        """The expert whose second product is `second`, if there is one."""
        sources, between = self._back(second.activation)
        firsts = [self.products[name] for name in sources if name in self.products]
        if len(firsts) > 1 or (firsts and self._split):
            self.reason = (
                f"the expert MLP that ends in {describe(second.node)} is gated: it multiplies two products (SwiGLU and "
                "the like), which intaglio does not compute"
            )
            return None
        if len(firsts) != 1 or len(sources) > 1:
            return None
        (first,) = firsts
        starts, before = self._back(first.activation)
        inputs = [tensor for tensor in starts if tensor in self.known]
        if len(starts) != 1 or len(inputs) != 1:
            others = [tensor for tensor in starts if tensor not in self.known and tensor not in self.products]
            if others:
                self.reason = f"{describe(first.node)} reads {others[0]!r}, which is no token as it is"
            return None
        return Expert(first, second, inputs[0], before, _in_order(self.view, between), self._after(second))

    def _back(self, tensor: str) -> tuple[set[str], list[onnx.NodeProto]]:
        """What `tensor` is an elementwise function of, and the nodes of that function."""
        sources, nodes, seen = set[str](), list[onnx.NodeProto](), set[str]()
        self._split = False
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            if name in seen or self.view.is_constant(name) or constant_root(self.view, name) is not None:
                continue
            seen.add(name)
            node = self.view.node(name)
            if node is None or name in self.products or self._is_input(name):
                sources.add(name)
            elif node.op_type in TRANSPORT:
                self._split |= node.op_type in PARTING
                waiting.append(node.input[0])
            elif node.op_type in UNARY | BINARY:
                nodes.append(node)
                waiting.extend(node.input[:1] if node.op_type in UNARY else node.input)
            else:
                sources.add(name)
        return sources, _in_order(self.view, nodes)

    def _is_input(self, name: str) -> bool:
        return name in self.known

    def _after(self, second: Product) -> list[onnx.NodeProto]:
        """Bias and roundings behind the second product, as long as nothing but this expert is in them."""
        nodes = []
        tensor = second.node.output[0]
        while len(readers := self.view.readers(tensor)) == 1 and tensor not in self.view.outputs:
            (node,) = readers
            if node.op_type in QDQ or self._adds_constant(node, tensor):
                nodes.append(node)
            elif node.op_type not in MOVES - PARTING or node.input[0] != tensor:
                break
            tensor = node.output[0]
        return nodes

    def _adds_constant(self, node: onnx.NodeProto, tensor: str) -> bool:
        if node.op_type not in ("Add", "Sub") or (node.op_type == "Sub" and node.input[0] != tensor):
            return False
        (other,) = [name for name in node.input if name != tensor] or [""]
        return bool(other) and constant_root(self.view, other) is not None


def _in_order(view: View, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return sorted(nodes, key=lambda node: view.producer[node.output[0]])


def orientations(expert: Expert) -> Iterator[tuple[bool, bool]]:
    """Every way to read the two weights of `expert` as [in, out]."""
    for first in expert.first.orientations:
        for second in expert.second.orientations:
            yield first, second
