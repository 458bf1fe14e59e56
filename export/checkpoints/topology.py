"""Convolutional networks compared by what reads what: a signature for every convolution, whatever its name.

The signature of a convolution covers all that lies before it and all that lies after it, up to the heads. Two networks
of equal signatures have the same layers in the same arrangement, so that weights can go from one to the other. Names
and the order of nodes, which differ from exporter to exporter, do not matter.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

Kind = tuple[Hashable, ...]
"""An operator and what of its settings matters, such as ("conv", (64, 3, 7, 7), (2, 2), …)."""

INPUT: Kind = ("input",)
ADD: Kind = ("add",)
CONCAT: Kind = ("concat",)


def convolution(shape: Sequence[int], stride: int, padding: int, dilation: int, groups: int) -> Kind:
    """A square convolution of a weight of that shape."""
    return ("conv", tuple(shape), stride, padding, dilation, groups)


def pooling(kernel: int, stride: int, padding: int) -> Kind:
    """Max pooling."""
    return ("pool", kernel, stride, padding)


def upsampling(mode: str) -> Kind:
    """Doubling of the size, by the name of `Upsampling`."""
    return ("upsample", mode)


def activation(name: str) -> Kind:
    """An activation by its name."""
    return ("activation", name)


@dataclass(frozen=True)
class Step:
    """One operator: what it is, the steps that it reads, and the key of a convolution."""

    kind: Kind
    inputs: tuple[int, ...]
    key: str | None = None


@dataclass
class Topology:
    """A network as steps, in an order in which they can be computed."""

    steps: list[Step] = field(default_factory=list)
    _known: dict[tuple[Kind, tuple[int, ...], Hashable], int] = field(default_factory=dict)

    def add(self, kind: Kind, inputs: tuple[int, ...] = (), key: str | None = None, identity: Hashable = None) -> int:
        """Add a step and give its index; an equal one (of equal weights, as `identity` tells) is not added again.

        An activation of a concatenation becomes the concatenation of activations.
        """
        if kind[0] == "activation":
            read = self.steps[inputs[0]]
            if read.kind == CONCAT:
                return self.add(CONCAT, tuple(self.add(kind, (part,)) for part in read.inputs))
            if read.kind == kind == activation("relu"):
                return inputs[0]
        known = (kind, inputs, identity)
        if known not in self._known:
            self.steps.append(Step(kind, inputs, key))
            self._known[known] = len(self.steps) - 1
        return self._known[known]

    def heads(self) -> list[int]:
        """Convolutions after which no other follows."""
        before: set[int] = set()
        found = []
        for index in reversed(range(len(self.steps))):
            step = self.steps[index]
            if index in before:
                before.update(step.inputs)
            elif step.key is not None:
                found.append(index)
                before.update(step.inputs)
        return sorted(found)

    def relevant(self) -> list[int]:
        """Steps that a head is made of, in order."""
        needed = set(self.heads())
        for index in reversed(range(len(self.steps))):
            if index in needed:
                needed.update(self.steps[index].inputs)
        return sorted(needed)

    def signatures(self) -> dict[str, list[str]]:
        """Signature of a convolution: the keys of all that have it."""
        relevant, heads = self.relevant(), set(self.heads())
        before: dict[int, str] = {}
        for index in relevant:
            step = self.steps[index]
            parts = [before[read] for read in step.inputs]
            before[index] = _hash(step.kind, sorted(parts) if step.kind == ADD else parts)
        after: dict[int, str] = {}
        readers: dict[int, list[str]] = defaultdict(list)
        for index in reversed(relevant):
            step = self.steps[index]
            after[index] = "head" if index in heads else _hash((), sorted(readers[index]))
            for position, read in enumerate(step.inputs):
                place = position if step.kind == CONCAT else 0
                readers[read].append(_hash((step.kind, place), [after[index]]))
        found: dict[str, list[str]] = defaultdict(list)
        for index in relevant:
            if (key := self.steps[index].key) is not None:
                found[_hash((), [before[index], after[index]])].append(key)
        return dict(found)


def matched(ours: Topology, theirs: Topology) -> dict[str, str] | None:
    """Our key to their key of every convolution; None where the networks are not arranged alike."""
    first, second = ours.signatures(), theirs.signatures()
    if first.keys() != second.keys():
        return None
    if any(len(keys) != 1 or len(second[signature]) != 1 for signature, keys in first.items()):
        return None
    return {keys[0]: second[signature][0] for signature, keys in first.items()}


def _hash(kind: Hashable, parts: list[str]) -> str:
    return hashlib.blake2b(repr((kind, parts)).encode(), digest_size=16).hexdigest()
