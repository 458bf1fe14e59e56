"""One counted frame: the program that runs in the ARM64 user space, under the plugin.

    guest.py REQUEST.json

The request names the `model`, its `inputs` (a .npz of input0, input1, ...), the `library` that holds the kernels, the
offsets in it of functions that begin an interval (`boundaries`), and the `result` to write. Uses NumPy and LiteRT
alone. The first frame warms the caches, the second is counted.
"""

from __future__ import annotations

import ctypes
import json
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MARK_CALL = 9001  # see plugin.c
BOUNDARY, START, STOP = 0, 1, 2


def library_address(name: str) -> int:
    """Where the shared library lies: the start of its mapping with offset 0."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            fields = line.split()
            if len(fields) == 6 and fields[5].endswith(f"/{name}") and int(fields[2], 16) == 0:
                return int(fields[0].split("-")[0], 16)
    raise SystemExit(f"{name} is not loaded")


def main(path: str) -> None:
    """Run the model twice and count the second time."""
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    mark = ctypes.CDLL(None).syscall
    interpreter = Interpreter(model_path=request["model"], num_threads=1)
    interpreter.allocate_tensors()
    arrays = np.load(request["inputs"])
    for index, detail in enumerate(interpreter.get_input_details()):
        interpreter.set_tensor(detail["index"], arrays[f"input{index}"])
    address = library_address(request["library"])
    for offset in request["boundaries"]:
        mark(MARK_CALL, BOUNDARY, ctypes.c_uint64(address + offset))
    interpreter.invoke()
    mark(MARK_CALL, START)
    interpreter.invoke()
    mark(MARK_CALL, STOP)
    with open(request["result"], "w", encoding="utf-8") as file:
        json.dump({"library_address": address}, file)


if __name__ == "__main__":
    main(sys.argv[1])
