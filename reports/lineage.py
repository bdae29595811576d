"""The lineage as a picture: images → checkpoint → fp32 → variants → their twins that tell the maps, with digests."""

from __future__ import annotations

from dataclasses import dataclass

from reports import formats
from reports.facts import Facts

_TWIN = ".saliency.onnx"


@dataclass(frozen=True)
class Node:
    """A file, or the images, and what was made from it.

    Attributes:
        name: of the file.
        kind: what it is.
        sha256: its digest; "" where the run records none.
        children: what was made from it.
    """

    name: str
    kind: str
    sha256: str
    children: tuple[Node, ...] = ()

    @property
    def short(self) -> str:
        """The first digits of its digest."""
        return formats.short_hash(self.sha256) if self.sha256 else "no digest"


def lineage(facts: Facts) -> Node:
    """Return the tree from the images down."""
    outputs = facts.record.outputs
    by_parent: dict[str | None, list[str]] = {}
    records = {one.variant: one for one in facts.record.variants}
    digests = {one.sha256: one.variant for one in facts.record.variants}
    for one in facts.record.variants:
        parent = one.parent_sha256 if one.parent_sha256 in digests and one.parent_sha256 != one.sha256 else None
        by_parent.setdefault(parent, []).append(one.variant)

    def of(variant: str, above: frozenset[str]) -> Node:
        record = records[variant]
        twin = record.path.removesuffix(".onnx") + _TWIN
        made = by_parent.get(record.sha256, []) if record.sha256 not in above else []
        first = digests.get(record.sha256) == variant  # two files of equal bytes share their children
        below = tuple(of(name, above | {record.sha256}) for name in made) if first else ()
        twins = (Node(twin.rpartition("/")[2], "twin for the maps", outputs[twin]),) if twin in outputs else ()
        return Node(
            record.variant, f"{record.method}, {formats.size(record.size_bytes)}", record.sha256, (*twins, *below)
        )

    files = tuple(of(name, frozenset()) for name in by_parent.get(None, []))
    checkpoint = outputs.get("train/checkpoint.safetensors")
    source = (Node("checkpoint", "trained network", checkpoint, files),) if checkpoint else files
    data = facts.data.sha256 if facts.data else ""
    return Node(facts.record.dataset, "images, masks and labels", data, source)
