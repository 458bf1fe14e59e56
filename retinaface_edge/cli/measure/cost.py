"""The verb `cost`: what a frame costs on a Raspberry Pi's core, counted on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.atomic import write_atomic

from ..arguments import Verbs, add_verb, percent
from ..exit_codes import FAILED, GOOD
from .options import add_bundle_size, add_csv, bundle_of, tables_as_csv

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.cost.board import Board
    from retinaface_edge.benchmarks.cost.result import CostResult

MAX_REGRESSION_PERCENT = 1.0
USER_SPACE = Path("build/arm64/root")
CORES = ("cortex-a72", "cortex-a76")


def cost(options: argparse.Namespace) -> int:
    """`cost`: instructions, cycles and cache misses of every TFLite artifact, by kernel and by layer."""
    from retinaface_edge.benchmarks.cost.board import board_of, default_file, read_boards, store_board
    from retinaface_edge.benchmarks.cost.regression import outcomes_since
    from retinaface_edge.benchmarks.cost.report import cost_markdown, cost_text
    from retinaface_edge.benchmarks.cost.result import CostResult
    from retinaface_edge.benchmarks.cost.run import count_bundle
    from retinaface_edge.benchmarks.gates.gate import failures, junit
    from retinaface_edge.benchmarks.latency.result import BenchResult
    from retinaface_edge.benchmarks.report.text import gate_text
    from retinaface_edge.benchmarks.results import read_result, write_result

    from ..progress import bar

    # Everything that can be wrong is read before minutes are spent on counting.
    _check(options)
    bundle, boards = bundle_of(options), read_boards(default_file())
    measured = read_result(options.calibrate, BenchResult) if options.calibrate else None
    old = read_result(options.baseline, CostResult) if options.baseline else None
    counted = count_bundle(bundle, _photograph(options.image), options.core or CORES, options.user_space, bar)

    if measured:
        board = board_of(counted, measured)
        store_board(default_file(), board)
        boards = {**boards, board.core: board}
        print(f"calibrated {board.core} with {board.threads} threads; kept in {default_file()}")
    result = _estimated(counted, boards)
    print(cost_text(result))
    if options.json:
        write_result(options.json, result)
    tables_as_csv(options, result)
    if options.markdown:
        write_atomic(options.markdown, cost_markdown(result))
    most = (MAX_REGRESSION_PERCENT if options.max_regression is None else options.max_regression) / 100.0
    outcomes = outcomes_since(result, old, most) if old else []
    if options.junit:
        write_atomic(options.junit, junit(outcomes, "cost"))
    if outcomes:
        print(gate_text(outcomes))
    return FAILED if failures(outcomes) else GOOD


def add_cost(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "count what a frame costs on a Raspberry Pi's core, on any machine"
    verb = add_verb(verbs, "cost", cost, summary, "cost bundle --core cortex-a72 --json cost.json", "tflite")
    verb.add_argument("bundle", type=Path)
    add_bundle_size(verb)
    verb.add_argument("--core", action="append", choices=CORES, help="count on this core only (default: on each)")
    verb.add_argument("--image", type=Path, metavar="FILE", help="the photograph (default: the demo's portrait)")
    verb.add_argument(
        "--user-space",
        type=Path,
        default=USER_SPACE,
        metavar="DIR",
        help="the ARM64 root folder that `make arm64-userspace` makes (default: %(default)s)",
    )
    verb.add_argument("--baseline", type=Path, metavar="FILE", help="an older result; exit with 1 if counts rose")
    verb.add_argument("--max-regression", type=percent, metavar="X", help="how far they may rise (default: 1 %%)")
    verb.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="what `bench --json` wrote on a board, used for estimates from now on",
    )
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result, operator by operator")
    add_csv(verb)
    verb.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    verb.add_argument("--junit", type=Path, metavar="FILE", help="write the comparison with the baseline")


def _check(options: argparse.Namespace) -> None:
    """Options that contradict each other, and files that cannot be written."""
    from retinaface_edge.benchmarks.errors import MeasurementError

    if options.max_regression is not None and not options.baseline:
        raise MeasurementError("--max-regression needs --baseline: an older result of cost")
    if options.junit and not options.baseline:
        raise MeasurementError("--junit reports the comparison with --baseline; give both")
    for target in (options.json, options.markdown, options.junit):
        if target and not target.absolute().parent.is_dir():
            raise MeasurementError(f"{target} cannot be written: there is no folder {target.parent}; make it first")


def _photograph(path: Path | None) -> Any:
    """The frame to count, uint8 BGR."""
    from retinaface_edge.runtime.io.images import read_image

    if path:
        return read_image(path)
    from retinaface_edge.calibration.dataset.image_set import CalibrationError
    from retinaface_edge.calibration.dataset.synthetic_scenes import portrait

    try:
        return portrait()
    except CalibrationError as error:
        raise ImageError("there is no photograph to count; give --image, or install the extra demo") from error


def _estimated(result: CostResult, boards: Mapping[str, Board]) -> CostResult:
    """The result with ranges of milliseconds: a calibrated board's where there is one, next to the general ones."""
    from retinaface_edge.benchmarks.cost.estimate import estimates

    artifacts = []
    for counted in result.artifacts:
        ranges = estimates(counted)
        if board := boards.get(counted.core):
            own = board.estimate(counted)
            ranges = (*(r for r in ranges if r.threads != own.threads), own)
        artifacts.append(replace(counted, estimates=ranges))
    return replace(result, artifacts=tuple(artifacts))
