"""Files as they are published: their nodes in an order that is always the same, whatever order they came in."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, NodeProto, TensorProto, helper

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.files import sha256_of_file
from foundation.notes import ExportNotes
from onnx_files.publishing import publish, sort_topologically
from stages.quantize.methods.fp16 import Fp16Settings

LONG = 30_000


def graph_of(*nodes: NodeProto) -> GraphProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    return helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])


def node(name: str, reads: list[str], **attributes: object) -> NodeProto:
    return helper.make_node("Sum", reads, [name], name=name, **attributes)


def sorted_names(*nodes: NodeProto) -> list[str]:
    graph = graph_of(*nodes)
    sort_topologically(graph)
    return [found.name for found in graph.node]


def in_rounds(nodes: list[NodeProto]) -> list[str]:
    """Take, again and again and in order, what reads nothing that is still to be made."""
    ordered: list[NodeProto] = []
    while len(ordered) < len(nodes):
        for one in nodes:
            made = {"x", *(other.name for other in ordered)}
            if one.name not in made and made.issuperset(one.input):
                ordered.append(one)
    return [one.name for one in ordered]


@st.composite
def shuffled_nodes(draw: st.DrawFn) -> list[NodeProto]:
    count = draw(st.integers(1, 12))
    sources = [draw(st.lists(st.integers(-1, place - 1), min_size=1, max_size=3)) for place in range(count)]
    nodes = [node(f"n{place}", ["x" if s < 0 else f"n{s}" for s in found]) for place, found in enumerate(sources)]
    return draw(st.permutations(nodes))


@given(shuffled_nodes())
def test_nodes_come_round_after_round_in_the_order_they_had(nodes: list[NodeProto]) -> None:
    assert sorted_names(*nodes) == in_rounds(nodes)


def test_what_was_appended_stands_together_before_its_first_reader() -> None:
    first, second = node("a", ["x", "late"]), node("b", ["a", "later"])
    assert sorted_names(first, second, node("late", ["x"]), node("later", ["x"])) == ["late", "later", "a", "b"]


def test_what_the_body_of_a_branch_reads_is_read_by_its_node() -> None:
    body = helper.make_graph(
        [helper.make_node("Relu", ["late"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])],
    )
    branch = helper.make_node("If", ["condition"], ["y"], name="branch", then_branch=body, else_branch=body)
    assert sorted_names(branch, node("late", ["x"])) == ["late", "branch"]


def test_nodes_that_wait_for_each_other_are_counted_and_named() -> None:
    with pytest.raises(StageError, match=r"found 2 nodes that wait for each other, a among them"):
        sorted_names(node("before", ["x"]), node("a", ["b"]), node("b", ["a"]))


def test_a_long_chain_in_reverse_order_is_published(tmp_path) -> None:
    names = ["x", *(f"r{place}" for place in range(1, LONG)), "y"]
    nodes = [helper.make_node("Relu", [a], [b], name=b) for a, b in itertools.pairwise(names)]
    model = helper.make_model(graph_of(*nodes), opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "float.onnx"
    path.write_bytes(model.SerializeToString())
    source = OnnxModel("float", path, sha256_of_file(path), None)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    result = publish(model, source, "v", Fp16Settings(), ExportNotes(), tmp_path / "v.onnx")
    found = onnx.load_model(result.path)
    assert [one.name for one in found.graph.node] == names[1:]
    assert np.array_equal(found.graph.input, model.graph.input)
