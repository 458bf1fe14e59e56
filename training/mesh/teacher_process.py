"""Runs an untrusted TFLite network in a separate process with limits on memory and time.

LiteRT works out shapes as it prepares a network, and allocates what they ask for: a small file can ask for any amount.
Memory is bounded on Linux, time on every POSIX system; a crash ends that process only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

HEADER = 8
"""Bytes of the length in front of what is sent."""


class NetworkError(RetinaFaceEdgeError):
    """A network that does not load within the limits, or does not answer."""


@dataclass(frozen=True)
class Limits:
    """What a network may take: values of all tensors of its file, bytes of data in its process, and seconds of
    processor time to load, and for each answer. LiteRT itself and MediaPipe's network take 100 MB."""

    values: int
    bytes: int = 1 << 30
    seconds: int = 60


@dataclass(frozen=True)
class Port:
    """An input or output: its shape, and the name of its NumPy type."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class BoundedNetwork:
    """A TFLite network, loaded in a process that ends with this one. Raises `NetworkError`."""

    def __init__(self, content: bytes, limits: Limits) -> None:
        self._limits = limits
        # The same modules as here; by itself Python would look for them in the working directory first.
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _answer; _answer()"
        # Standard error is LiteRT's, which writes of what it loads; what matters comes as an answer.
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            self._send(json.dumps(asdict(limits)).encode())
            self._send(content)
            answer = json.loads(self._receive())
            if "refused" in answer:
                raise NetworkError(str(answer["refused"]))
        except BaseException:
            self.close()
            raise
        self.inputs, self.outputs = (
            tuple(Port(tuple(port["shape"]), port["dtype"]) for port in answer[name]) for name in ("inputs", "outputs")
        )

    def run(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs for `values`, an array of the first input's shape and type. Raises `NetworkError`."""
        self._send(np.ascontiguousarray(values, self.inputs[0].dtype).tobytes())
        found = [np.frombuffer(self._receive(), port.dtype) for port in self.outputs]
        if any(values.size != port.size for values, port in zip(found, self.outputs, strict=True)):
            raise NetworkError("its outputs change their shapes")
        return [values.reshape(port.shape) for values, port in zip(found, self.outputs, strict=True)]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __del__(self) -> None:
        if hasattr(self, "_process") and self._process.returncode is None:
            self.close()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended; `_receive` says how
            _write(self._process.stdin, data)

    def _receive(self) -> bytes:
        assert self._process.stdout is not None
        data = _read(self._process.stdout)
        if data is None:
            code = self._process.wait()
            raise NetworkError(
                f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}; "
                f"it may take {self._limits.bytes >> 20:,} MB and {self._limits.seconds} s"
            )
        return data


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(len(data).to_bytes(HEADER, "little"))
    file.write(data)
    file.flush()


def _read(file: IO[bytes]) -> bytes | None:
    """What `_write` wrote; None at the end."""
    header = file.read(HEADER)
    size = int.from_bytes(header, "little")
    data = file.read(size) if len(header) == HEADER else b""
    return data if len(header) == HEADER and len(data) == size else None


# What runs in the other process


def _answer() -> None:
    """Load the network that comes, and answer until the input ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its parent's, and ends the input
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    asked, content = _read(source), _read(source)
    if asked is None or content is None:
        return
    limits = Limits(**json.loads(asked))
    _limit_memory(limits)
    _limit_time(limits)
    try:
        interpreter = _loaded(content, limits)
    except (ValueError, RuntimeError, MemoryError) as error:
        _write(answers, json.dumps({"refused": " ".join(str(error).split())[:80] or "out of memory"}).encode())
        return
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    ports = {"inputs": _ports(inputs), "outputs": _ports(outputs)}
    _write(answers, json.dumps(ports).encode())
    while (data := _read(source)) is not None:
        _limit_time(limits)
        values = np.frombuffer(data, inputs[0]["dtype"]).reshape(inputs[0]["shape"])
        interpreter.set_tensor(inputs[0]["index"], values)
        interpreter.invoke()
        for output in outputs:
            _write(answers, interpreter.get_tensor(output["index"]).tobytes())


def _loaded(content: bytes, limits: Limits) -> Any:
    """The interpreter, which has answered once. Raises `ValueError` when its tensors have too many values."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    values = sum(math.prod(map(int, tensor["shape"])) for tensor in interpreter.get_tensor_details())
    if values > limits.values:
        raise ValueError(f"its tensors have {values:,} values, more than {limits.values:,}")
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter


def _ports(details: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"shape": [int(n) for n in d["shape"]], "dtype": np.dtype(d["dtype"]).name} for d in details]


def _limit_memory(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.bytes, limits.bytes))


def _limit_time(limits: Limits) -> None:
    import time

    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(time.process_time()) + limits.seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))
