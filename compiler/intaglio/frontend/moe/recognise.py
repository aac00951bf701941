"""Find mixtures of experts in an ONNX graph and write each as one `mixture.py` node over ordinary MLPs.

From every TopK: the logits are behind it, the result is one of the single tensors through which the rest of the graph
sees it, the experts are the MLPs in between. How the tokens get to their experts and back is not read at all: what is
taken for a mixture must compute the same on random inputs (`prove.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx
from onnx import numpy_helper

from intaglio.errors import UnsupportedError
from intaglio.frontend.load import describe
from intaglio.frontend.moe import mixture, prove
from intaglio.frontend.moe.build import Block, Replacement, build
from intaglio.frontend.moe.experts import MOVES, QDQ, Expert, NoExpertsError, find, orientations
from intaglio.frontend.moe.view import View
from intaglio.frontend.simplify import simplify

HARMLESS = MOVES | {"Cast", "ArgMax", "Gather"}
"""What may follow a TopK that ends a model: its results are what is asked for."""

ALONE = 30.0
"""A logit so far above others at 0 that theirs do not count."""


def has_topk(model: onnx.ModelProto) -> bool:
    """Whether there is anything to look at."""
    return any(node.op_type == "TopK" for node in model.graph.node)


def recognise_moe(model: onnx.ModelProto, batch: int = 1) -> onnx.ModelProto:
    """Rewrite the mixtures of experts of `model` (standard ONNX), in place.

    Raises UnsupportedError that names the TopK and says why it is none, where experts' results depend on one.
    """
    if not has_topk(model):
        return model
    simplify(model, batch, dynamic=True)
    while (found := _next(model)) is not None:
        _replace(model, *found)
        simplify(model, batch, dynamic=True)  # shapes behind it are known now
    return mixture.declare(model)


def _next(model: onnx.ModelProto) -> tuple[Block, Replacement] | None:
    """The first mixture, with what replaces it."""
    view = View(model)
    for node in view.nodes:
        if node.op_type == "TopK" and not node.domain and not _ends_model(view, node):
            return _Search(view, node).run()
    return None


def _ends_model(view: View, node: onnx.NodeProto) -> bool:
    """Whether the graph's outputs are all that the results of `node` are for."""
    waiting = [name for name in node.output if name]
    while waiting:
        for reader in view.readers(waiting.pop()):
            if reader.op_type not in HARMLESS:
                return False
            waiting.extend(reader.output)
    return True


def _replace(model: onnx.ModelProto, block: Block, new: Replacement) -> None:
    """Put the new nodes where the output was computed; what nothing reads any more goes."""
    nodes = []
    for node in model.graph.node:
        if block.output not in node.output:
            nodes.append(node)
            continue
        nodes.extend(new.nodes)
    live, wanted = [], {value.name for value in model.graph.output}
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(prove.names(node))
            live.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(live[::-1])
    model.graph.initializer.extend(new.constants)
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name not in wanted:
            del model.graph.initializer[index]


