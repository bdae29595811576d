"""Gradients of sums, products and choices of several tensors; over broadcast axes they are summed."""

from __future__ import annotations

from onnx import TensorProto

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.forward_graph import INTEGER_TYPES


def add(graph: Backward, step: Step) -> Gradients:
    """y = a + b + …: each gets g."""
    return {p: graph.summed_to(step.gradient, step.y, step.node.input[p]) for p in step.wanted}


def subtract(graph: Backward, step: Step) -> Gradients:
    """y = a − b: da = g, db = −g."""
    gradients = {0: step.gradient, 1: graph.times(step.gradient, -1)}
    return {p: graph.summed_to(gradients[p], step.y, step.node.input[p]) for p in step.wanted}


def multiply(graph: Backward, step: Step) -> Gradients:
    """y = a·b: da = g·b, db = g·a; x·σ(x), SiLU as exporters write it, at once."""
    if (found := _silu(graph, step)) is not None:
        return found
    gradients = {}
    for position in step.wanted:
        other = step.node.input[1 - position]
        constant = graph.forward.constant(other)
        if constant is not None and constant.size == 1:
            gradient = graph.times(step.gradient, float(constant.reshape(())))
        else:
            gradient = graph.op("Mul", [step.gradient, graph.value(other)])
        gradients[position] = graph.summed_to(gradient, step.y, step.node.input[position])
    return gradients


def _silu(graph: Backward, step: Step) -> Gradients | None:
    """y = x·s, s = σ(x): dx = g·s·(1 + x·(1 − s)) where x stands, nothing at s; None for another product.

    One pass over memory less than by both rules and their sum, and in two of the others a number is one factor.
    """
    for at, gate in ((0, 1), (1, 0)):
        x, s = step.node.input[at], step.node.input[gate]
        maker = graph.forward.index.producers.get(s)
        if maker is None or maker.op_type != "Sigmoid" or maker.input[0] != x or step.wanted != {0, 1}:
            continue
        open_share = graph.value(s)
        bend = graph.op("Mul", [graph.value(x), graph.op("Sub", [graph.scalar(1), open_share])])
        slope = graph.op("Mul", [open_share, graph.op("Add", [bend, graph.scalar(1)])])
        gradient, factor = graph.peeled(step.gradient)
        return {at: graph.times(graph.op("Mul", [gradient, slope]), factor), gate: ""}
    return None


def divide(graph: Backward, step: Step) -> Gradients:
    """y = a/b: da = g/b, db = −g·y/b."""
    b = graph.value(step.node.input[1])
    gradients = {}
    if 0 in step.wanted:
        gradients[0] = graph.op("Div", [step.gradient, b])
    if 1 in step.wanted:
        product = graph.op("Mul", [step.gradient, graph.value(step.y)])
        gradients[1] = graph.times(graph.op("Div", [product, b]), -1)
    return {p: graph.summed_to(gradient, step.y, step.node.input[p]) for p, gradient in gradients.items()}


def minimum(graph: Backward, step: Step) -> Gradients:
    """y = min(a, b): the smaller gets g, as `_chosen` shares it."""
    return _chosen(graph, step, "Less")


def maximum(graph: Backward, step: Step) -> Gradients:
    """y = max(a, b): the greater gets g, as `_chosen` shares it."""
    return _chosen(graph, step, "Greater")


def _chosen(graph: Backward, step: Step, comparison: str) -> Gradients:
    """Return g for what was chosen; in equal parts to what follows the image, none where a constant is as good.

    A constant is a clip's bound, where a clip has no slope either.
    """
    if graph.forward.types.get(step.y) in INTEGER_TYPES:
        return dict.fromkeys(step.wanted, step.gradient)  # the bound is part of the quantizer's rule
    if len(step.node.input) == 1:
        return {0: step.gradient}
    slack = graph.forward.slack(step.y) * (1 if comparison == "Less" else -1)
    gradient, wanted = step.gradient, sorted(step.wanted)
    masks = [_chosen_at(graph, step, position, comparison, slack) for position in wanted]
    if len(wanted) > 1 and not slack:
        chosen = [graph.op("Cast", [mask], {"to": TensorProto.FLOAT}) for mask in masks]
        number = graph.op("Max", [graph.op("Sum", chosen), graph.scalar(1)])
        gradient = graph.mapped(gradient, lambda g: graph.op("Div", [g, number]))
    return {
        position: graph.summed_to(graph.masked(mask, gradient), step.y, step.node.input[position])
        for position, mask in zip(wanted, masks, strict=True)
    }


def _chosen_at(graph: Backward, step: Step, position: int, comparison: str, slack: float) -> str:
    """Return where an input is beyond all constants, and no other that follows the image is beyond it."""
    one, conditions = graph.real(step.node.input[position]), []
    for other, name in enumerate(step.node.input):
        if other != position:
            bound = graph.op("Add", [graph.real(name), graph.scalar(slack)]) if slack else graph.real(name)
            may_be_equal = other in step.wanted and not slack
            conditions.append(graph.op(f"{comparison}OrEqual" if may_be_equal else comparison, [one, bound]))
    found = conditions[0]
    for condition in conditions[1:]:
        found = graph.op("And", [found, condition])
    return found


