"""The cost of a frame: whose work it is, cycles, estimates, the baseline, a board, and what is refused."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from retinaface_edge.benchmarks.cost import cycles
from retinaface_edge.benchmarks.cost.attribution import Kernel, attribute, boundaries, litert_kernel
from retinaface_edge.benchmarks.cost.board import board_of, read_boards, store_board
from retinaface_edge.benchmarks.cost.cores import CORES, read_core
from retinaface_edge.benchmarks.cost.emulator.counts import Block, Counts, Interval
from retinaface_edge.benchmarks.cost.emulator.symbols import Function, Functions, read_functions
from retinaface_edge.benchmarks.cost.emulator.user_space import open_user_space
from retinaface_edge.benchmarks.cost.estimate import FITTED_CORE, Point, estimates, fit, milliseconds, published_points
from retinaface_edge.benchmarks.cost.operators import Network, Operator, read_network
from retinaface_edge.benchmarks.cost.regression import outcomes_since
from retinaface_edge.benchmarks.cost.report import cost_markdown, cost_text
from retinaface_edge.benchmarks.cost.result import ArtifactCost, CostResult, OperatorCost, Part, Work
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.gates.gate import failures, junit
from retinaface_edge.benchmarks.latency.result import BenchResult, RunnerKind
from retinaface_edge.benchmarks.linux import Frequency
from retinaface_edge.benchmarks.results import read_result, write_result
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.artifact import ArtifactId

LIBRARY = 1 << 20
WORK = Work(1_000_000, 500_000, 300_000, 50_000, 20_000, 10_000, 900_000)
KERNELS = {
    "xnn_run_operator_with_index": 0,
    "xnn_qs8_qc8w_igemm_minmax_fp32_ukernel_2x8c8__asm": 100,
    "xnn_qs8_qc8w_gemm_minmax_fp32_ukernel_2x8c8__asm": 200,
    "xnn_qs8_qc8w_dwconv_minmax_fp32_ukernel_9p16c__neon": 300,
    "xnn_qs8_vlrelu_ukernel__neon_u32": 400,
    "xnn_qs8_vadd_minmax_ukernel__neon_ld64_u32": 500,
    "xnn_qs8_f32_vcvt_ukernel__neon_u32": 600,
    "_ZN6tflite3ops7builtin8quantize4EvalILNS2_10KernelTypeE1EEE12TfLiteStatusP13TfLiteContextP10TfLiteNode": 700,
    "_ZN6tflite3ops7builtin23resize_nearest_neighbor4EvalILNS2_10KernelTypeE2EEE12TfLiteStatus": 800,
    "_ZN6tflite7xnnpack12_GLOBAL__N_114SubgraphInvokeEP13TfLiteContextP10TfLiteNode": 900,
    "xnn_s8_maxpool_minmax_ukernel_9p__neon_u16": 1000,
}
FUNCTIONS = Functions(Function(offset, 100, name) for name, offset in KERNELS.items())
KERNEL_OF = {"CONV_2D": 100, "DEPTHWISE_CONV_2D": 300, "LEAKY_RELU": 400, "ADD": 500, "DEQUANTIZE": 600}


def operator(kind: str, name: str, reads: tuple[int, ...], writes: int, **more: object) -> Operator:
    fields = {"parts": len(reads), "macs": 10 * (kind == "CONV_2D"), "in_floats": False, **more}
    return Operator(kind, name, name.split(".")[0], reads, (writes,), **fields)  # type: ignore[arg-type]


def counts_of(begun_and_run: list[tuple[int, int]]) -> Counts:
    """A frame of intervals, each begun by the function at one offset and spent in that at another."""
    blocks = [Block(LIBRARY + run + 8, bytes(12)) for _, run in begun_and_run]
    intervals = [
        Interval(LIBRARY + begun if begun >= 0 else 0, 1, 1, 8, 0, 0, 0, 0, {index: 1 + index})
        for index, (begun, _) in enumerate(begun_and_run)
    ]
    return Counts(blocks, intervals, LIBRARY)


def test_every_interval_goes_to_its_operator() -> None:
    """LiteRT's own kernels between delegated parts, a vanished padding, a concatenation of constant and value."""
    operators = (
        operator("QUANTIZE", "image", (0,), 1),
        operator("CONCATENATION", "border", (1,), 2, parts=2),
        operator("CONV_2D", "stem", (2,), 3),
        operator("PAD", "stem.padded", (3,), 4),
        operator("DEPTHWISE_CONV_2D", "depth", (4,), 5),
        operator("RESIZE_NEAREST_NEIGHBOR", "up", (5,), 6),
        operator("ADD", "sum", (6, 3), 7),
        operator("LEAKY_RELU", "late", (5,), 8),
    )
    run = [
        (-1, 950),
        (700, 750),
        (900, 950),
        (0, 5000),
        (0, 5000),
        (0, 150),
        (0, 350),
        (0, 450),
        (800, 850),
        (900, 950),
    ]
    found = attribute(counts_of([*run, (0, 550)]), FUNCTIONS, Network(operators, (0,), ((1,),), ("int8",)))
    names = [row.operator.name if row.operator else None for row in found]
    assert names == [None, "image", None, "border", "border", "stem", "depth", "late", "up", None, "sum"]
    assert [row.kernel for row in found][3:8] == [
        Kernel.COPY,
        Kernel.COPY,
        Kernel.IGEMM,
        Kernel.DEPTHWISE,
        Kernel.LEAKY_RELU,
    ]


