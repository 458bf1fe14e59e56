"""The verbs about a bundle's files and this machine: `verify`, `doctor` and `inspect`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from retinaface_edge.runtime.backends import installed
from retinaface_edge.runtime.bundle.bundle import MANIFEST, Bundle
from retinaface_edge.runtime.errors import BundleError
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.records import to_json
from retinaface_edge.runtime.text import printable

from .arguments import Verbs, add_verb, positive
from .exit_codes import BAD_INPUT, GOOD
from .json_output import Verification
from .process.streams import print_json


def verify(options: argparse.Namespace) -> int:
    """`verify`: check that every byte is as it was built."""
    from retinaface_edge.runtime.bundle.release import keep_least_version, release_of
    from retinaface_edge.runtime.bundle.signature import SIGNATURE, check_form, check_signature, configured_keys

    keys = tuple(options.key or ()) or configured_keys()
    if options.min_version and not keys:
        raise BundleError("--min-version is for signed bundles; give --key too")
    bundle = Bundle.load(options.bundle, keys)
    bundle.verify()
    release = release_of(bundle.manifest) if keys else None  # unsigned, it is nobody's word
    if options.min_version:
        if release is None or release.version < options.min_version:
            has = "no version" if release is None else f"version {release.version}"
            raise BundleError(f"{bundle.path} has {has}, and --min-version is {options.min_version}")
        keep_least_version(options.min_version)
    key = None
    if keys:
        key = check_signature((bundle.path / MANIFEST).read_bytes(), bundle.path / SIGNATURE, *keys)
        version = f", version {release.version}" if release else ""
        signed = f", signed by {key}{version}"
    else:
        there = check_form(bundle.path / SIGNATURE)
        signed = "; the signature was not checked; give --key" if there else "; not signed"
    if options.json != "-":
        print(f"{bundle.path}: {len(bundle.files)} files, all as built{signed}")
    signed_by = str(key) if keys else None
    _write_json(options.json, to_json(Verification(str(bundle.path), len(bundle.files), signed_by)))
    return GOOD


def inspect(options: argparse.Namespace) -> int:
    """`inspect`: print the manifest for a reader."""
    bundle = Bundle.load(options.bundle)
    if options.json != "-":
        _print_bundle(bundle)
    _write_json(options.json, {"bundle": str(bundle.path), **bundle.manifest})
    if options.sbom:
        from retinaface_edge.runtime.bundle.sbom import sbom

        write_atomic(options.sbom, sbom(bundle))
    if options.model_card:
        from retinaface_edge.runtime.bundle.model_card import model_card

        write_atomic(options.model_card, model_card(bundle))
    return GOOD


def _print_bundle(bundle: Bundle) -> None:
    spec, provenance = bundle.spec, bundle.manifest.get("provenance")
    print(f"bundle      {bundle.path} (format {bundle.manifest['format_version']})")
    shapes = " or ".join(f"1x{height}x{width}x3" for width, height in bundle.sizes)
    print(f"input       image, uint8, {shapes}, BGR; mean {spec.mean} inside the graph")
    print(f"anchors     {len(spec.anchors):,}: strides {spec.strides}, sizes {spec.anchor_sizes}")
    print("outputs     " + ", ".join(f"{output.name} {output.shape[1:]}" for output in spec.outputs))
    for key in ("checkpoint", "calibration", "tools"):
        values = provenance.get(key) if isinstance(provenance, dict) else None
        if not isinstance(values, dict):
            raise BundleError(f"the manifest of {bundle.path} does not say where it came from ({key}); build it again")
        print(printable(f"{key:11} " + ", ".join(f"{name} {value}" for name, value in values.items() if value != [])))
    print("artifacts")
    for size, artifact in (*bundle.sized_artifacts, *(("", mesh) for mesh in bundle.meshes)):
        for file in artifact.files:
            text = f"  {artifact.name:18} {file.bytes:>9,} bytes  {file.path:24} sha256 {file.sha256[:12]}  {size}"
            print(printable(text.rstrip()))


def doctor(options: argparse.Namespace) -> int:
    """`doctor`: print what this machine can run."""
    from retinaface_edge.benchmarks.doctor import doctor_lines, doctor_text

    if options.json != "-":
        print(doctor_text())
    if options.json:
        _write_json(options.json, dict(doctor_lines()))
    return GOOD if installed() else BAD_INPUT


def _write_json(target: str | None, content: Mapping[str, object]) -> None:
    """Write one JSON object to a file, or to standard output for `-`."""
    if target == "-":
        print_json(content)
    elif target:
        write_atomic(Path(target), json.dumps(content, indent=2) + "\n")


def add_system(verbs: Verbs) -> None:
    """Add the verbs and their arguments."""
    verb = add_verb(verbs, "verify", verify, "check every byte of a bundle", "verify bundle")
    verb.add_argument("bundle", type=Path)
    verb.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="PUB",
        help="also check the signature with this Ed25519 public key (PEM); give several to accept any of them",
    )
    verb.add_argument(
        "--min-version", type=positive, metavar="N", help="refuse older releases, here and in every load from now on"
    )
    _add_json(verb)
    verb = add_verb(verbs, "doctor", doctor, "show what this machine can run", "doctor")
    _add_json(verb)
    verb = add_verb(verbs, "inspect", inspect, "show what is in a bundle", "inspect bundle")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--sbom", type=Path, metavar="FILE", help="write a bill of materials (CycloneDX 1.6, JSON)")
    verb.add_argument("--model-card", type=Path, metavar="FILE", help="write a model card (Markdown)")
    _add_json(verb)


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", metavar="FILE", help="write one JSON object; - for standard output, instead of text")
