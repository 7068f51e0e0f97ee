#pragma once

#include <string>
#include <vector>

#include "results/status.h"

namespace ablate::cli {

/// What a run with skipped retrievals did over its epochs, from its events "ela_epoch".
struct RetrievalView {
  /// A heading and a row for each layer: stage, block, a sign an epoch (█ skipped, · not), the
  /// curve of its divergence, and z and score of the last decision. Empty without such events.
  std::vector<std::vector<std::string>> grid;
  /// "4 of 15 skipped since epoch 30; alpha 0.744, beta 0.526, tau 0.507".
  std::string summary;
  /// Mean weights of the last epoch that was measured: a heading and a line a block, a column a
  /// stage, in which a sign stands for each block that is retrieved from (in the gated form: for
  /// each head), from nothing over · ░ ▒ ▓ to █. Empty without such an epoch.
  std::vector<std::vector<std::string>> weights;
};

RetrievalView view_retrievals(const std::vector<EventInfo>& events);

/// Whether the view shows the event, or the series, so that lists can leave it out.
bool shown_as_retrievals(const EventInfo& event);
bool shown_as_retrievals(const std::string& metric);

}  // namespace ablate::cli
