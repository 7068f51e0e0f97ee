#!/usr/bin/env bash
# Training steps on photos: fed by ablate-train's loader, beside the same steps on images that lie ready, in turns.
# usage: bench/gpu_photos.sh FOLDER [ROUNDS [SECONDS]]    FOLDER/<class>/<image>; default 3 rounds of 3 s a measurement
# DeiT-S, bf16, batch 256, DeiT's augmentation, on one GPU. The photos are repeated to at least IMAGES files by links
# and packed as they are. Rows: "ready", one batch again and again; "decoded", crops that lie decoded and are resampled
# and augmented on the GPU; "crops", the same decoded by the loader's threads; "whole", all of it by these threads.
# Environment: ABLATE_TRAIN (default build/release/bin/ablate-train), PYTHON (default python3), IMAGES (default 50000),
# THREADS of the loader (default: as many as there are processors, less one), TMPDIR with room for the packed photos
# (IMAGES times their mean size), PACKED, a folder that ablate-train convert has written, instead of FOLDER; to try it
# without a GPU: DEVICE=cpu, MODEL, BATCH. Prints JSON lines.
set -eu
cd "$(dirname "$0")/.."
packed=${PACKED:-}
[ $# -gt 0 ] || [ -n "$packed" ] || { sed -n 2,10p "$0"; exit 2; }
folder=${1:+$(realpath "$1")} rounds=${2:-3} seconds=${3:-3}
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
python=${PYTHON:-python3}
device=${DEVICE:-cuda} images=${IMAGES:-50000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

if [ -z "$packed" ]; then
  packed=$work/packed
  "$python" - "$folder" "$work/data" "$images" <<'PY'
import itertools, os, pathlib, sys
folder, data, images = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
photos = sorted(path for path in folder.glob("*/*") if path.is_file())
for part, copies in (("train", -(-images // len(photos))), ("val", 1)):
    for photo, copy in itertools.product(photos, range(copies)):
        target = data / part / photo.parent.name / f"{copy:04d}_{photo.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(photo, target)
PY
  "$train" convert "$work/data" "$packed" >"$work/converted" 2>&1 || { cat "$work/converted" >&2; exit 1; }
fi

precision=bf16
[ "$device" = cuda ] || precision=fp32
cat >"$work/run.toml" <<TOML
dataset = { name = "packed" }
model = { name = "${MODEL:-deit_small_patch16_224}", drop_path = 0.1 }
augmentation = "deit"
epochs = 1
global_batch = ${BATCH:-256}
precision = "$precision"
TOML
"$train" bench input "$work/run.toml" --data packed="$packed" --device "$device" --rounds "$rounds" \
  --seconds "$seconds" ${THREADS:+--loader-threads "$THREADS"} >"$work/result" 2>"$work/error" ||
  { cat "$work/error" >&2; exit 1; }

"$python" - "$work/result" <<'PY'
import json, sys
result = json.load(open(sys.argv[1]))
record = result["record"]
for name, way in result["ways"].items():
    way = {key: round(value, 4) if isinstance(value, float) else value for key, value in way.items()}
    way["images_per_s"] = [round(rate) for rate in way["images_per_s"]]
    way["stages"] = {stage: round(share, 3) for stage, share in way.get("stages", {}).items()}
    print(json.dumps({"images": name, **way}))
print(json.dumps({key: result[key] for key in
                  ("model", "augmentation", "samples", "cores", "loader_threads", "device_finishes_images_per_s")
                  if key in result} | {"record": record}))
PY
