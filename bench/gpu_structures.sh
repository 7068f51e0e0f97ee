#!/usr/bin/env bash
# Merged tokens and removed attention on one GPU: ablate-train against timm + PyTorch on the same card, in turns.
# usage: bench/gpu_structures.sh [SECONDS [CASE...]]      (default 2 s a measurement, all cases)
# CASE: {tome,nose,nose_tome}_{train,infer}, the same with _fp32 at the end for the papers' protocol: single
# precision, attention unfused. tome: 13 tokens in each block of DeiT-S; nose: the attention of half the blocks of
# DeiT-B removed; nose_tome: that, and 14 tokens in each block left with attention. Batch 256.
# Of each case: ours beside our dense model, the rival's same structure and dense model, compiled (MODES: others,
# too), and what share of the ideal saving is reached: with a and m the measured costs of a dense block's
# attention and MLP branch (norm and join included, without the optimizer), n tokens of a branch, N of the dense
# one, 0 where it is removed:
#   ideal = dense - sum over blocks of a (1 - n/N) + m (1 - n'/N);  share = (dense - ours) / (dense - ideal)
# Environment: ABLATE_TRAIN (default build/release/bin/ablate-train), PYTHON with timm 1.0.29 and torch 2.11
# (default python3), MODES (default compile), RIVAL=0 leaves the rival out. Prints one JSON line a case.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-2}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- tome_train tome_infer nose_train nose_infer nose_tome_train nose_tome_infer \
  nose_infer_fp32 nose_tome_infer_fp32 nose_train_fp32 nose_tome_train_fp32
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
python=${PYTHON:-python3}
modes=${MODES:-compile}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
removed=0,1,3,4,6,9

ours() {  # MODEL WORK DTYPE METHODS [SWITCH...]
  local model=$1 kind=$2 dtype=$3 methods=$4
  shift 4
  [ "$dtype" != fp32 ] || set -- --plain-attention "$@"
  "$train" bench --model "$model" --model-params '{ drop_path = 0.1 }' --methods "$methods" --against-methods '[]' \
    --protocol "$kind" --batch 256 --device cuda --dtype "$dtype" --warm-up 2 --budget-seconds "$seconds" "$@" \
    2>"$work/error" || { cat "$work/error" >&2; return 1; }
}

rival() {  # MODEL WORK DTYPE R REMOVED: the structure and the dense model, in every mode
  local mode cases=()
  for mode in $modes; do cases+=("$1:256:$2:$mode:$3:$4:$5" "$1:256:$2:$mode:$3:0:"); done
  "$python" bench/peers/timm_structures.py "${cases[@]}" --seconds "$seconds"
}

for case in "$@"; do
  IFS=_ read -r -a words <<<"$case"
  dtype=bf16 half=half model=deit_base_patch16_224 methods=() r=0 blocks=
  for word in "${words[@]}"; do
    case $word in
      nose) methods+=("{ name = \"nose\", layers = [$removed] }"); blocks=$removed ;;
      tome) r=14 ;;
      train | infer) kind=$word ;;
      fp32) dtype=fp32 half=fp32 ;;
      *) echo "$0: $case: what is $word?" >&2; exit 2 ;;
    esac
  done
  if [ -z "$blocks" ]; then r=13 model=deit_small_patch16_224; fi
  [ "$r" = 0 ] || methods+=("{ name = \"tome\", r = $r }")
  list=$(IFS=,; echo "[${methods[*]}]")
  ours "$model" "$kind" "$dtype" "$list" --ideal >"$work/ours.1" || continue
  : >"$work/theirs"
  [ "${RIVAL:-1}" = 0 ] || rival "$model" "$kind" "$half" "$r" "$blocks" >"$work/theirs"
  ours "$model" "$kind" "$dtype" "$list" >"$work/ours.2"
  "$python" - "$work" "$case" <<'PY'
import json, sys
work, case = sys.argv[1:]
ours = [json.load(open(f"{work}/ours.{i}")) for i in (1, 2)]
rows = [o["rows"][0] for o in ours]
dense = [o["rows"][1]["images_per_s"] for o in ours]
theirs = [json.loads(line) for line in open(f"{work}/theirs")]
speeds = [row["images_per_s"] for row in rows]
rivals = {}
for record in theirs:
    name = ("dense" if not record["r"] and not record["removed"] else "same") + "_" + record["mode"]
    rivals[name] = {"error": record["error"]} if "error" in record else {
        "images_per_s": record["images_per_s"],
        "ratio": [round(s / record["images_per_s"], 3) for s in speeds]}
facts = ours[0]["record"]
print(json.dumps({
    "case": case, "ablate_images_per_s": speeds, "ablate_dense_images_per_s": dense,
    "gain": [round(row["ratio"], 3) for row in rows],
    "share_of_ideal": round(rows[0]["share_of_ideal"], 3),
    "ms": [row["p50_ms"] for row in rows], "ideal_ms": rows[0]["ideal_ms"],
    "attention_branch_ms": rows[0]["attention_branch_ms"], "mlp_branch_ms": rows[0]["mlp_branch_ms"],
    "rival": rivals, "device": facts["machine"].get("gpu_model"),
    "torch": theirs[0]["torch"] if theirs else None, "timm": theirs[0]["timm"] if theirs else None,
    "revision": facts["toolchain"]["git_commit"], "modified": bool(facts["toolchain"]["git_dirty"])}), flush=True)
PY
done
