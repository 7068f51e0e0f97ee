#!/usr/bin/env bash
# Training steps of UPerNet + DeiT-S on one GPU: ablate-train against compiled PyTorch on the same card, in turns.
# usage: bench/gpu_segmentation.sh [SECONDS [BATCH [MODE]]]   (default 5 s a measurement, 16 images, compile)
# MODE is the rival's: eager, compile. Environment: ABLATE_TRAIN (default build/release/bin/ablate-train), PYTHON
# with torch 2.11 (default python3). Prints one JSON line.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-5} batch=${2:-16} mode=${3:-compile}
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/structure.json" <<JSON
{"model": {"name": "upernet_deit_small_patch16_224", "params": {"image_size": 512, "drop_path": 0.1}},
 "classes": 150, "bn_group": $batch, "edits": []}
JSON

ours() {
  "$train" bench --structure "$work/structure.json" --protocol train --batch "$batch" --device cuda --dtype bf16 \
    --warm-up 2 --budget-seconds "$seconds" 2>"$work/error" || cat "$work/error" >&2
}

ours >"$work/ours.1"
"$python" bench/peers/torch_upernet.py --batch "$batch" --mode "$mode" --seconds "$seconds" >"$work/theirs"
ours >"$work/ours.2"
"$python" - "$work" "$batch" <<'PY'
import json, sys
work, batch = sys.argv[1], int(sys.argv[2])
ours = [json.load(open(f"{work}/ours.{i}")) for i in (1, 2)]
theirs = json.load(open(f"{work}/theirs"))
speeds = [o["rows"][0]["images_per_s"] for o in ours]
record = ours[0]["record"]["toolchain"]
print(json.dumps({"case": f"upernet_deit_small_patch16_224:512:{batch}:train:{theirs['mode']}",
                  "ablate_images_per_s": speeds, "rival_images_per_s": theirs["images_per_s"],
                  "ratio": [round(s / theirs["images_per_s"], 3) for s in speeds],
                  "ablate_peak_mib": ours[0]["rows"][0]["peak_bytes"] / 2**20, "rival_peak_mib": theirs["peak_mib"],
                  "device": theirs["device"], "torch": theirs["torch"], "revision": record["git_commit"],
                  "modified": bool(record["git_dirty"])}))
PY