@dataclass
class _Search:
    """The search from one TopK; `reason` is why the last candidate was none."""

    view: View
    topk: onnx.NodeProto
    reason: str = "its results do not meet in one tensor"
    rank: int = -1
    _too_far: bool = False

    def run(self) -> tuple[Block, Replacement]:
        k, axis = self._arguments()
        for output in self.view.narrows([name for name in self.topk.output if name]):
            for logits in self._logits(axis):
                try:
                    found = self._candidate(logits, output, k)
                except NoExpertsError as error:
                    if error.rank >= self.rank:
                        self.reason, self.rank = str(error), error.rank
                    continue
                if found is not None:
                    return found
            if self._too_far:
                break
        raise UnsupportedError(
            f"node {describe(self.topk)} chooses by the largest values, but no mixture of experts is recognised: "
            f"{self.reason}; intaglio takes linear gates, softmax and the k best of E two-layer MLPs, summed by weight"
        )

    def _arguments(self) -> tuple[int, int]:
        attributes = {a.name: a.i for a in self.topk.attribute}
        constant = self.view.constants.get(self.topk.input[1])
        shape = self.view.shapes.get(self.topk.input[0], ())
        if constant is None or not shape or not attributes.get("largest", 1):
            raise UnsupportedError(
                f"node {describe(self.topk)}: a mixture of experts takes the largest of a tensor of known shape, "
                "a constant number of them"
            )
        k = int(numpy_helper.to_array(constant).reshape(-1)[0])
        if not 1 <= k <= mixture.MAX_K:
            raise UnsupportedError(
                f"node {describe(self.topk)}: a mixture of experts takes the 1 to {mixture.MAX_K} best experts, not {k}"
            )
        return k, attributes.get("axis", -1) % len(shape)

    def _logits(self, axis: int) -> list[str]:
        """Tensors that may be the gate's logits: nearest to the softmax first."""
        tensor, chain, after = self.topk.input[0], [self.topk.input[0]], 0
        while (node := self.view.node(tensor)) is not None:
            if node.op_type == "Softmax":
                after = len(chain)
            elif node.op_type not in QDQ | MOVES | {"Cast"}:
                break
            tensor = node.input[0]
            chain.append(tensor)
        known = [name for name in chain[after:] if self.view.shapes.get(name)]
        return [name for name in known if self.view.shapes[name][-1] == self.view.shapes[chain[0]][axis]]

    def _candidate(self, logits: str, output: str, k: int) -> tuple[Block, Replacement] | None:
        known, _ = self.view.ancestors([logits])
        count = self.view.shapes[logits][-1]
        region = [node for node in self.view.between(output, known) if node.output[0] not in known]
        experts = find(self.view, region, known, count)
        sources = {expert.source for expert in experts}
        if len(sources) != 1:
            raise NoExpertsError(f"its experts read different tensors: {', '.join(sorted(sources)[:3])}")
        (source,) = sources
        _, leaves = self.view.ancestors([output], [logits, source])
        self._too_far = bool(leaves)  # and so do all tensors behind it
        if leaves or not self.view.shapes.get(source):
            raise NoExpertsError(
                f"{output!r} depends on more than its logits {logits!r} and tokens {source!r}"
            )
        self._refuse_clipped(region, experts)
        return self._proven(logits, source, output, experts, k)

    def _refuse_clipped(self, region: list[onnx.NodeProto], experts: list[Expert]) -> None:
        """Roundings of weighted results are dropped, but one to numbers of one sign only is more: a ReLU."""
        reached = {([expert.second.node, *expert.after][-1]).output[0] for expert in experts}
        for node in region:
            if not reached.intersection(node.input):
                continue
            reached.update(node.output)
            zero = self.view.constants.get(node.input[2]) if len(node.input) > 2 else None
            if node.op_type != "QuantizeLinear" or zero is None:
                continue
            point = numpy_helper.to_array(zero)
            if not np.iinfo(point.dtype).min < point.reshape(-1)[0] < np.iinfo(point.dtype).max:
                raise NoExpertsError(
                    f"{describe(node)} clips the experts' results to one sign, behind them", rank=2
                )

    def _proven(
        self, logits: str, source: str, output: str, experts: list[Expert], k: int
    ) -> tuple[Block, Replacement] | None:
        """The block in the reading that computes what the graph does, if there is one."""
        view, inputs = self.view, [logits, source]
        pairs = prove.draws(view.shapes[source], view.shapes[logits], k)
        feeds = [{logits: scores, source: tokens} for tokens, scores in pairs]
        try:
            region = prove.Region(view, view.between(output, inputs), inputs, output)
            wanted = [region.run(feed) for feed in feeds]
        except ValueError as error:
            raise NoExpertsError(f"ONNX Runtime cannot run the nodes up to {output!r}: {error}") from error
        plain = Block(logits, output, wanted[0].shape, experts, view.shapes[logits][-1], k)
        orders = [(), self._order(plain, region, feeds[0])] if len(experts) > 1 else [()]
        least = float("inf")
        for order, orientation, normalize in product(orders, orientations(experts[0]), (False, True)):
            block = plain.variant(normalize, orientation, order)
            gap = self._error(block, feeds, wanted, inputs)
            if gap <= prove.TOLERANCE:
                return block, build(view, block)
            least = min(least, gap)
        raise NoExpertsError(
            f"{output!r} is not the weighted sum of the {plain.count} experts found: on random tokens it differs by "
            f"{least:.2g} of its largest value",
            rank=2,
        )

    def _order(self, block: Block, region: prove.Region, feed: dict[str, prove.Real]) -> tuple[int, ...]:
        """Which of the experts found answers to each logit: what comes out when that one is far above the others."""
        alone = []
        for index in range(block.count):
            scores = np.zeros_like(feed[block.logits])
            scores[..., index] = ALONE
            alone.append(feed | {block.logits: scores})
        inputs = region.inputs
        try:
            ours = self._region(block.variant(False, next(orientations(block.experts[0]))), inputs)
            results = [(region.run(one), ours.run(one)) for one in alone]
        except ValueError:
            return ()
        errors = [[prove.difference(theirs, own) for _, own in results] for theirs, _ in results]
        return tuple(int(np.argmin(row)) for row in errors)

    def _region(self, block: Block, inputs: list[str]) -> prove.Region:
        """What would replace `block`, ready to run. Raises ValueError."""
        new = build(self.view, block)
        nodes = [*self._constant_nodes(new), *new.nodes]
        return prove.Region(self.view, nodes, inputs, block.output, new.constants)

    def _error(
        self, block: Block, feeds: list[dict[str, prove.Real]], wanted: list[prove.Real], inputs: list[str]
    ) -> float:
        """How far `block` is from the region's own results; infinite where it cannot be run."""
        try:
            region = self._region(block, inputs)
            found = [region.run(feed) for feed in feeds]
        except ValueError:
            return float("inf")  # a weight read the wrong way round does not fit
        return max(prove.difference(a, b) for a, b in zip(wanted, found, strict=True))

    def _constant_nodes(self, new: Replacement) -> list[onnx.NodeProto]:
        """The nodes that compute constants (dequantized weights) which the new ones read."""
        made = {name for node in new.nodes for name in node.output}
        read = {name for node in new.nodes for name in node.input} - made
        fixed = [name for name in read if self.view.is_constant(name)]
        wanted, _ = self.view.ancestors(fixed)
        return [node for node in self.view.nodes if wanted.intersection(node.output)]
