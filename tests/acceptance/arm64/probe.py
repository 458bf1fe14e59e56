"""What one machine makes of some frames: run on x86 and in the ARM64 user space, and compared by run.py.

    probe.py BUNDLE FRAMES.npz RESULT.npz

Uses the installed package alone. Keys of the result: `input/F`, `PRECISION/KERNELS/F/OUTPUT` for raw outputs,
`PRECISION/faces/F` as rows (score, box, landmarks), `PRECISION/delegates`, and `machine`.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for


def main(bundle: Path, frames: Path, result: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    opened = Bundle.load(bundle)
    spec = opened.spec
    found: dict[str, np.ndarray] = {"machine": np.array(platform.machine())}
    pictures = np.load(frames)
    inputs = {}
    for name in pictures.files:
        frame = pictures[name]
        inputs[name] = np.empty(spec.input_shape, np.uint8)
        letterbox(spec, letterbox_for(spec, frame.shape[1], frame.shape[0]), frame, inputs[name])
        found[f"input/{name}"] = inputs[name]
    for precision in ("fp32", "int8"):
        with Detector.load(opened, "tflite", precision) as detector:
            for name in pictures.files:
                faces = detector.detect(pictures[name])
                rows = (faces.scores[:, None], faces.boxes, faces.landmarks.reshape(-1, 10))
                found[f"{precision}/faces/{name}"] = np.concatenate(rows, axis=1)
    model = opened.read(opened.artifact("tflite", "int8").files[0])
    for kernels, resolver in (("xnnpack", OpResolverType.AUTO), ("reference", OpResolverType.BUILTIN_REF)):
        interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
        found[f"int8/{kernels}/delegates"] = np.array(operators.count("DELEGATE"))
        names = {detail["index"]: detail["name"].split(":")[0] for detail in interpreter.get_output_details()}
        for name, image in inputs.items():
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
            interpreter.invoke()
            for index, output in names.items():
                found[f"int8/{kernels}/{name}/{output}"] = interpreter.get_tensor(index)
            print(f"{platform.machine()} {kernels} {name}: done", flush=True)
    np.savez(result, **found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
