#!/usr/bin/env bash
# Training batches of photos: ablate-train's loader beside timm's and a bare libjpeg-turbo loop, in turns.
# usage: bench/loader.sh FOLDER [ROUNDS [SECONDS]]     FOLDER/<class>/<image>; default 3 rounds of 5 s a measurement
# Rows, once on one core and once on all: the whole DeiT augmentation on the CPU; the part of the CPU when a GPU
# augments (crops alone), both from the photos packed as they are; timm on the folder with as many workers as cores;
# libjpeg-turbo decoding the same boxes from memory and nothing else.
# Environment: ABLATE_TRAIN and DECODE_BENCH (default build/release/bin/...; the latter is a target of that name),
# PYTHON with timm 1.0.29, torchvision and Pillow < 12 (default python3), CPU (default: the first allowed).
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n 2,8p "$0"; exit 2; }
folder=$(realpath "$1") rounds=${2:-3} seconds=${3:-5}
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
bare=${DECODE_BENCH:-build/release/bin/decode_bench}
python=${PYTHON:-python3}
mapfile -t cpus < <("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")')
one=${CPU:-${cpus[0]}}
all=$(IFS=,; echo "${cpus[*]}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
mkdir "$work/data"
ln -s "$folder" "$work/data/train"
ln -s "$folder" "$work/data/val"
cat >"$work/run.toml" <<'TOML'
dataset = { name = "packed" }
model = { name = "deit_tiny_patch16_224" }
augmentation = "deit"
epochs = 1
global_batch = 64
TOML
"$train" convert "$work/data" "$work/packed" >"$work/converted" 2>&1 || { cat "$work/converted" >&2; exit 1; }

ours() {  # CPUS THREADS PART
  taskset -c "$1" "$train" bench loader "$work/run.toml" --data packed="$work/packed" --seconds "$seconds" \
    --loader-threads "$2" --part "$3" 2>"$work/error" || cat "$work/error" >&2
}
theirs() {  # CPUS WORKERS
  taskset -c "$1" "$python" bench/peers/timm_loader.py "$folder" --workers "$2" --seconds "$seconds" 2>"$work/error" ||
    cat "$work/error" >&2
}
decoding() {  # CPU...: a process on each
  local cpu
  for cpu; do taskset -c "$cpu" "$bare" "$folder" 1 "$seconds" >"$work/bare.$cpu" & done
  wait
  for cpu; do cat "$work/bare.$cpu"; done
}

for ((i = 1; i <= rounds; i++)); do
  for scope in one all; do
    [ $scope = one ] && set -- "$one" || set -- "${cpus[@]}"
    [ $scope = one ] && mask=$one || mask=$all
    ours "$mask" $# whole >"$work/whole.$scope.$i"
    ours "$mask" $# crops >"$work/crops.$scope.$i"
    theirs "$mask" $# >"$work/timm.$scope.$i"
    decoding "$@" >"$work/bare.$scope.$i"
  done
  echo "round $i of $rounds done" >&2
done

"$python" - "$work" "$rounds" "${#cpus[@]}" <<'PY'
import json, statistics, sys
work, rounds, cores = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def text(name: str, scope: str, i: int) -> str:
    """What was printed, from the first object on: libraries may greet."""
    printed = open(f"{work}/{name}.{scope}.{i}").read()
    return printed[printed.index("{"):]


for scope in ("one", "all"):
    rates = {name: [json.loads(text(name, scope, i + 1))["images_per_s"] for i in range(rounds)]
             for name in ("whole", "crops", "timm")}
    rates["bare"] = [sum(json.loads(line)["bare"] for line in text("bare", scope, i + 1).splitlines())
                     for i in range(rounds)]
    ratio = lambda a, b: statistics.median(x / y for x, y in zip(rates[a], rates[b]))
    shown = {name: [round(rate) for rate in values] for name, values in rates.items()}
    print(json.dumps({"cores": 1 if scope == "one" else cores, "images_per_s": shown,
                      "whole_to_timm": round(ratio("whole", "timm"), 2),
                      "crops_to_timm": round(ratio("crops", "timm"), 2),
                      "crops_to_bare": round(ratio("crops", "bare"), 3),
                      "stages": json.loads(text("whole", scope, 1))["stages"]}))
peer = json.loads(text("timm", "one", 1))
print(json.dumps({"peer": {k: peer[k] for k in ("timm", "torch", "pillow", "ways")}}))
PY
