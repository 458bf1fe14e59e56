"""The report: one HTML file from drift, eval and bench results. It needs no network, and opens anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.io.atomic import write_whole

from ..gates.gate import Outcome, apply_gate, failures, read_gate
from ..inference.network_under_test import MeasurementError
from ..results import read_result
from .mesh_section import mesh_pictures, mesh_table
from .result_plots import drift_plots, eval_plots, latency_plot, set_name
from .text import band, number
from .worst_images import worst_pictures

STYLE = "report.css"
LARGEST_BYTES = 3_000_000


def write_report(
    output: Path,
    bundle: Bundle,
    *,
    drift: Mapping[str, Any] | None = None,
    evals: Sequence[Mapping[str, Any]] = (),
    bench: Path | None = None,
    images: Path | None = None,
    gate: Path | None = None,
) -> int:
    """Write the report; gives its size in bytes.

    `images` is the folder that drift ran on: its worst pictures are drawn, and wireframes where there are meshes.
    Raises `MeasurementError` when there is no result to report, or when results are of another bundle.
    """
    results = [*([drift] if drift else []), *evals]
    if not results:
        raise MeasurementError("there is nothing to report; give --drift or --eval with what their --json wrote")
    for result in results:
        measured = result.get("bundle", {}).get("digest")
        if measured is not None and measured != bundle.manifest["digest"]:
            raise MeasurementError(
                f"a result of {result['kind']} is of another bundle than {bundle.path}; measure again"
            )
    rules = read_gate(gate)
    outcomes = [outcome for result in results for outcome in apply_gate(rules, result)]
    times, costs = _read_bench(bench) if bench else ({}, {})
    pictures = list(worst_pictures(drift, images)) if drift and images else []
    faces = list(mesh_pictures(drift.get("meshes", ()), images)) if drift and images else []
    page = "".join(_page(bundle, drift, evals, times, costs, outcomes, pictures, faces)).encode()
    if len(page) > LARGEST_BYTES:
        raise MeasurementError(
            f"the report would have {len(page):,} bytes, more than {LARGEST_BYTES:,}; leave --images"
        )
    write_whole(output, page)
    return len(page)


def _page(
    bundle: Bundle,
    drift: Mapping[str, Any] | None,
    evals: Sequence[Mapping[str, Any]],
    times: Mapping[str, float],
    costs: Mapping[str, float],
    outcomes: Sequence[Outcome],
    pictures: Sequence[str],
    faces: Sequence[str],
) -> Iterator[str]:
    style = resources.files(__package__).joinpath(STYLE).read_text(encoding="utf-8")
    title = f"RetinaFace bundle {bundle.path.absolute().name}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{style}</style></head><body><h1>{escape(title)}</h1>"
    yield from _verdict(outcomes)
    yield "<h2>Summary</h2>"
    yield _table(*_summary(bundle, drift, evals, times))
    colours = {artifact.name: index for index, artifact in enumerate(bundle.artifacts)}
    plots = [*drift_plots(drift, colours), *eval_plots(evals, colours), *latency_plot(evals, times, colours)]
    yield f'<h2>Plots</h2><div class="plots">{"".join(plots)}</div>'
    if pictures:
        yield (
            "<h2>Worst pictures</h2><p>Where faces moved, vanished or appeared most. Green: FP32 on ONNX Runtime; "
            f'magenta, dashed: the artifact.</p><div class="pictures">{"".join(pictures)}</div>'
        )
    if drift:
        yield "<h2>Faces against FP32, by size</h2>"
        yield _table(*_by_size(drift))
        if drift.get("meshes"):
            yield "<h2>3D meshes against FP32</h2><p>Distance of the vertices in the picture, % of the face's size."
            yield " Time: of a frame with meshes, over that without." if costs else ""
            yield " Green: FP32 on ONNX Runtime; magenta: the artifact.</p>" if faces else "</p>"
            yield _table(*mesh_table(drift["meshes"], costs))
            yield f'<div class="pictures faces">{"".join(faces)}</div>'
    for result in evals:
        yield f"<h2>Recall by face size: {escape(set_name(result))}</h2>"
        yield _table(*_recall(result))
    yield "<h2>Provenance</h2>"
    yield _definitions(_provenance(bundle, drift, evals))
    yield "</body></html>\n"


def _verdict(outcomes: Sequence[Outcome]) -> Iterator[str]:
    failed = failures(outcomes)
    judged = sum(outcome.passed is not None for outcome in outcomes)
    text = f"{judged - len(failed)} of {judged} checks passed"
    yield f'<p class="verdict {"bad" if failed else "good"}">{"Gate failed: " if failed else "Gate passed: "}{text}</p>'
    if failed:
        sentences = "".join(f"<li>{escape(outcome.rule.name)}: {escape(outcome.sentence)}</li>" for outcome in failed)
        yield f"<ul>{sentences}</ul>"


def _summary(
    bundle: Bundle,
    drift: Mapping[str, Any] | None,
    evals: Sequence[Mapping[str, Any]],
    times: Mapping[str, float],
) -> tuple[list[str], list[list[str]]]:
    header, rows = ["artifact", "bytes"], []
    against = (
        {row["artifact"]: row for row in drift["comparisons"] if row["reference"].endswith("fp32")} if drift else {}
    )
    header += ["ms a frame"] if times else []
    header += ["AP to FP32", "missed", "invented", "IoU", "least SQNR, dB"] if drift else []
    for result in evals:
        header += [f"AP {result['set']['name']}, {setting}" for setting in result["results"][0]["ap"]]
    for artifact in bundle.artifacts:
        row = [artifact.name, f"{artifact.bytes:,}"]
        if times:
            row.append(number(times.get(artifact.name), 1))
        if drift:
            row += _drift_cells(against.get(artifact.name))
        for result in evals:
            found = next((r for r in result["results"] if r["artifact"] == artifact.name), None)
            settings = result["results"][0]["ap"]
            row += [number(found["ap"][setting], 4) if found else "-" for setting in settings]
        rows.append(row)
    return header, rows


def _drift_cells(comparison: Mapping[str, Any] | None) -> list[str]:
    if comparison is None:
        return ["reference", "", "", "", ""]
    found = comparison["detections"]
    sqnr = [t["sqnr_db"] for t in comparison["tensors"] if t["anchors"] == "candidates" and t["sqnr_db"] is not None]
    return [
        number(found["ap_0.5"], 4),
        str(found["missed"]),
        str(found["invented"]),
        number(found["iou_mean"], 3),
        number(min(sqnr, default=None), 1),
    ]


def _by_size(drift: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    bands = drift["comparisons"][0]["detections"]["by_size"]
    header = ["artifact", "against", *(f"{band(b)}: matched / missed / invented" for b in bands)]
    rows = [
        [
            comparison["artifact"],
            comparison["reference"],
            *(f"{b['matched']} / {b['missed']} / {b['invented']}" for b in comparison["detections"]["by_size"]),
        ]
        for comparison in drift["comparisons"]
    ]
    return header, rows


def _recall(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    bands = [b for b in result["results"][0]["recall_by_size"] if b["faces"]]
    header = ["artifact", *(f"{band(b)} ({b['faces']})" for b in bands)]
    rows = [
        [row["artifact"], *(f"{b['found'] / b['faces']:.3f}" for b in row["recall_by_size"] if b["faces"])]
        for row in result["results"]
    ]
    return header, rows


def _provenance(
    bundle: Bundle, drift: Mapping[str, Any] | None, evals: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    yield "bundle", f"sha256 {bundle.manifest['digest']}"
    for key, value in bundle.manifest.get("provenance", {}).items():
        if key == "licences":  # the bill of materials has them
            continue
        parts = (f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else [str(value)]
        yield str(key), ", ".join(parts)
    for result in (*([drift] if drift else []), *evals):
        images = result["images"]
        what = set_name(result) if result["kind"] == "eval" else "drift"
        skipped = f", {len(images['skipped'])} skipped" if images["skipped"] else ""
        yield what, f"{images['count']} pictures, sha256 {images['digest'][:16]}{skipped}"
    environment = (drift or evals[0])["environment"]
    yield "measured on", ", ".join(f"{key} {value}" for key, value in environment.items())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _definitions(pairs: Iterator[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(key)}</dt><dd>{escape(value)}</dd>' for key, value in pairs)}</dl>"


def _read_bench(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """By artifact, from what `bench --json` writes: median milliseconds, and a frame with meshes over one without."""
    try:
        result = read_result(path, ("bench",))
        times = {row["name"]: float(row["milliseconds"]) for row in result["results"]}
        return times, {row["name"]: float(row["ratio"][0]) for row in result.get("meshes") or ()}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise MeasurementError(
            f"{path} is no result of bench ({error!r}); give a file that bench --json wrote"
        ) from error
