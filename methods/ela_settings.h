#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "methods/ela_divergence.h"
#include "methods/ela_filter.h"
#include "methods/ela_mapping.h"
#include "methods/models/skip_mode.h"

namespace ablate {
class Params;
}

namespace ablate::methods::ela {

/// How the layers to skip are chosen: by their divergences, or without looking at them.
enum class Choice { Mapping, Random, EveryOther, First, Last, Given };

struct ControllerSettings {
  Choice choice = Choice::Mapping;
  MappingSettings mapping;
  FilterSettings filter;
  double memory = 0.0;      ///< weight of earlier epochs in the average of the moments
  bool each_stage = false;  ///< candidates are compared within their stage, else all together
  std::int64_t skip = 0;    ///< layers to skip, of choices that take a number; 0: every other
  std::int64_t draw = 0;    ///< which draw, of random choices
  std::vector<std::int64_t> layers;  ///< of Choice::Given: numbers of the blocks
};

/// When what happens, in epochs.
struct SearchPlan {
  std::int64_t warmup = 0;  ///< nothing is decided before
  std::int64_t freeze = 0;  ///< the last decision, at its start; nothing changes afterwards
  std::int64_t period = 1;  ///< of decisions before

  bool decides(std::int64_t epoch) const {
    return epoch == freeze || (epoch >= warmup && epoch < freeze && (epoch - warmup) % period == 0);
  }
};

/// Settings of the method "ela" besides those of its layer attention.
struct Settings {
  SkipMode mode = SkipMode::Drop;
  Divergence divergence = Divergence::Padded;
  double clip = 10.0;
  bool shadow = true;
  ControllerSettings controller;
  // Nothing: a tenth of the run, and its half.
  std::optional<std::int64_t> warmup_epochs, freeze_epoch;
  std::int64_t period = 1;

  /// `gates`: of the gated form of layer attention.
  static Settings read(Params& params, bool gates);
  bool needs_divergences() const { return controller.choice == Choice::Mapping; }
  /// Blocks at the front of a stage that are never skipped.
  int leave_out() const;
  /// Throws SpecError when no epoch would be left with the final mask, or no decision could skip.
  SearchPlan plan(std::int64_t epochs) const;
};

}  // namespace ablate::methods::ela
