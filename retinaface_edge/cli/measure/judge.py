"""The verbs that measure the quality of bundles: `drift` and `eval`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_edge.runtime.ops.postprocess import Faces

from ..arguments import Verbs, add_verb, positive, share
from ..progress import say
from .compare import add_compare
from .options import (
    add_gate,
    add_measuring,
    add_recogniser,
    add_set,
    bundle_of,
    execution,
    finish,
    gate_of,
    origin,
    recogniser_of,
)
from .report import add_report

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.gates.gate import Gate
    from retinaface_edge.benchmarks.identity.crops import Recogniser


def drift(options: argparse.Namespace) -> int:
    """`drift`: compare every artifact with FP32, on pictures without annotation."""
    from retinaface_edge.benchmarks.drift.layer_metrics import layer_drift
    from retinaface_edge.benchmarks.drift.mesh_metrics import mesh_drift
    from retinaface_edge.benchmarks.drift.run import drift
    from retinaface_edge.benchmarks.identity.drift import ChosenFaces, identity_drift
    from retinaface_edge.benchmarks.inference.measurement import read_set
    from retinaface_edge.benchmarks.inference.network_under_test import REFERENCE, networks_of
    from retinaface_edge.benchmarks.report.identity_text import identity_text
    from retinaface_edge.benchmarks.report.mesh_text import mesh_text
    from retinaface_edge.benchmarks.report.text import drift_text

    gate = gate_of(options)
    bundle = bundle_of(options)
    networks = networks_of(bundle, [*(options.artifact or ["*"]), str(REFERENCE)])
    if options.checkpoint:
        from ...torch_reference import checkpoint_network

        networks.append(checkpoint_network(options.checkpoint, bundle.spec))
    files = read_set(options.images, options.limit, say)
    recogniser = recogniser_of(options)
    with execution(options) as how:
        result = drift(networks, files, how, every_pair=options.every_pair, score_threshold=options.score_threshold)
        if options.layers:
            (reference,) = networks_of(bundle, [str(REFERENCE)])
            result = replace(result, layers=layer_drift(reference, networks, files, how))
        if bundle.meshes:
            result = replace(result, meshes=mesh_drift(bundle, files, how))
        if recogniser:
            faces = ChosenFaces(options.least_identity_score, options.least_identity_face, options.score_threshold)
            floor = identity_drift(recogniser, networks, files, how, faces, options.keep_embeddings)
            result = replace(result, identity=floor)
    result = replace(result, bundle=origin(bundle))
    print(drift_text(result))
    if result.meshes:
        print(f"\n{mesh_text(result.meshes)}")
    if result.identity:
        print(f"\n{identity_text(result.identity)}")
    return finish(options, result, "drift", gate)


def eval_(options: argparse.Namespace) -> int:
    """`eval`: measure accuracy on an annotated set or on labelled pairs, of a bundle or of prediction files."""
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.run import evaluate, evaluate_files
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider, write_predictions
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.inference.network_under_test import networks_of
    from retinaface_edge.benchmarks.report.text import eval_text

    gate = gate_of(options)
    if (options.bundle is None) == (options.predictions is None):
        raise MeasurementError("give a bundle, or --predictions with the folder of a detector's text files")
    recogniser = recogniser_of(options)
    if (options.pairs is None) != (recogniser is None):
        raise MeasurementError(
            "give --pairs and --embedder together: the labelled pairs, and a face recognition network"
        )
    if recogniser:
        return _verify(options, recogniser, gate)
    if options.predictions:
        if not options.widerface:
            raise MeasurementError("--predictions needs --widerface, the ground truth that they are compared with")
        result = evaluate_files(options.widerface, options.predictions)
    else:
        dataset = read_wider(options.widerface) if options.widerface else read_boxes(options.boxes)
        bundle = bundle_of(options)
        folder = options.write_predictions

        def write(artifact: str, picture: str, faces: Faces) -> None:
            if folder:
                write_predictions(folder / artifact.replace(" ", "-"), picture, faces)

        with execution(options) as how:
            result = evaluate(
                networks_of(bundle, options.artifact or ["*"]),
                dataset,
                how,
                scale=options.scale,
                score_threshold=options.score_threshold,
                least_face_px=options.least_face,
                each=write,
            )
        result = replace(result, bundle=origin(bundle))
    print(eval_text(result))
    return finish(options, result, "eval", gate)


def _verify(options: argparse.Namespace, recogniser: Recogniser, gate: Gate | None) -> int:
    """`eval --pairs`: verification on labelled pairs."""
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.identity.pairs import read_pairs
    from retinaface_edge.benchmarks.identity.verify import LabelledPairs, VerificationProtocol, verify
    from retinaface_edge.benchmarks.inference.network_under_test import networks_of
    from retinaface_edge.benchmarks.report.identity_text import verification_text

    if options.bundle is None or options.write_predictions:
        raise MeasurementError("--pairs needs a bundle and cannot be used with prediction files")
    labelled = LabelledPairs(options.pairs.name, read_pairs(options.pairs))
    bundle = bundle_of(options)
    protocol = VerificationProtocol(options.face, options.score_threshold, options.scale)
    with execution(options) as how:
        networks = networks_of(bundle, options.artifact or ["*"])
        result = verify(recogniser, networks, labelled, how, protocol, options.keep_embeddings)
    result = replace(result, bundle=origin(bundle))
    print(verification_text(result))
    return finish(options, result, "verification", gate)


def add_judge(verbs: Verbs) -> None:
    """Add the verbs, and `compare` and their arguments."""
    _add_drift(verbs)
    _add_eval(verbs)
    add_compare(verbs)
    add_report(verbs)


def _add_drift(verbs: Verbs) -> None:
    summary, example = "compare every artifact with FP32", "drift bundle --images photos"
    verb = add_verb(verbs, "drift", drift, summary, example, extra="bench")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of pictures")
    verb.add_argument("--limit", type=positive, metavar="N", help="use at most N pictures, spread evenly")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="also compare with this checkpoint in PyTorch")
    verb.add_argument("--layers", action="store_true", help="show the error that each layer introduces")
    verb.add_argument("--every-pair", action="store_true", help="compare all artifacts with each other")
    add_recogniser(verb)
    verb.add_argument(
        "--least-identity-score",
        type=share,
        default=0.8,
        metavar="X",
        help="with --embedder: lowest score of a face (default: 0.8)",
    )
    verb.add_argument(
        "--least-identity-face",
        type=positive,
        default=48,
        metavar="PX",
        help="with --embedder: faces whose longer side in the picture is this and more (default: 48)",
    )
    add_measuring(verb)
    add_gate(verb)


def _add_eval(verbs: Verbs) -> None:
    summary, example = "measure accuracy on an annotated set", "eval bundle --widerface WIDER"
    verb = add_verb(verbs, "eval", eval_, summary, example, extra="eval")
    verb.add_argument("bundle", type=Path, nargs="?")
    add_set(verb, required=True).add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="labelled pairs: a CSV file with the columns first,second,same[,fold]",
    )
    verb.add_argument(
        "--face",
        choices=("largest", "highest score"),
        default="largest",
        help="with --pairs: the face that stands for a picture (default: %(default)s)",
    )
    add_recogniser(verb)
    verb.add_argument("--predictions", type=Path, metavar="DIR", help="evaluate these text files instead of a bundle")
    verb.add_argument("--write-predictions", type=Path, metavar="DIR", help="write the text files of every artifact")
    add_measuring(verb)
    add_gate(verb)
