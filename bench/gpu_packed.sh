#!/usr/bin/env bash
# Whole training runs that share one GPU and one process, against timm + PyTorch models in as many streams.
# usage: bench/gpu_packed.sh [RUNS...]      (default 1 2 4 8 runs at a time)
# Ours are runs as users start them: ViT-Tiny/4 on 32-pixel images, batch 128, bf16, strong augmentation on the
# device, spools; the images a second of all together come from the wall time that further epochs take, so that
# starting and the last evaluation count nothing. The rival steps on images that lie ready: whole-step graphs of
# compiled models.
# Environment: ABLATE_TRAIN (default build/release/bin/ablate-train), PYTHON with timm 1.0.29 and torch 2.11
# (default python3), CIFAR100=DIR (default: generated images), EPOCHS (default 48: further epochs over all runs),
# RIVAL=0 leaves the rival out. Prints JSON lines.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 1 2 4 8
train=$(realpath "${ABLATE_TRAIN:-build/release/bin/ablate-train}")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
first_epochs=2
epochs_in_all=${EPOCHS:-48}  # further ones, over all runs

dataset='{ name = "synthetic", train_size = 50000, test_size = 1000, image_size = 32, classes = 100 }'
data=()
if [ -n "${CIFAR100:-}" ]; then
  dataset='{ name = "cifar100" }'
  data=(--data "cifar100=$CIFAR100")
fi

seconds_of() {  # RUNS EPOCHS
  local out=$work/out specs=() seed start end
  rm -rf "$out/runs"
  for seed in $(seq "$1"); do
    cat >"$work/$seed.toml" <<TOML
dataset = $dataset
model = { name = "vit_tiny_patch4_32", drop_path = 0.1 }
augmentation = "cifar_strong"
task = { name = "classification", label_smoothing = 0.1 }
optimizer = { name = "adamw", lr = 1e-3, weight_decay = 0.05 }
epochs = $2
evaluate_every = 1000
global_batch = 128
precision = "bf16"
seed = $seed
TOML
    specs+=("$work/$seed.toml")
  done
  start=$(date +%s.%N)
  "$train" run "${specs[@]}" --out "$out" --device cuda --checkpoint-every 3600 "${data[@]}" 2>"$work/error" ||
    { cat "$work/error" >&2; return 1; }
  end=$(date +%s.%N)
  echo "$start $end" | awk '{ print $2 - $1 }'
}

seconds_of 1 1 >/dev/null  # algorithms are chosen once for an output folder
for runs in "$@"; do
  further=$(((epochs_in_all + runs - 1) / runs))
  short=$(seconds_of "$runs" "$first_epochs")
  long=$(seconds_of "$runs" $((first_epochs + further)))
  awk -v runs="$runs" -v further="$further" -v short="$short" -v long="$long" 'BEGIN {
    printf "{\"side\": \"ablate\", \"runs\": %d, \"images_per_s\": %.0f, \"seconds\": %.2f, \"start_s\": %.2f}\n",
      runs, runs * further * 390 * 128 / (long - short), long - short, short }'
  if [ "${RIVAL:-1}" != 0 ]; then
    "$python" bench/peers/timm_gpu.py vit_tiny_patch4_32:128:train:graph_compile --copies "$runs" --seconds 3
  fi
done
