"""A bundle's bill of materials: CycloneDX 1.6 (ECMA-424), JSON, from the manifest alone."""

from __future__ import annotations

import json
import uuid
from typing import Any

from ..artifact import File
from .bundle import Artifact, Bundle
from .provenance import Facts, facts, task

NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""RFC 9562's namespace for URLs."""

CHECKPOINT, CALIBRATION = "checkpoint", "calibration-set"


def sbom(bundle: Bundle) -> str:
    """What the bundle consists of and was made from: artifacts, files, checkpoint, calibration set, tools."""
    known = facts(bundle)
    artifacts = {file.path for _, artifact in bundle.sized_artifacts for file in artifact.files}
    others = [file for file in bundle.files if file.path not in artifacts]
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, 'retinaface-edge:' + known.digest)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [_tool(name, *details) for name, details in known.tools.items()]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "bundle",
                "name": "retinaface-edge-bundle",
                "version": known.digest[:12],
                "description": f"{known.architecture} face detector for {_sizes(bundle)} input",
                "licenses": [_licence(known.licence)],
                "properties": [{"name": "retinaface-edge:manifest-digest", "value": known.digest}],
            },
        },
        "components": [
            *(_artifact(size, artifact, bundle, known) for size, artifact in bundle.sized_artifacts),
            *(_file(file) for file in others),
            {
                "type": "machine-learning-model",
                "bom-ref": CHECKPOINT,
                "name": f"checkpoint of {known.detector} ({known.family})",
                "hashes": [_hash(known.checkpoint)],
                "licenses": [_licence(known.licence)],
            },
            {
                "type": "data",
                "bom-ref": CALIBRATION,
                "name": f"{known.images} calibration images",
                "hashes": [_hash(known.calibration)],
            },
        ],
        "dependencies": [
            {"ref": "bundle", "dependsOn": [_reference(*sized) for sized in bundle.sized_artifacts]},
            *(
                {
                    "ref": _reference(size, artifact),
                    "dependsOn": [CHECKPOINT] + ([CALIBRATION] if artifact.precision == "int8" else []),
                }
                for size, artifact in bundle.sized_artifacts
            ),
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _artifact(size: str, artifact: Artifact, bundle: Bundle, known: Facts) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _reference(size, artifact),
        "name": f"{artifact.name} {size}".rstrip(),
        "licenses": [_licence(known.licence)],
        "components": [_file(file) for file in artifact.files],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": task(bundle.spec),
                "architectureFamily": known.architecture,
                "modelArchitecture": f"{known.backbone}, {artifact.precision}",
                "inputs": [{"format": "uint8 BGR image, NHWC"}],
                "outputs": [{"format": f"raw {', '.join(head.name for head in bundle.spec.heads)} by stride, NHWC"}],
            }
        },
    }


def _reference(size: str, artifact: Artifact) -> str:
    return f"artifact:{artifact.backend}:{artifact.precision}" + (size and f":{size}")


def _sizes(bundle: Bundle) -> str:
    return ", ".join(f"{width}x{height}" for width, height in bundle.sizes)


def _file(file: File) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"file:{file.path}", "name": file.path, "hashes": [_hash(file.sha256)]}


def _tool(name: str, version: str, licence: str) -> dict[str, Any]:
    return {
        "type": "application",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
        "licenses": [_licence(licence)],
    }


def _licence(name: str) -> dict[str, Any]:
    """By name: what packages call their licence is not always an SPDX expression."""
    return {"license": {"name": name}}


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}
