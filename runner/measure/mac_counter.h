#pragma once

#include <cstdint>

#include "methods/models/model.h"

namespace ablate {

/// Counts multiply-accumulates of everything this thread runs while it lives, by observing ATen
/// operations: matrix products, convolutions and attention, each once whatever it is made of.
/// Norms, activations, softmax, biases and sorting count nothing, as in the tables of the
/// literature, nor does work under an UncountedScope. Counters nest: each sees what its inner ones
/// see.
class MacCounter {
 public:
  MacCounter();
  ~MacCounter();
  MacCounter(const MacCounter&) = delete;
  MacCounter& operator=(const MacCounter&) = delete;

  std::int64_t macs() const { return macs_; }

 private:
  friend struct MacObserver;

  std::int64_t macs_ = 0;
  MacCounter* outer_;
  std::uint64_t callback_ = 0;
};

/// What one image costs.
struct ModelCost {
  std::int64_t macs = 0;  ///< of a forward pass in evaluation mode
  std::int64_t parameters = 0;
  std::int64_t final_tokens = 0;  ///< after the last block; 0 for models without tokens
};

/// Runs one synthetic image through the model, with the model's own settings, weights and edits.
ModelCost measure_cost(Model& model);

}  // namespace ablate
