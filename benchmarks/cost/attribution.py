"""Which operator of the network each counted interval belongs to.

XNNPACK runs the operators of a delegated part of the graph in the order of the file, one interval each (a
concatenation one for each of its parts), leaves some out (a padding that it merges into a convolution, a reshape), and
begins with those that need nothing of LiteRT's own kernels. So each interval belongs to the first operator of a kind
that its kernel can do, among those whose inputs are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from .emulator.counts import Counts, Interval
from .emulator.symbols import Functions
from .operators import Network, Operator

RUN_OPERATOR = "xnn_run_operator_with_index"
RUN_DELEGATE = re.compile(r"_ZN6tflite7xnnpack12_GLOBAL__N_1\d+SubgraphInvokeE")
LITERT_KERNEL = re.compile(r"_ZN6tflite3ops7builtin(?P<length>\d+)(?P<rest>.+)")
EVALUATE = re.compile(r"(12_GLOBAL__N_1)?4Eval[IE]")
OTHER_NAMES = {"conv": "CONV_2D", "depthwise_conv": "DEPTHWISE_CONV_2D"}
ELSEWHERE = "outside the library"


class Kernel(str, Enum):
    """Kinds of kernels that the time of a frame goes to."""

    IGEMM = "IGEMM"
    GEMM = "GEMM"
    DEPTHWISE = "depthwise"
    LEAKY_RELU = "LeakyReLU"
    ADD = "addition"
    MULTIPLY = "multiplication"
    POOL = "pooling"
    CONVERT = "conversion"
    COPY = "copy"
    FLOAT_ISLAND = "float island"
    LITERT = "LiteRT's own"
    OTHER = "other"


KERNELS = (
    ("igemm", Kernel.IGEMM),
    ("conv_hwc", Kernel.IGEMM),
    ("gemm", Kernel.GEMM),
    ("dwconv", Kernel.DEPTHWISE),
    ("vlrelu", Kernel.LEAKY_RELU),
    ("vadd", Kernel.ADD),
    ("vsub", Kernel.ADD),
    ("vmul", Kernel.MULTIPLY),
    ("maxpool", Kernel.POOL),
    ("avgpool", Kernel.POOL),
    ("vcvt", Kernel.CONVERT),
    ("f32_qs8", Kernel.CONVERT),
    ("copy", Kernel.COPY),
    ("pad", Kernel.COPY),
    ("transpose", Kernel.COPY),
)
"""A part of a kernel's name, and its kind; the first that fits."""
CAN_DO = {
    Kernel.IGEMM: ("CONV_2D",),
    Kernel.GEMM: ("CONV_2D", "FULLY_CONNECTED"),
    Kernel.DEPTHWISE: ("DEPTHWISE_CONV_2D",),
    Kernel.LEAKY_RELU: ("LEAKY_RELU",),
    Kernel.ADD: ("ADD", "SUB"),
    Kernel.MULTIPLY: ("MUL",),
    Kernel.POOL: ("MAX_POOL_2D", "AVERAGE_POOL_2D"),
    Kernel.CONVERT: ("QUANTIZE", "DEQUANTIZE", "CAST"),
    Kernel.COPY: ("PAD", "CONCATENATION", "TRANSPOSE", "RESHAPE"),
}
MAY_VANISH = ("PAD", "RESHAPE", "DEQUANTIZE", "QUANTIZE")


@dataclass(frozen=True)
class Attributed:
    """An interval, the kernel that did most of it, and the operator that it belongs to, if one was found."""

    interval: Interval
    kernel: Kernel
    function: str
    operator: Operator | None


def boundaries(functions: Functions) -> list[int]:
    """Offsets of the functions that run one operator each: XNNPACK's and LiteRT's own."""
    return [function.offset for function in functions.all if _begins_interval(function.name)]


def _begins_interval(function: str) -> bool:
    return function == RUN_OPERATOR or bool(RUN_DELEGATE.match(function) or litert_kernel(function))


def litert_kernel(function: str) -> str | None:
    """The operator that a function of LiteRT's own kernels evaluates, for instance `QUANTIZE`."""
    found = LITERT_KERNEL.match(function)
    if not found:
        return None
    length, rest = int(found["length"]), found["rest"]
    name = rest[:length]
    return OTHER_NAMES.get(name, name.upper()) if EVALUATE.match(rest[length:]) else None


def attribute(counts: Counts, functions: Functions, network: Network) -> list[Attributed]:
    """Find kernel and operator of each interval of a frame."""
    schedule = _Schedule(network)
    quantised = any(operator.macs and not operator.in_floats for operator in network.operators)
    return list(_attribute(counts, functions, schedule, quantised))


def _attribute(counts: Counts, functions: Functions, schedule: _Schedule, quantised: bool) -> Iterator[Attributed]:
    for interval in counts.intervals:
        begun_by = functions.at(interval.boundary - counts.library_address) or ""
        function = _main_function(interval, counts, functions)
        operator = None
        if kind := litert_kernel(begun_by):
            kernel, operator = Kernel.LITERT, schedule.take((kind,), in_parts=False)
        elif begun_by == RUN_OPERATOR:
            kernel = next((kernel for part, kernel in KERNELS if part in function), Kernel.COPY)
            operator = schedule.take(CAN_DO.get(kernel, ()))
            if operator is None and kernel is Kernel.DEPTHWISE:
                operator = schedule.take(
                    CAN_DO[Kernel.IGEMM]
                )  # of one channel to one, which XNNPACK takes as depthwise
            if quantised and operator and operator.in_floats:
                kernel = Kernel.FLOAT_ISLAND
        else:
            kernel = Kernel.OTHER
        yield Attributed(interval, kernel, function, operator)


class _Schedule:
    """The operators that have not run yet."""

    def __init__(self, network: Network) -> None:
        self._waiting = list(network.operators)
        self._there = set(network.inputs)
        self._parts: list[Operator] = []

    def take(self, kinds: Sequence[str], in_parts: bool = True) -> Operator | None:
        """The operator to run next, of one of these kinds; `in_parts` if a concatenation takes one call per part."""
        if self._parts and self._parts[0].kind in kinds:
            return self._parts.pop()
        there, chosen = set(self._there), None
        for operator in self._waiting:
            ready = there.issuperset(operator.reads)
            if ready and operator.kind in kinds and (chosen is None or chosen.kind == "RESHAPE"):
                chosen = operator
                if operator.kind != "RESHAPE":
                    break
            elif ready and operator.kind in MAY_VANISH:
                there.update(operator.writes)
        if chosen is not None:
            self._finish(chosen)
            if in_parts and chosen.kind == "CONCATENATION":
                self._parts = [chosen] * (chosen.parts - 1)
        return chosen

    def _finish(self, operator: Operator) -> None:
        """`operator` runs: what it reads is there, so what vanished before it has vanished."""
        self._waiting.remove(operator)
        self._there.update(operator.writes)
        missing = set(operator.reads) - self._there
        for earlier in [earlier for earlier in self._waiting if missing.intersection(earlier.writes)]:
            self._finish(earlier)


def _main_function(interval: Interval, counts: Counts, functions: Functions) -> str:
    """The function that ran most instructions, XNNPACK's loops around a kernel aside."""
    spent: dict[str, int] = {}
    for index, times in interval.runs.items():
        block = counts.blocks[index]
        name = functions.at(block.address - counts.library_address) or ELSEWHERE
        if not name.startswith(("xnn_compute_", "xnn_run_", "xnn_invoke_")):
            spent[name] = spent.get(name, 0) + times * block.instructions
    return max(spent, key=lambda name: spent[name], default=ELSEWHERE)
