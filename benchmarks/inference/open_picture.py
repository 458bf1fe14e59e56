"""A picture during measurement: the outputs of the networks on it, and the loaded networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.ops.letterbox import Letterbox, letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import QuantParams, RawOutput
from retinaface_edge.runtime.spec import Spec

from .network_under_test import NetworkUnderTest

RESIDENTS = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of one network, in the order of its spec, and their quantisation parameters."""

    raw: Sequence[RawOutput]
    quant_params: Sequence[QuantParams]


class OpenPicture:
    """One decoded picture, `frame` uint8 (h, w, 3) BGR. A network runs on the whole of it once, however often asked."""

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self.frame = frame
        self._inputs: dict[str, tuple[NDArray[np.uint8], Letterbox]] = {}
        self._outputs: dict[str, Outputs] = {}
        self._made: dict[str, Any] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frame.shape[1], self.frame.shape[0]

    def network_input(self, spec: Spec) -> tuple[NDArray[np.uint8], Letterbox]:
        """The whole picture as the input of a network, uint8 (1, H, W, 3), and how it lies in it."""
        key = repr(spec)
        if key not in self._inputs:
            placement = letterbox_for(spec, *self.size)
            image = np.empty(spec.input_shape, np.uint8)
            letterbox(spec, placement, self.frame, image)
            self._inputs[key] = image, placement
        return self._inputs[key]

    def outputs(self, network: NetworkUnderTest) -> Outputs:
        """What a network gives for the whole picture."""
        if network.digest not in self._outputs:
            loaded = resident_network(network)
            image, _ = self.network_input(network.spec)
            # Copies: a backend's own buffers are valid until its next run only.
            self._outputs[network.digest] = Outputs([raw.copy() for raw in loaded.run(image)], loaded.quant_params)
        return self._outputs[network.digest]

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gave for that key: several quantities may be made of it."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


_residents: OrderedDict[str, Any] = OrderedDict()
"""In each process: what was loaded, by key, what was used last at the end."""


def resident(key: str, load: Callable[[], T]) -> T:
    """What `load` gave for that key, kept while it is among the last `RESIDENTS` used."""
    if key not in _residents:
        loaded = load()
        while len(_residents) >= RESIDENTS:
            _residents.popitem(last=False)
        _residents[key] = loaded
    _residents.move_to_end(key)
    found: T = _residents[key]
    return found


def resident_network(network: NetworkUnderTest) -> Network:
    """The network, loaded once in each process."""
    return resident(f"network {network.digest}", network.load)