def test_pools_and_convolutions_of_one_channel_have_their_operators() -> None:
    """As in YuNet: a pool between convolutions, and a score of one channel, which XNNPACK's depthwise kernel makes."""
    operators = (
        operator("CONV_2D", "first", (0,), 1),
        operator("MAX_POOL_2D", "first.maxpool", (1,), 2),
        operator("CONV_2D", "layer", (2,), 3),
        operator("CONV_2D", "score", (3,), 4),
        operator("CONV_2D", "box", (2,), 5),
        operator("DEPTHWISE_CONV_2D", "box.depth", (5,), 6),
    )
    run = [(0, 150), (0, 1050), (0, 250), (0, 350), (0, 250), (0, 350)]
    found = attribute(counts_of(run), FUNCTIONS, Network(operators, (0,), ((1,),), ("int8",)))
    assert [row.operator.name if row.operator else None for row in found] == [one.name for one in operators]
    assert found[1].kernel is Kernel.POOL


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_frame_of_the_demo_goes_to_its_layers(bundle: Bundle, precision: str) -> None:
    """Intervals as XNNPACK makes them of the real file, in the file's order: each operator gets exactly its own."""
    model = bundle.read(bundle.artifact("tflite", precision).files[0])
    network = read_network(model)
    expected: list[str] = []
    run: list[tuple[int, int]] = []
    for one in network.operators:
        if one.kind in ("PAD", "CAST"):
            continue
        parts = one.parts if one.kind == "CONCATENATION" else 1
        own = {"RESIZE_NEAREST_NEIGHBOR": 800, "QUANTIZE": 0 if one.in_floats else 700}.get(one.kind, 0)
        kernel = {"RESIZE_NEAREST_NEIGHBOR": 800, "QUANTIZE": 600}.get(one.kind, KERNEL_OF.get(one.kind, 5000))
        run += [(own, kernel + 10)] * parts
        expected += [one.name] * parts
    if precision == "fp32":  # the cast is LiteRT's
        with_cast = replace(network, operators=tuple(o for o in network.operators if o.kind != "CAST"))
        cast = next(o for o in network.operators if o.kind == "CAST")
        network = replace(with_cast, inputs=(*network.inputs, *cast.writes))
    found = attribute(counts_of(run), FUNCTIONS, network)
    assert [row.operator.name if row.operator else None for row in found] == expected
    islands = {row.operator.name for row in found if row.kernel is Kernel.FLOAT_ISLAND and row.operator}
    assert bool(islands) == (precision == "int8" and any(one.in_floats for one in network.operators))


def test_the_work_of_a_network_is_the_bundles(bundle: Bundle) -> None:
    expected = bundle.manifest["provenance"]["network"]["multiply_accumulates"]
    for precision in ("int8", "fp32"):
        network = read_network(bundle.read(bundle.artifact("tflite", precision).files[0]))
        assert network.macs == expected
        assert network.input_shapes == (bundle.spec.input_shape,)
        layers = {one.layer for one in network.operators if one.macs}
        assert {"backbone.stem", "pyramid.merge.0", "score_8", "landmark_32"} <= layers
        assert not [layer for layer in layers if layer.endswith(("activation", "padded", "integers"))]


