#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// One optimizer update over flat buffers, without the host: begin_update() measures the gradients,
// adamw_update() or sgd_update() then changes everything in one pass. The formulas and their order
// of operations are those of runner/train/update_kernels.h, each operation rounded on its own.

/// A piece of one parameter in the flat buffers; an element belongs to one chunk at most. In device
/// memory, as an array.
struct UpdateChunk {
  std::int64_t begin = 0;  ///< a multiple of 4
  std::int64_t count = 0;
  double lr_factor = 1.0;
  double weight_decay = 0.0;
  double clamp_low = -std::numeric_limits<double>::infinity();  ///< infinite: none, as the next
  double clamp_high = std::numeric_limits<double>::infinity();
};

/// What changes from step to step. In device memory, written before each step.
struct UpdateScalars {
  double lr = 0.0;
  double gradient_scale = 1.0;  ///< of all gradients, before norm and clipping
  double max_norm = 0.0;        ///< gradients are clipped to this norm; 0: not
  double ema_decay = 0.0;       ///< 0: no moving average
};

/// What begin_update() finds. In device memory.
struct UpdateStatus {
  double norm = 0;           ///< of the scaled gradients
  double clip_factor = 0;    ///< min(1, max_norm / (norm + 1e-6)), or 1
  double correction1 = 0;    ///< 1 - beta1^updates
  double correction2 = 0;    ///< sqrt(1 - beta2^updates)
  std::int64_t updates = 0;  ///< done, this one included; set once before the first
  std::int32_t finite = 0;   ///< 0: this update is left out: nothing is changed, nor is it counted
};

/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, as torch computes it.
struct AdamWRule {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

/// torch's form; momentum 0 needs no velocity.
struct SgdRule {
  double momentum = 0.9;
  bool nesterov = false;
};

/// The flat buffers, all of one layout and aligned to 16 bytes (`working`: 8).
struct FlatUpdate {
  const UpdateChunk* chunks = nullptr;
  std::int64_t chunk_count = 0;
  const UpdateScalars* scalars = nullptr;
  UpdateStatus* status = nullptr;
  const double* loss = nullptr;  ///< not finite: the update is left out; null: gradients decide
  const float* gradients = nullptr;
  float* parameters = nullptr;
  float* ema = nullptr;         ///< moving average of the parameters; null: none
  bfloat16* working = nullptr;  ///< receives the new parameters rounded; null: none
};

std::size_t begin_update_workspace_bytes(std::int64_t chunk_count);

/// Sets `status` from the gradients of all chunks. Reads 4 bytes an element. Squares are added in
/// double in an order that depends on the chunks alone: equal bits on every device. `workspace` is
/// aligned to 8 bytes. `rule` serves the corrections of AdamW.
void begin_update(const FlatUpdate& flat, const AdamWRule& rule, void* workspace, Stream stream);

/// With g = gradient_scale clip_factor gradient. Moves 28 bytes an element, 8 more for the moving
/// average, 2 more for the working copy.
void adamw_update(const FlatUpdate& flat, const AdamWRule& rule, float* exp_avg, float* exp_avg_sq,
                  Stream stream);

/// Moves 20 bytes an element (12 without momentum), and the same more. `velocity` is null when the
/// momentum is 0.
void sgd_update(const FlatUpdate& flat, const SgdRule& rule, float* velocity, Stream stream);

namespace reference {
void begin_update(const FlatUpdate& flat, const AdamWRule& rule);
void adamw_update(const FlatUpdate& flat, const AdamWRule& rule, float* exp_avg, float* exp_avg_sq);
void sgd_update(const FlatUpdate& flat, const SgdRule& rule, float* velocity);
}  // namespace reference

}  // namespace ablate::kernels
