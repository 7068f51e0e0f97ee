#!/usr/bin/env bash
# Training steps and forward passes on one GPU: ablate-train against timm + PyTorch on the same card, in turns.
# usage: bench/gpu_step.sh [SECONDS [CASE...]]      (default 3 s a measurement, all cases)
# CASE is MODEL:BATCH:WORK:MODE: WORK train or infer; MODE is the rival's: eager, compile, autotune, graph,
# graph_compile, graph_autotune (bench/peers/timm_gpu.py).
# Environment: ABLATE_TRAIN (default build/release/bin/ablate-train), PYTHON with timm 1.0.29 and torch 2.11
# (default python3). Prints one JSON line a measurement and a table of ratios.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-3}
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
  set -- deit_tiny_patch16_224:512:train:compile deit_small_patch16_224:256:train:compile \
    deit_base_patch16_224:256:train:compile resnet50:256:train:compile vit_tiny_patch4_32:128:train:graph_compile \
    deit_small_patch16_224:256:infer:compile deit_base_patch16_224:256:infer:compile
fi
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ours() {  # MODEL BATCH WORK
  local classes=1000 params='"drop_path": 0.1'
  [ "$1" != vit_tiny_patch4_32 ] || classes=100
  [ "${1#resnet}" = "$1" ] || params=
  cat >"$work/structure.json" <<JSON
{"model": {"name": "$1", "params": {$params}}, "classes": $classes, "bn_group": 0, "edits": []}
JSON
  "$train" bench --structure "$work/structure.json" --protocol "$3" --batch "$2" --device cuda \
    --dtype bf16 --warm-up 2 --budget-seconds "$seconds" 2>"$work/error" || cat "$work/error" >&2
}

for case in "$@"; do
  IFS=: read -r model batch kind mode <<<"$case"
  ours "$model" "$batch" "$kind" >"$work/ours.1"
  "$python" bench/peers/timm_gpu.py "$case" --seconds "$seconds" >"$work/theirs"
  ours "$model" "$batch" "$kind" >"$work/ours.2"
  "$python" - "$work" "$case" <<'PY' | tee -a "$work/table"
import json, sys
work, case = sys.argv[1:]
ours = [json.load(open(f"{work}/ours.{i}")) for i in (1, 2)]
theirs = json.load(open(f"{work}/theirs"))
speeds = [o["rows"][0]["images_per_s"] for o in ours]
record = ours[0]["record"]["toolchain"]
print(json.dumps({"case": case, "ablate_images_per_s": speeds, "rival_images_per_s": theirs["images_per_s"],
                  "ratio": [round(s / theirs["images_per_s"], 3) for s in speeds],
                  "ablate_peak_mib": ours[0]["rows"][0]["peak_bytes"] / 2**20,
                  "rival_peak_mib": theirs["peak_mib"], "device": theirs["device"],
                  "torch": theirs["torch"], "timm": theirs["timm"], "revision": record["git_commit"],
                  "modified": bool(record["git_dirty"])}))
PY
done