def test_what_is_no_network_is_refused() -> None:
    for content in (b"", b"TFL3", b"\0" * 100):
        with pytest.raises(MeasurementError, match="TFLite file cannot be counted"):
            read_network(content)


def test_names_of_litert_kernels_are_read() -> None:
    names = [name for name in KERNELS if "builtin" in name]
    assert [litert_kernel(name) for name in names] == ["QUANTIZE", "RESIZE_NEAREST_NEIGHBOR"]
    assert litert_kernel("_ZN6tflite3ops7builtin4conv4EvalILNS2_10KernelTypeE1EEE12TfLiteStatus") == "CONV_2D"
    assert litert_kernel("_ZN6tflite3ops7builtin4cast12_GLOBAL__N_14EvalEP13TfLiteContextP10TfLiteNode") == "CAST"
    assert litert_kernel("_ZN6tflite3ops7builtin4cast7PrepareEP13TfLiteContextP10TfLiteNode") is None
    assert litert_kernel("xnn_run_operator") is None
    assert sorted(boundaries(FUNCTIONS)) == [0, 700, 800, 900]


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_functions_of_a_library_are_found_by_address(tmp_path: Path) -> None:
    source, library = tmp_path / "a.c", tmp_path / "liba.so"
    source.write_text(
        "static int hidden(int x) { return x * 3; }\nint shown(int x) { return hidden(x) + hidden(x + 1); }"
    )
    subprocess.run(["gcc", "-O0", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    lines = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True).stdout.split("\n")
    symbols = {parts[2]: int(parts[0], 16) for line in lines if len(parts := line.split()) == 3}
    functions = read_functions(library)
    for name in ("hidden", "shown"):
        assert functions.at(symbols[name]) == functions.at(symbols[name] + 3) == name
    assert functions.at(0) is None
    subprocess.run(["strip", str(library)], check=True)
    with pytest.raises(MeasurementError, match="names no functions"):
        read_functions(library)
    library.write_bytes(library.read_bytes()[:100])
    with pytest.raises(MeasurementError, match="damaged"):
        read_functions(library)


def test_cycles_are_those_of_the_slowest_chain() -> None:
    """Hand-made blocks: additions that wait for each other, the same that do not, and a chain of multiplications."""
    try:
        cycles.find_llvm()
    except MeasurementError as error:
        pytest.skip(str(error))
    chain = struct.pack("<I", 0x8B010000)  # add x0, x0, x1
    free = struct.pack("<I", 0x8B020023)  # add x3, x1, x2
    multiply = struct.pack("<I", 0x9B017C00)  # mul x0, x0, x1
    blocks = [Block(64, chain * 4), Block(128, free * 4), Block(192, multiply * 4)]
    counts = Counts(blocks, [Interval(0, 0, 0, 0, 0, 0, 0, 0, {0: 1000, 1: 1000, 2: 1000})], 0)
    for core in CORES:
        waiting, independent, multiplied = cycles.block_cycles(counts, read_core(core))
        assert waiting == pytest.approx(4.0, rel=0.05)
        assert independent == pytest.approx(4.0 / (2 if core == "cortex-a72" else 3), rel=0.15)
        assert multiplied > 2.0 * waiting


def cost_of(name: str = "tflite int8", core: str = FITTED_CORE, work: Work = WORK) -> ArtifactCost:
    row = OperatorCost("stem", "stem", Kernel.IGEMM, "igemm", 4_000_000, replace(work, cycles=work.cycles - 1000))
    return ArtifactCost(name, Part.DETECTOR, core, "0" * 64, 4_000_000, work, (row,))


def result_of(*costs: ArtifactCost) -> CostResult:
    tools = {"qemu-user": "7.2.22", "ai-edge-litert": "2.3.0", "llvm": "19.1.7"}
    return CostResult("cost", 2, "b" * 64, "i" * 64, tools, {FITTED_CORE: "a model"}, costs)


def test_a_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    cost = cost_of()
    result = result_of(replace(cost, estimates=estimates(cost)))
    write_result(tmp_path / "cost.json", result)
    assert read_result(tmp_path / "cost.json", CostResult) == result
    content = json.loads((tmp_path / "cost.json").read_text())
    content["artifacts"][0]["total"]["cicles"] = content["artifacts"][0]["total"].pop("cycles")
    (tmp_path / "cost.json").write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match=r"artifacts\[0\].total.cicles"):
        read_result(tmp_path / "cost.json", CostResult)


