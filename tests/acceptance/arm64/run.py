"""`make test-arm64`: what ships gives on ARM64 what it gives on x86.

    python tests/acceptance/arm64/run.py BUNDLE [FOLDER OF THE USER SPACE]

Runs the bundle's FP32 and INT8 TFLite on photographs on an emulated Cortex-A72 (Raspberry Pi 4) and Cortex-A76
(Pi 5), and the C twin compiled there. INT8 must be integers throughout (the recipe `fast`), since floats are summed in
another order there. Exit code 0 when everything agrees, 1 when not, 2 when it cannot be run here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import userland

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from c_cases import compile_driver, frame_case, output_case, run_driver  # noqa: E402

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes  # noqa: E402
from retinaface_edge.runtime import Spec  # noqa: E402
from retinaface_edge.runtime.c.generate import c_files  # noqa: E402
from retinaface_edge.runtime.io.images import read_image  # noqa: E402

CORNER_PIXELS = 0.1
SHARED = PROJECT.parent / "shared" / "data" / "widerface"
C_SPEC = Spec(96, 64)


def main(bundle: Path, folder: Path) -> int:
    if folder.resolve() in (bundle.resolve(), *bundle.resolve().parents):
        print(f"{bundle} lies in the user space's folder, {folder}, and would be copied into itself; move one of them")
        return 2
    root = userland.make(folder, PROJECT)
    work = root / "opt" / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(bundle, work / "bundle")
    shutil.copy(HERE / "probe.py", work)
    frames = {"portrait": portrait(), "scene": scenes(1, seed=1)[0]}
    if pictures := sorted(SHARED.rglob("*.jpg"))[:1]:
        frames["crowd"] = read_image(pictures[0])
    np.savez(work / "frames.npz", **frames)

    print("x86", flush=True)
    inside = ["probe.py", "bundle", "frames.npz"]
    subprocess.run([sys.executable, *inside, "x86.npz"], cwd=work, check=True)
    expected = dict(np.load(work / "x86.npz"))
    failures = []
    for core in userland.CORES:
        print(core, flush=True)
        command = "cd /opt/work && exec /opt/venv/bin/python " + " ".join([*inside, f"{core}.npz"])
        userland.run(root, core, ["sh", "-c", command])
        failures += [f"{core}: {failure}" for failure in compare(expected, dict(np.load(work / f"{core}.npz")))]
    failures += c_twin(root, work)
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{len(failures)} differences" if failures else "ARM64 agrees with x86")
    return 1 if failures else 0


def compare(expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with the figures of an ARM core, in words; nothing if all is well. Prints what was compared."""
    failures = []
    if str(got["machine"]) != "aarch64" or expected.keys() != got.keys():
        failures.append(f"ran on {got['machine']}, with keys {sorted(expected.keys() ^ got.keys())} on one side only")
    exact = [key for key in expected if key.startswith(("input/", "int8/xnnpack/", "int8/reference/", "int8/faces/"))]
    for key in exact:
        same = got[key].shape == expected[key].shape and np.array_equal(got[key], expected[key])
        if key.startswith("int8/faces"):  # the last bit of exp() is the C library's
            same = got[key].shape == expected[key].shape and np.allclose(got[key], expected[key], rtol=0, atol=1e-9)
        if not same:
            failures.append(f"{key} differs from x86")
    print(f"  {len(exact)} inputs, raw INT8 outputs and face lists compared to the bit")

    # That XNNPACK ran there: the interpreter handed as much to the delegate as on x86. Its bits cannot tell, since they
    # are the reference's by design of the scales; LiteRT's own kernels, which it would fall back to, give others.
    engaged, wanted = int(got["int8/xnnpack/delegates"]), int(expected["int8/xnnpack/delegates"])
    if not engaged or engaged != wanted:
        failures.append(f"XNNPACK did not engage: {engaged} delegates by default, {wanted} on x86")
    if got["int8/reference/delegates"]:
        failures.append(f"{got['int8/reference/delegates']} delegates with the reference kernels, none are expected")
    pairs = [(key, key.replace("/xnnpack/", "/reference/")) for key in got if "/xnnpack/" in key and "_" in key]
    share = np.mean(np.concatenate([(got[a] == got[b]).ravel() for a, b in pairs]))
    print(f"  XNNPACK: {engaged} delegates, as on x86; {share:.0%} of its raw values equal the reference kernels'")

    count, worst = 0, 0.0
    for key in (key for key in expected if key.startswith("fp32/faces/")):
        if got[key].shape != expected[key].shape:
            failures.append(f"{key}: {len(got[key])} faces, x86 has {len(expected[key])}")
        elif len(got[key]):
            count += len(got[key])
            worst = max(worst, float(np.abs(got[key] - expected[key])[:, 1:5].max()))
    print(f"  {count} FP32 faces, corners at most {worst:.2g} px apart")
    if not count or worst > CORNER_PIXELS:
        failures.append(f"FP32: {count} faces, corners {worst:.3g} px apart; at most {CORNER_PIXELS} is good")
    return failures


def c_twin(root: Path, work: Path) -> list[str]:
    """Compile the C twin there and run it on generated cases: the bytes of x86."""
    random = np.random.default_rng(0)
    cases = b"".join(frame_case(random, C_SPEC).encoded() for _ in range(300))
    images = len(cases)
    cases += b"".join(output_case(random, C_SPEC).encoded(C_SPEC) for _ in range(300))
    here = compile_driver(C_SPEC, work / "c86", "gcc", "-O2")
    folder = work / "c"
    folder.mkdir()
    for name, content in c_files(C_SPEC).items():
        (folder / name).write_bytes(content)
    shutil.copy(PROJECT / "tests" / "c" / "driver.c", folder)
    strict = "-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Werror -O2"
    userland.run(root, "cortex-a72", ["sh", "-c", f"cd /opt/work/c && gcc {strict} driver.c -lm -o driver"])
    failures = []
    for name, part in (("preprocessing", cases[:images]), ("postprocessing", cases[images:])):
        (folder / "cases").write_bytes(part)
        userland.run(root, "cortex-a72", ["sh", "-c", "cd /opt/work/c && ./driver < cases > results"])
        same = (folder / "results").read_bytes() == run_driver([str(here)], part)
        print(f"C twin compiled on ARM64, {name}, 300 cases: {'the bytes of x86' if same else 'other bytes'}")
        failures += [] if same else [f"C twin: {name} gives other bytes than on x86"]
    return failures


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else PROJECT / "build" / "arm64"))
    except userland.CannotRunError as error:
        print(f"test-arm64: {error}", file=sys.stderr)
        sys.exit(2)
