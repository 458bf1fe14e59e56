#!/usr/bin/env bash
# Build, check and pack a bundle: the steps of a pipeline, the same in every CI and on a developer's machine.
#
#   CHECKPOINT    the .pth or .onnx to compile; `demo` for the demo's weights
#   CALIBRATION   a folder of photographs for INT8; `demo` for the demo's scenes
#   PHOTOS        a folder of photographs for the gate; not those of the calibration
#   SPEED_GATE    options of `retinaface-edge bench` that judge speed (default: --target vga-30fps), for instance
#                 `--baseline bundle-before --max-regression 10`; `none` leaves it out
#   SIGNING_KEY   an Ed25519 private key, PEM (default: the bundle is not signed)
#   BUILD_OPTIONS further options of `retinaface-edge build`
#   OUT           where everything is written (default: out)
#
# Exit codes are those of retinaface-edge: 1 when the gate fails, 2 when the input is bad.
set -euo pipefail

out=${OUT:-out}
: "${CHECKPOINT:?set CHECKPOINT to the model to compile, or to demo}"
: "${CALIBRATION:?set CALIBRATION to a folder of photographs, or to demo}"
: "${PHOTOS:?set PHOTOS to a folder of photographs for the gate}"

options=(--output "$out/bundle" --log "$out/build.json" --force)
if [ "$CHECKPOINT" != demo ]; then options+=(--checkpoint "$CHECKPOINT"); fi
if [ "$CALIBRATION" != demo ]; then options+=(--calibration "$CALIBRATION"); fi
# A signature is for what this build made: it uses no stages that an earlier run left.
if [ -n "${SIGNING_KEY:-}" ]; then options+=(--sign "$SIGNING_KEY" --no-cache); else options+=(--cache "$out/cache"); fi

mkdir -p "$out"
# shellcheck disable=SC2086  # several options in one variable
retinaface-edge build "${options[@]}" ${BUILD_OPTIONS:-}
retinaface-edge verify "$out/bundle"
retinaface-edge drift "$out/bundle" --images "$PHOTOS" --json "$out/drift.json" --junit "$out/drift.xml"
speed=${SPEED_GATE:---target vga-30fps}
if [ "$speed" != none ]; then
  # shellcheck disable=SC2086
  retinaface-edge bench "$out/bundle" "$PHOTOS" --quick $speed \
    --json "$out/bench.json" --junit "$out/bench.xml" --markdown "$out/bench.md"
fi
retinaface-edge inspect "$out/bundle" --sbom "$out/sbom.cdx.json" --model-card "$out/model-card.md"

# The archive has the same bytes each time, too: no times, no owners, sorted names.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
  -C "$out" -cf - bundle | gzip -n > "$out/bundle.tar.gz"
sha256sum "$out/bundle.tar.gz"