def where(graph: Backward, step: Step) -> Gradients:
    """y = a where a condition holds, else b: each gets g where it was taken."""
    condition = graph.value(step.node.input[0])
    conditions = {1: condition, 2: graph.op("Not", [condition])}
    return {
        p: graph.summed_to(graph.masked(conditions[p], step.gradient), step.y, step.node.input[p])
        for p in step.wanted - {0}
    }


def matmul(graph: Backward, step: Step) -> Gradients:
    """Y = A·B, in batches: dA = G·Bᵀ, dB = Aᵀ·G."""
    a, b = step.node.input[:2]
    if min(len(graph.forward.shape(name)) for name in (a, b)) < 2:
        raise refusal(step.node, "matrices", "a vector")
    gradients = {}
    if 0 in step.wanted:
        product = graph.mapped(step.gradient, lambda g: graph.op("MatMul", [g, transposed(graph, b)]))
        gradients[0] = _summed_over_batches(graph, product, step.y, a)
    if 1 in step.wanted:
        product = graph.mapped(step.gradient, lambda g: graph.op("MatMul", [transposed(graph, a), g]))
        gradients[1] = _summed_over_batches(graph, product, step.y, b)
    return gradients


def _summed_over_batches(graph: Backward, gradient: str, output: str, name: str) -> str:
    inner = graph.forward.shape(name)
    return graph.summed(gradient, (*graph.forward.shape(output)[:-2], *inner[-2:]), inner)


def transposed(graph: Backward, name: str) -> str:
    """Return a matrix, or a stack of them, with its last two axes exchanged."""
    rank = len(graph.forward.shape(name))
    return graph.op("Transpose", [graph.real(name)], {"perm": [*range(rank - 2), rank - 1, rank - 2]})


def einsum(graph: Backward, step: Step) -> Gradients:
    """Y = a sum of products over letters: that of each factor is the sum of G's and the other factors' product."""
    ranks = [len(graph.forward.shape(name)) for name in step.node.input]
    terms, out = _letters(step.attribute("equation", b"").decode().replace(" ", ""), ranks)
    if any(len(set(term)) != len(term) for term in (*terms, out)):
        equation = step.attribute("equation", b"").decode()
        raise refusal(step.node, "an equation with each letter once a factor", f"`{equation}`")
    gradients = {}
    for position in step.wanted:
        others = [p for p in range(len(terms)) if p != position]
        factors = [out, *(terms[p] for p in others)]
        kept = "".join(letter for letter in terms[position] if letter in "".join(factors))
        values = [graph.real(step.node.input[p]) for p in others]
        attributes = {"equation": f"{','.join(factors)}->{kept}"}
        gradient = graph.op("Einsum", [step.gradient, *values], attributes)
        alone = [axis for axis, letter in enumerate(terms[position]) if letter not in kept]
        if alone:  # summed over in this factor: each of its values gets the same
            gradient = graph.op("Unsqueeze", [gradient, graph.integers(alone)])
            shape = graph.op("Shape", [graph.value(step.node.input[position])])
            gradient = graph.op("Expand", [gradient, shape])
        gradients[position] = gradient
    return gradients


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the letters of each factor and of the result, with those of `...` and of a missing `->` written out.

    Where factors have different numbers of axes in their `...`, those with fewer keep two dots, which is refused.
    """
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in equation]
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    dots = "".join(free[: max((c for t, c in zip(terms, counts, strict=True) if "..." in t), default=0)])
    if not arrow:
        letters = sorted(set(left) - set(",."))
        out = ("..." if "..." in left else "") + "".join(letter for letter in letters if left.count(letter) == 1)
    full = [t.replace("...", dots if c == len(dots) else "..") for t, c in zip(terms, counts, strict=True)]
    return full, out.replace("...", dots)


def gemm(graph: Backward, step: Step) -> Gradients:
    """Y = α·A'·B' + β·C with A' = A or Aᵀ, B' = B or Bᵀ: dA' = α·G·B'ᵀ, dB' = α·A'ᵀ·G, dC = β·G."""
    a, b = step.node.input[:2]
    trans_a, trans_b = step.attribute("transA", 0), step.attribute("transB", 0)
    alpha, gradients = step.attribute("alpha", 1.0), {}

    def product(left: str, right: str, trans_left: int, trans_right: int) -> str:
        return graph.times(graph.op("Gemm", [left, right], {"transA": trans_left, "transB": trans_right}), alpha)

    if 0 in step.wanted:
        base, factor = graph.peeled(step.gradient)
        second = graph.value(b)
        found = product(second, base, trans_b, 1) if trans_a else product(base, second, 0, 1 - trans_b)
        gradients[0] = graph.times(found, factor)
    if 1 in step.wanted:
        base, factor = graph.peeled(step.gradient)
        first = graph.value(a)
        found = product(base, first, 1, trans_a) if trans_b else product(first, base, 1 - trans_a, 0)
        gradients[1] = graph.times(found, factor)
    if 2 in step.wanted:
        scaled = graph.times(step.gradient, step.attribute("beta", 1.0))
        gradients[2] = graph.summed_to(scaled, step.y, step.node.input[2])
    return gradients
