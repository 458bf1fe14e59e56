"""The report: one HTML file from results. It needs no network, and opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.bundle.provenance import facts
from retinaface_edge.runtime.io.atomic import write_atomic

from ..accuracy.result import EvalResult
from ..drift.result import DriftResult
from ..errors import MeasurementError
from ..gates.gate import Gate, Outcome, failures, outcomes_of
from ..gates.sufficiency import shortfalls
from ..latency.result import BenchResult
from ..results import BundleOrigin
from . import tables
from .identity_pictures import identity_pictures
from .mesh_pictures import mesh_pictures
from .result_plots import drift_plots, eval_plots, latency_plots, set_name
from .sections import Section
from .worst_images import worst_pictures

TEMPLATE, STYLE = "report.html", "report.css"
LARGEST_BYTES = 3_000_000


@dataclass(frozen=True)
class ReportInput:
    """What a report shows: at least one result. Those of one bundle are shown together, others in sections.

    `images` is the folder that drift ran on: its worst pictures are drawn, and wireframes where there are meshes.
    """

    bundle: Bundle | None = None
    drift: DriftResult | None = None
    evals: tuple[EvalResult, ...] = ()
    bench: BenchResult | None = None
    images: Path | None = None
    sections: tuple[Section, ...] = ()

    def results(self) -> list[DriftResult | EvalResult | BenchResult]:
        """Those of one bundle, in the order in which they are shown."""
        return [result for result in (self.drift, *self.evals, self.bench) if result is not None]

    def origin(self) -> BundleOrigin | None:
        """The bundle, or what the results say of it; None where none says anything."""
        if self.bundle:
            return BundleOrigin(self.bundle.manifest["digest"], self.bundle.manifest.get("provenance", {}))
        return next((result.bundle for result in self.results() if result.bundle is not None), None)

    def artifacts(self) -> dict[str, int]:
        """Bytes of the artifacts by name: the bundle's, or those that were measured; 0 where they are not known."""
        if self.bundle:
            return {artifact.name: artifact.bytes for artifact in self.bundle.artifacts}
        found = {row.artifact: 0 for result in self.evals for row in result.results}
        for networks in (self.drift.networks if self.drift else (), *(result.networks for result in self.evals)):
            found |= {network.name: network.size_bytes for network in networks}
        return found | {runner.name: runner.size_bytes for runner in (self.bench.artifacts() if self.bench else ())}


def write_report(output: Path, given: ReportInput, gate: Gate | None = None) -> int:
    """Write the report, with the verdict of `gate` if there is one; gives its size in bytes.

    Raises `MeasurementError` when there is no result to report, one is empty, or they are of different bundles.
    """
    results, origin = given.results(), given.origin()
    if not results and not given.sections:
        raise MeasurementError("there is nothing to report; give a result that --json wrote")
    for result in results:
        if origin and result.bundle is not None and result.bundle.digest != origin.digest:
            raise MeasurementError(
                f"a result of {result.kind} is from a different bundle than {given.bundle.path}; measure again"
                if given.bundle
                else f"a result of {result.kind} is from a different bundle than the first; make a report of each"
            )
    if (given.drift and not given.drift.comparisons) or not all(result.results for result in given.evals):
        raise MeasurementError("a result of drift or eval compares nothing, so there is nothing to report of it")
    outcomes = outcomes_of(gate, results) if gate else []
    lacking = []
    for result in results if gate and outcomes else ():
        lacking += shortfalls(gate, result, outcomes_of(gate, [result])) if gate else []
    page = _render(given, outcomes, lacking, gate is not None).encode(errors="backslashreplace")
    if len(page) > LARGEST_BYTES:
        raise MeasurementError(
            f"the report would have {len(page):,} bytes, more than {LARGEST_BYTES:,}; leave out --images"
        )
    write_atomic(output, page)
    return len(page)


def _render(given: ReportInput, outcomes: Sequence[Outcome], lacking: Sequence[str], gated: bool) -> str:
    jinja2 = _jinja2()
    drift, evals, bench, images = given.drift, given.evals, given.bench, given.images
    floor = drift.identity if drift else None
    artifacts = given.artifacts()
    colours = {name: index for index, name in enumerate(artifacts)}
    plots = [
        *(drift_plots(drift, colours) if drift else ()),
        *eval_plots(evals, colours),
        *(latency_plots(bench, evals, colours) if bench else ()),
    ]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return str(
        environment.get_template(TEMPLATE).render(
            title=_title(given),
            style=_template(STYLE),
            gated=gated,
            judged=sum(outcome.passed is not None for outcome in outcomes),
            failed=failures(outcomes),
            lacking=lacking,
            summary=tables.summary(artifacts, drift, evals, bench) if given.results() else None,
            plots=plots,
            pictures=list(worst_pictures(drift, images)) if drift and images else [],
            speed=tables.speed(bench) if bench else None,
            conditions=tables.bench_conditions(bench) if bench else "",
            bench=bench,
            by_size=tables.by_size(drift) if drift else None,
            meshes=tables.meshes(drift.meshes, bench.meshes if bench else ()) if drift and drift.meshes else None,
            faces=list(mesh_pictures(drift.meshes, images)) if drift and images else [],
            identity=tables.identity(floor) if floor else None,
            crops=list(identity_pictures(floor, images)) if floor and images else [],
            recalls=[(set_name(result), tables.recall(result)) for result in evals],
            sections=given.sections,
            provenance=list(tables.provenance(given.origin(), drift, evals, bench)),
        )
    )


def _title(given: ReportInput) -> str:
    if given.bundle:
        return f"{facts(given.bundle).architecture} bundle {given.bundle.path.absolute().name}"
    kinds = dict.fromkeys(result.kind for result in given.results())
    measured = [f"Results of {' and '.join(kinds)}"] if kinds else []
    return "; ".join([*measured, *(section.title for section in given.sections)])


def _template(name: str) -> str:
    return (resources.files(__name__.rpartition(".")[0]) / "templates" / name).read_text(encoding="utf-8")


def _jinja2() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MeasurementError("a report needs Jinja2; run: pip install 'retinaface-edge[bench]'") from error
    return jinja2
