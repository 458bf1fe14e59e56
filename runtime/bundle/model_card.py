"""A bundle's model card (Mitchell et al., arXiv 1810.03993), Markdown, from the manifest alone."""

from __future__ import annotations

from .bundle import Bundle
from .provenance import facts, task


def model_card(bundle: Bundle) -> str:
    """What the model is, what it was made from, what it is for and where it fails; figures by the commands for them."""
    known, spec = facts(bundle), bundle.spec
    artifacts = "\n".join(
        f"| {f'{artifact.name} {size}'.rstrip()} | `{artifact.files[0].path}` | {artifact.bytes:,} "
        f"| `{artifact.files[0].sha256}` |"
        for size, artifact in bundle.sized_artifacts
    )
    shapes = " or ".join(f"1x{height}x{width}x3" for width, height in bundle.sizes)
    tools = "\n".join(f"| {name} | {version} | {licence} |" for name, (version, licence) in known.tools.items())
    return f"""# Model card: {known.detector}

## Model
- Single-stage network for {task(spec)} ({known.architecture}), {len(spec.anchors):,} anchors at strides
  {", ".join(map(str, spec.strides))}.
- Input: one uint8 BGR image, {shapes}; what else pixels need happens inside the graph.
- Output: faces, each with a score, a box and {spec.landmarks or "no"} points, in pixels of the original picture.
- Licence of the weights: {known.licence}.

## Made from
- Checkpoint: family {known.family}, SHA-256 `{known.checkpoint}`.
- INT8 calibrated on {known.images} images, SHA-256 `{known.calibration}`; ranges in
  `calibration.json`, layers in `layers.md`.
- Bundle: manifest digest `{known.digest}`.

| artifact | file | bytes | SHA-256 |
|---|---|---|---|
{artifacts}

| tool | version | licence |
|---|---|---|
{tools}

## Intended use
Finding faces and their landmarks in photographs and video, on the device. It does not recognise, identify or judge
people, and must not be the only ground for a decision about a person.

## Limits
- Small faces are lost: a face of fewer than about 10 pixels in the {spec.width}x{spec.height} input is below what its
  smallest anchors were trained for.
- Accuracy differs between groups of people, lights, poses and cameras as the training data does (WIDER FACE, web
  photographs); measure it on yours before use.

## Figures
None are copied here, so that none can be out of date:

- accuracy: `retinaface-edge eval BUNDLE --widerface WIDER`
- difference of INT8 and of backends: `retinaface-edge drift BUNDLE --images PHOTOS`
- speed: `retinaface-edge bench BUNDLE PHOTO`
"""
