#!/usr/bin/env bash
# Training step on one CPU core: ablate-train against timm + PyTorch eager, in turns on the same core.
# usage: bench/cpu_train_step.sh [ROUNDS] [SECONDS]      (default 5 rounds of 15 s a side)
# Environment: ABLATE_TRAIN (default build/release/bin/ablate-train), PYTHON with timm 1.0.29 and
# torch 2.11 (default python3), CPU (default 0), BATCH (default 128).
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-15}
train=${ABLATE_TRAIN:-build/release/bin/ablate-train}
python=${PYTHON:-python3}
cpu=${CPU:-0} batch=${BATCH:-128}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

cat >"$work/structure.json" <<'JSON'
{"model": {"name": "vit_tiny_patch4_32", "params": {}}, "classes": 100, "bn_group": 128, "edits": []}
JSON

ours() {
  taskset -c "$cpu" "$train" bench --structure "$work/structure.json" --protocol train \
    --batch "$batch" --threads 1 --warm-up 2 --budget-seconds "$seconds" 2>/dev/null
}
theirs() {
  taskset -c "$cpu" "$python" bench/peers/timm_cpu_train_step.py --batch "$batch" --threads 1 \
    --warm-up 2 --seconds "$seconds" --optimizer "$1" 2>/dev/null
}
for ((i = 1; i <= rounds; i++)); do
  ours >"$work/ours.$i.json"
  theirs fused >"$work/fused.$i.json"
  theirs default >"$work/default.$i.json"
  echo "round $i of $rounds done" >&2
done

"$python" - "$work" "$rounds" "$batch" <<'PY'
import json, statistics, sys
work, rounds, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
read = lambda name, i: json.load(open(f"{work}/{name}.{i}.json"))
ours = [read("ours", i + 1) for i in range(rounds)]
record = ours[0]["record"]
machine, tools = record["machine"], record["toolchain"]
times = {"ablate-train": [o["rows"][0]["p50_ms"] for o in ours]}
rivals = {n: [read(n, i + 1) for i in range(rounds)] for n in ("fused", "default")}
for name, reports in rivals.items():
    times[f"timm eager, {name} AdamW"] = [r["p50_ms"] for r in reports]
versions = rivals["fused"][0]
dirty = ", modified" if tools["git_dirty"] else ""
print(f"train-fp32-b{batch}, vit_tiny_patch4_32, 100 classes, 1 thread, {rounds} rounds in turns")
print(f"machine: {machine['cpu']}, {machine['cores']} cores; one of them used")
print(f"ablate-train: revision {tools['git_commit']}{dirty}, {tools['compiler']}, "
      f"LibTorch {tools['libtorch']}")
print(f"rival: timm {versions['timm']}, torch {versions['torch']}")
for name, values in times.items():
    shown = ", ".join(f"{v:.1f}" for v in values)
    print(f"{name:32s} median {statistics.median(values):8.1f} ms/step   ({shown})")
for name, values in list(times.items())[1:]:
    ratios = [v / o for v, o in zip(values, times["ablate-train"])]
    print(f"{name} / ablate-train: median {statistics.median(ratios):.3f}, "
          f"smallest {min(ratios):.3f}, largest {max(ratios):.3f}")
PY
