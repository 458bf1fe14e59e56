"""Identity under drift, and verification on labelled pairs, as plain text for a terminal."""

from __future__ import annotations

from ..identity.result import Cosines, EmbedderRecord, IdentityFloor, VerificationFigures, VerificationResult
from ..identity.verification import FARS, TarAtFar
from .text import band, number, table

PERCENTILES = ("1 %", "5 %", "median")


def identity_text(floor: IdentityFloor) -> str:
    """One row per artifact: percentiles of cosines; then TAR at the FARs that the pairs carry; then sizes."""
    header = ("identity against FP32", "faces", "lost", *PERCENTILES, *(f"mirrored {p}" for p in PERCENTILES))
    rows = [
        (row.artifact, str(row.same.pairs), str(row.unmatched), *low_cells(row.same), *low_cells(row.mirrored))
        for row in floor.comparisons
    ]
    first = floor.comparisons[0]
    others, own = first.impostors, first.reference_mirrored
    lines = [
        recogniser_sentence(floor.embedder),
        f"cosines of FP32's and the artifact's aligned crop of a face, and of the first and the second mirrored; faces "
        f"from score {floor.least_score:g} and {floor.least_px:g} px of the picture (longer side) on",
        *table([header, *rows]),
        f"for comparison: FP32's crop and its own mirror image {' / '.join(low_cells(own))}; {others.pairs} pairs of "
        f"different faces in one picture: median {number(others.p50, 3)}, 95 % {number(others.p95, 3)}, "
        f"99 % {number(others.p99, 3)}",
    ]
    bands = [size for size in first.by_size if size.cosines.pairs]
    header = ("median (1 %) by size", *(f"{band(b.from_px, b.to_px)} ({b.cosines.pairs})" for b in bands))
    sizes = [
        (row.artifact, *(_median_and_first(size.cosines) for size in row.by_size if size.cosines.pairs))
        for row in floor.comparisons
    ]
    lines += ["", *table([header, *sizes])] if bands else []
    return "\n".join([*lines, "", *_tars(floor)])


def _tars(floor: IdentityFloor) -> list[str]:
    """Rows of TAR at FAR with their intervals."""
    fars = [tar.far for tar in floor.comparisons[0].tar]
    if not fars:
        return ["TAR at FAR: there are fewer than 10 pairs of different faces, too few for any"]
    header = ("TAR (95 % interval) at FAR", "genuine pairs", *(f"{far:g}" for far in fars))
    rows = []
    for row in floor.comparisons:
        kinds = {"same face": row.tar, "mirrored": row.tar_mirrored, "mirrored, FP32": row.tar_reference_mirrored}
        rows += [(row.artifact, kind, *map(tar_cell, found)) for kind, found in kinds.items()]
    return table([header, *rows])


def verification_text(result: VerificationResult) -> str:
    """One row per artifact: accuracy by folds, TAR at the FARs that the pairs carry, pictures without a face."""
    folds = "its own folds" if result.folds == "given" else "ten folds in order"
    lines = [
        f"{result.pairs}: {result.genuine} genuine pairs and {result.impostors} impostors of {result.images.count} "
        f"pictures, {folds}, the face of {'the largest box' if result.face == 'largest' else 'the highest score'}, "
        f"scale {result.scale}",
        recogniser_sentence(result.embedder),
        *(f"skipped {image.name}: {image.reason}" for image in result.images.skipped),
    ]
    fars = [tar.far for tar in result.results[0].tar]
    lines += table(verification_rows(result))
    if len(fars) < len(FARS):
        lines.append(f"TAR at a FAR of {FARS[len(fars)]:g} needs {round(1 / FARS[len(fars)]):,} impostors")
    return "\n".join(lines)


def verification_rows(result: VerificationResult) -> list[tuple[str, ...]]:
    """Header and a row for each artifact."""
    fars = [tar.far for tar in result.results[0].tar]
    header = ("artifact", "accuracy", "error", *(f"TAR at {far:g}" for far in fars), "no face", "pairs lost")
    return [header, *map(_verification_row, result.results)]


def _verification_row(row: VerificationFigures) -> tuple[str, ...]:
    accuracy = row.accuracy
    return (
        row.artifact,
        number(accuracy.mean if accuracy else None, 4),
        number(accuracy.standard_error if accuracy else None, 4),
        *map(tar_cell, row.tar),
        str(row.pictures_without_face),
        f"{row.genuine_without_score} + {row.impostors_without_score}",
    )


def recogniser_sentence(embedder: EmbedderRecord) -> str:
    """The recogniser and how its input is made, and whether that was assumed."""
    assumed = "assumed, say otherwise with --embedder-mean, -std and -colour" if embedder.assumed else "as given"
    return (
        f"recogniser {embedder.name}, {embedder.size_px}x{embedder.size_px} {embedder.colour.value}, "
        f"(x - {embedder.mean:g}) / {embedder.std:g} ({assumed})"
    )


def low_cells(cosines: Cosines) -> tuple[str, str, str]:
    """First and fifth percentile and the median."""
    return number(cosines.p01, 3), number(cosines.p05, 3), number(cosines.p50, 4)


def tar_cell(tar: TarAtFar) -> str:
    """TAR with its interval."""
    return f"{tar.tar:.4f} ({tar.tar_low:.3f} to {tar.tar_high:.3f})"


def _median_and_first(cosines: Cosines) -> str:
    return f"{number(cosines.p50, 4)} ({number(cosines.p01, 3)})"