def test_the_texts_show_every_figure() -> None:
    cost = cost_of()
    result = result_of(replace(cost, estimates=estimates(cost)))
    for text in (cost_text(result), cost_markdown(result)):
        for shown in ("IGEMM", "stem", "8.00", "100%", "99.8%", "estimated, not measured", "a model", "Raspberry Pi 4"):
            assert shown in text


def test_a_rise_above_the_limit_fails_and_nothing_else_does() -> None:
    old = result_of(cost_of(), cost_of(core="cortex-a76"))
    assert not failures(outcomes_since(old, old, 0.0))
    dearer = replace(WORK, cycles=round(WORK.cycles * 1.02), l2_misses=round(WORK.l2_misses * 1.005))
    outcomes = outcomes_since(result_of(cost_of(work=dearer), cost_of(core="cortex-a76")), old, 0.01)
    assert [(f.figure.artifact, f.rule.figure) for f in failures(outcomes) if f.figure] == [
        ("tflite int8, detector, cortex-a72", "cycles_ratio")
    ]
    assert b'failures="1"' in junit(outcomes, "cost")
    assert not failures(outcomes_since(old, result_of(cost_of(work=dearer)), 0.01))


def test_a_handful_of_misses_is_not_judged() -> None:
    few, more = (
        replace(WORK, l1_misses=10, l2_misses=2, dram_bytes=128),
        replace(WORK, l1_misses=30, l2_misses=9, dram_bytes=576),
    )
    assert not failures(outcomes_since(result_of(cost_of(work=more)), result_of(cost_of(work=few)), 0.0))


def test_what_cannot_be_compared_is_refused() -> None:
    result = result_of(cost_of())
    for old, reason in (
        (replace(result, input_digest="j" * 64), "another picture"),
        (replace(result, tools={**result.tools, "llvm": "16.0.0"}), "other tools"),
        (result_of(cost_of("tflite fp32")), "in common"),
    ):
        with pytest.raises(MeasurementError, match=reason):
            outcomes_since(result, old, 0.01)
    newer = replace(result, tools={**result.tools, "ai-edge-litert": "2.4.0"})
    assert not failures(outcomes_since(newer, result, 0.0)), "a new LiteRT is what the gate is for"
    fixed = replace(result, tools={**result.tools, "qemu-user": "7.2.23"})
    assert not failures(outcomes_since(fixed, result, 0.0)), "Debian's security fixes leave a baseline valid"
    with pytest.raises(MeasurementError, match="other tools"):
        outcomes_since(replace(result, tools={**result.tools, "qemu-user": "8.2.0"}), result, 0.01)


def test_a_fit_finds_the_time_per_miss_that_the_points_were_made_with() -> None:
    random = np.random.default_rng(0)
    for seed in range(20):
        per_miss = float(random.uniform(1.0, 20.0))
        points = [
            Point(f"{seed}", "", 4, 0.0, int(random.integers(10**7, 10**9)), int(random.integers(10**5, 10**7)))
            for _ in range(5)
        ]
        exact = [replace(point, milliseconds=milliseconds(point, 1.5, per_miss)) for point in points]
        found = fit(exact, 1.5)
        assert found.nanoseconds_per_miss == pytest.approx(per_miss)
        assert max(map(abs, found.left_out_errors)) < 1e-9


def test_the_published_points_lie_in_their_ranges() -> None:
    """Each point, left out of the fit, in the range that is printed, which is 30 % at most."""
    points = published_points()
    found = fit(points.fitted, points.gigahertz)
    assert len(points.fitted) >= 4
    assert found.range_share <= 0.30
    assert all(abs(error) <= found.range_share for error in found.left_out_errors)
    for point in points.checked:
        low, high = (milliseconds(point, points.gigahertz, found.nanoseconds_per_miss * n) for n in (1, 4))
        assert low <= point.milliseconds <= high


