"""Which operators of a model have neither a converter nor a body: found before anything is built,
so that one error names them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from transect.frontend.onnx.functions import (
    FunctionKey,
    domain_of,
    fixed_body,
    has_typed_body,
    versions_of,
)
from transect.frontend.onnx.operators import find_converter
from transect.support.errors import ImportModelError

_Key = tuple[str, str, int]


@dataclass
class _Missing:
    count: int = 0
    first: str = ""


@dataclass
class _Search:
    functions: Mapping[FunctionKey, onnx.FunctionProto]
    missing: dict[_Key, _Missing] = field(default_factory=dict[_Key, _Missing])
    seen: set[object] = field(default_factory=set[object])

    def nodes(self, nodes: Sequence[onnx.NodeProto], versions: Mapping[str, int]) -> None:
        """Look at nodes, the subgraphs in them, and the bodies of what they call."""
        work: list[tuple[Iterator[onnx.NodeProto], Mapping[str, int]]] = [(iter(nodes), versions)]
        while work:
            current, at = work[-1]
            node = next(current, None)
            if node is None:
                work.pop()
                continue
            check_text(node.op_type, node.domain, node.name, *node.input, *node.output)
            work.extend((iter(graph.node), at) for graph in subgraphs(node))
            body = self.body(node, at)
            if body is not None:
                work.append((iter(body.node), versions_of(body, at)))

    def body(self, node: onnx.NodeProto, versions: Mapping[str, int]) -> onnx.FunctionProto | None:
        """The body to look at next, once for each operator; what has none is noted."""
        domain = domain_of(node)
        opset = versions.get(domain, 1)
        key = (domain, node.op_type, opset)
        local = self.functions.get((domain, node.op_type, node.overload))
        if find_converter(*key) is not None or (local is None and has_typed_body(node, opset)):
            return None
        if (key, node.overload) in self.seen:
            return None
        found = local if local is not None else fixed_body(node, opset)
        if found is not None:
            self.seen.add((key, node.overload))
            return found
        entry = self.missing.setdefault(key, _Missing())
        entry.count += 1
        entry.first = entry.first or name_of(node)
        return None


def check_text(*names: object) -> None:
    """Raise ImportModelError for a name that is not text: protobuf gives it as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise ImportModelError(
                f"the model has a name that is not UTF-8 text: {name!r}",
                remedy="export or download it again",
            )


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    found: list[onnx.GraphProto] = []
    for item in node.attribute:
        if item.HasField("g"):
            found.append(item.g)
        found.extend(item.graphs)
    return found


def name_of(node: onnx.NodeProto) -> str:
    """What to call a node: exporters leave names out."""
    return node.name or next(filter(None, node.output), "unnamed")


def check_coverage(
    graph: onnx.GraphProto,
    versions: Mapping[str, int],
    functions: Mapping[FunctionKey, onnx.FunctionProto],
    name: str,
) -> None:
    """Raise ImportModelError with all operators of a model that are not covered, if any."""
    search = _Search(functions)
    search.nodes(graph.node, versions)
    lines: list[str] = []
    for (domain, op_type, opset), entry in search.missing.items():
        title = op_type if domain == "ai.onnx" else f"{domain}.{op_type}"
        nodes = f"{entry.count} node{'s'[: entry.count > 1]}"
        lines.append(f"{title} (opset {opset}): {nodes}, first {entry.first!r}")
    if lines:
        raise ImportModelError(
            f"{name} uses {len(lines)} operator{'s'[: len(lines) > 1]} that "
            f"{'is' if len(lines) == 1 else 'are'} not covered",
            notes=lines,
            remedy="add a Converter for each in transect/frontend/onnx/operators",
        )
