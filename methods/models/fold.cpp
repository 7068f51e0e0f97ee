#include "methods/models/fold.h"

#include <cmath>
#include <vector>

#include "runner/core/error.h"

namespace ablate {

namespace {

bool power_of_two(double value) {
  int exponent = 0;
  return value > 0 && std::frexp(value, &exponent) == 0.5;
}

void check_foldable(const Model& model, const Block& block) {
  if (block.layer_attention()) {
    throw Error(cat("cannot fold ", block.block_name(),
                    ": its layer attention reads and writes the stream that would be rescaled"));
  }
  const ResidualGains gains = block.attention_gains();
  const bool runs = block.mixer() && gains.branch != 0.0;
  if (gains.skip != 1.0 && !model.one_stream()) {
    throw Error(cat("cannot fold ", block.block_name(),
                    ": layers between stages do not let a factor of the stream pass"));
  }
  if (runs ? gains.skip == 1.0 && gains.branch == 1.0 : power_of_two(gains.skip)) return;
  throw Error(cat("cannot fold ", block.block_name(), " with gains skip ", gains.skip, ", branch ",
                  gains.branch, ": accepted are (1, 1) with attention and a power of two without"));
}

/// Divides the stream that `norm` reads by `scale` without changing what it computes.
void rescale_input(LayerNorm& norm, const std::string& name, double scale, Fold& fold) {
  if (scale == 1.0) return;
  norm.eps /= scale * scale;
  fold.norm_eps[name] = norm.eps;
}

}  // namespace

Fold fold_doublings(Model& model) {
  for (const Block* block : model.blocks()) check_foldable(model, *block);
  Fold fold;
  std::vector<double> taps;
  for (Block* block : model.blocks()) {
    const ResidualGains gains = block->attention_gains();
    const std::string& name = block->block_name();
    if (block->mixer() && gains.branch != 0.0) {
      rescale_input(*block->norm1(), name + ".norm1", fold.scale, fold);
      block->mixer()->scale_output(1.0 / fold.scale);
    }
    fold.scale *= gains.skip;
    block->set_attention_gains({1.0, gains.branch});
    rescale_input(block->norm2(), name + ".norm2", fold.scale, fold);
    block->mlp().fc2->scale(1.0 / fold.scale);
    taps.push_back(fold.scale);
  }
  model.rescale_taps(taps);
  if (LayerNorm* norm = model.final_norm()) rescale_input(*norm, "norm", fold.scale, fold);
  return fold;
}

}  // namespace ablate