def test_an_estimate_is_a_range_that_says_what_it_rests_on() -> None:
    for core in CORES:
        ranges = estimates(cost_of(core=core))
        assert {one.threads for one in ranges} == {1, 4}
        assert all(0.0 < one.lowest_ms < one.highest_ms for one in ranges)
        assert all("estimated, not measured" in one.basis for one in ranges)
        assert all(("NOT VALIDATED" in one.basis) == (core != FITTED_CORE) for one in ranges)


def bench_on_a_pi(nanoseconds_per_miss: float, costs: tuple[ArtifactCost, ...]) -> BenchResult:
    """What bench would write on a Raspberry Pi 4 on which a miss takes so long."""
    old = read_result(ROOT / "tests" / "fixtures" / "results_v1" / "bench.json", BenchResult)
    runners = []
    for cost in costs:
        point = Point("", "", 1, 0.0, cost.total.cycles, cost.total.l1_misses)
        latency = replace(old.runners[0].latency, inference_ms=milliseconds(point, 1.8, nanoseconds_per_miss))
        artifact = ArtifactId.parse(cost.artifact)
        runners.append(
            replace(old.runners[0], name=cost.artifact, kind=RunnerKind.ARTIFACT, artifact=artifact, latency=latency)
        )
    machine = replace(old.machine, processor="0xd08", cores=(3,), frequency=Frequency(1500.0, 1800.0))
    return replace(old, bundle=replace(old.bundle, digest="b" * 64), machine=machine, runners=tuple(runners))


def test_a_board_is_calibrated_by_its_own_times_and_kept(tmp_path: Path) -> None:
    costs = (cost_of(), cost_of("tflite fp32", work=replace(WORK, cycles=900_000, l1_misses=90_000)))
    result = result_of(*costs)
    board = board_of(result, bench_on_a_pi(12.0, costs))
    assert (board.core, board.gigahertz, board.threads, len(board.points)) == (FITTED_CORE, 1.8, 1, 2)
    assert board.fit().nanoseconds_per_miss == pytest.approx(12.0)
    for cost, point in zip(costs, board.points, strict=True):
        estimate = board.estimate(cost)
        assert estimate.lowest_ms == pytest.approx(point.milliseconds * 0.95)
        assert estimate.highest_ms == pytest.approx(point.milliseconds * 1.05)
        assert "calibrated" in estimate.basis
    alone = board_of(result, bench_on_a_pi(12.0, costs[:1]))
    assert alone.estimate(costs[0]).highest_ms > board.estimate(costs[0]).highest_ms
    store_board(tmp_path / "new" / "boards.json", board)
    store_board(tmp_path / "new" / "boards.json", replace(board, core="cortex-a76"))
    assert read_boards(tmp_path / "new" / "boards.json") == {
        FITTED_CORE: board,
        "cortex-a76": replace(board, core="cortex-a76"),
    }
    assert read_boards(tmp_path / "none.json") == {}


def test_a_bench_result_that_does_not_belong_is_refused(tmp_path: Path) -> None:
    costs = (cost_of(),)
    result, bench = result_of(*costs), bench_on_a_pi(12.0, costs)
    with pytest.raises(MeasurementError, match="another bundle"):
        board_of(replace(result, bundle_digest="c" * 64), bench)
    with pytest.raises(MeasurementError, match=r"Xeon.*not of cortex-a72 \(Raspberry Pi 4\)"):
        board_of(result, replace(bench, machine=replace(bench.machine, processor="Xeon")))
    with pytest.raises(MeasurementError, match="no TFLite artifact"):
        board_of(result_of(cost_of("tflite fp32")), bench)
    (tmp_path / "boards.json").write_text("{}")
    with pytest.raises(MeasurementError, match="not a file of calibrated boards"):
        read_boards(tmp_path / "boards.json")


def test_without_a_user_space_one_line_says_how_to_make_it(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MeasurementError, match="make arm64-userspace"):
        open_user_space(tmp_path)
    assert main(["cost", str(bundle.path), "--user-space", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "make arm64-userspace" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--max-regression", "1"], "--max-regression needs --baseline"),
        (["--junit", "out.xml"], "--junit reports"),
        (["--json", "nowhere/at/all.json"], "no folder"),
        (["--baseline", "missing.json"], "is not readable JSON"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_counted(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert main(["cost", str(bundle.path), *arguments]) == 2
    assert reason in capsys.readouterr().err
