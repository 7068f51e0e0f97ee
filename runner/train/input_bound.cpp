#include "runner/train/input_bound.h"

#include <algorithm>
#include <cmath>

#include "runner/core/error.h"

namespace ablate {
namespace {

long percent(double share) { return std::lround(100 * share); }

const char* remedy(LoadStage stage) {
  switch (stage) {
    case LoadStage::Read:
      return "keep the data on faster storage, or convert it into a packed file";
    case LoadStage::Decode:
      return "raise --loader-threads, or convert the data into a packed file of smaller images";
    case LoadStage::Augment:
      return "raise --loader-threads";
    case LoadStage::Copy:
      return "the memory is the limit: fewer runs a machine";
  }
  return "";
}

}  // namespace

std::string input_bound_text(double waited, const StageSeconds& loading) {
  const std::string text =
      cat("input-bound: ", percent(waited), " % of the epoch's steps was waiting for images");
  const double sum = loading.sum();
  if (sum <= 0) return cat(text, "; raise --loader-threads");
  const auto slowest = std::ranges::max_element(loading.of) - loading.of.begin();
  std::string stages;
  for (std::size_t i = 0; i < loading.of.size(); ++i) {
    stages += cat(i == 0 ? "" : ", ", kLoadStageNames[i], " ", percent(loading.of[i] / sum), " %");
  }
  return cat(text, "; the slow stage is ", kLoadStageNames[static_cast<std::size_t>(slowest)], " (",
             stages, " of the loader threads' time): ", remedy(static_cast<LoadStage>(slowest)));
}

}  // namespace ablate
