#!/usr/bin/env bash
# Training steps on several GPUs of one machine: ablate-train against timm + DistributedDataParallel, in turns.
# usage: bench/gpu_scaling.sh [RANKS [SECONDS [CASE...]]]      (default 2 ranks, 4 s a measurement, all cases)
# CASE is MODEL:BATCH with the images of one GPU. Environment: ABLATE_TRAIN (default build/release/bin/ablate-train),
# PYTHON with timm 1.0.29 and torch 2.11 (default python3), NCCL_NVLS_ENABLE (default 0, for both sides), WIRE (default
# fp32: the format of our gradients between GPUs, or bf16; the rival's are fp32).
# Prints one JSON line a case: speeds of all ranks, scaling against as many ranks alone, ratios.
set -eu
cd "$(dirname "$0")/.."
ranks=${1:-2}
seconds=${2:-4}
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
  set -- deit_tiny_patch16_224:256 deit_small_patch16_224:256 deit_base_patch16_224:128
fi
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
python=${PYTHON:-python3}
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ours() {  # MODEL BATCH
  local classes=1000 params='"drop_path": 0.1'
  [ "$1" != vit_tiny_patch4_32 ] || classes=100
  [ "${1#resnet}" = "$1" ] || params=
  cat >"$work/structure.json" <<JSON
{"model": {"name": "$1", "params": {$params}}, "classes": $classes, "bn_group": 0, "edits": []}
JSON
  scripts/ranks "$ranks" "$train" bench --structure "$work/structure.json" --protocol train --batch "$2" \
    --device cuda --dtype bf16 --wire "${WIRE:-fp32}" --warm-up 2 --budget-seconds "$seconds" 2>"$work/error" ||
    cat "$work/error" >&2
}

for case in "$@"; do
  IFS=: read -r model batch <<<"$case"
  ours "$model" "$batch" >"$work/ours.1"
  "$python" bench/peers/timm_ddp.py "$case" --ranks "$ranks" --seconds "$seconds" >"$work/theirs"
  ours "$model" "$batch" >"$work/ours.2"
  "$python" - "$work" "$case" <<'PY'
import json, sys
work, case = sys.argv[1:]
ours = [json.load(open(f"{work}/ours.{i}")) for i in (1, 2)]
theirs = json.load(open(f"{work}/theirs"))
rows = [o["rows"][0] for o in ours]
facts = ours[0]["record"]["toolchain"]
print(json.dumps({"case": case, "protocol": rows[0]["protocol"], "world_size": rows[0]["world_size"],
                  "ablate_images_per_s": [r["images_per_s"] for r in rows],
                  "ablate_scaling": [round(r["scaling"], 4) for r in rows],
                  "rival_images_per_s": theirs["images_per_s"], "rival_scaling": round(theirs["scaling"], 4),
                  "ratio": [round(r["images_per_s"] / theirs["images_per_s"], 3) for r in rows],
                  "device": theirs["device"], "torch": theirs["torch"], "nccl": theirs["nccl"],
                  "timm": theirs["timm"], "revision": facts["git_commit"], "modified": bool(facts["git_dirty"])}),
      flush=True)
PY
done
