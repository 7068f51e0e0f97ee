#include <algorithm>

#include "methods/models/block.h"
#include "methods/models/edit.h"
#include "methods/models/layer_edits.h"
#include "methods/models/model.h"
#include "methods/models/probe.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

namespace {

[[noreturn]] void refuse_edit(const Edit& edit, const std::string& reason) {
  throw Error(cat("cannot ", describe(edit), ": ", reason));
}

/// The block that an edit is about, among the others.
struct Place {
  std::vector<Block*> blocks;
  int index;
  Block& block() const { return *blocks[static_cast<std::size_t>(index)]; }
};

Place find_place(Model& model, int index, const Edit& edit) {
  const Place place{model.blocks(), index};
  const int count = static_cast<int>(place.blocks.size());
  if (count == 0) refuse_edit(edit, "the model has no transformer blocks");
  if (index < 0 || index >= count) refuse_edit(edit, cat("the model has blocks 0 to ", count - 1));
  return place;
}

constexpr int kNoBlock = -1;

/// Whose keys are carried to the reducer of block `index`, leaving out block `without`.
int carried_from(const Place& place, int index, int without = kNoBlock) {
  for (; index >= 0; --index) {
    if (index != without && place.blocks[static_cast<std::size_t>(index)]->keeps_keys()) break;
  }
  return index;
}

/// Refuses when a reducer compares the keys of this block; carried ones only when `taken(i)` for
/// the reducer's block i.
template <typename Taken>
void refuse_needed_keys(const Place& place, const Edit& edit, const Taken& taken) {
  for (int i = place.index; i < static_cast<int>(place.blocks.size()); ++i) {
    const TokenReducer* reducer = place.blocks[static_cast<std::size_t>(i)]->reducer();
    const KeyNeed need = reducer ? reducer->key_need() : KeyNeed::None;
    if ((need == KeyNeed::OwnBlock && i == place.index) || (need == KeyNeed::Carried && taken(i))) {
      refuse_edit(edit, cat("the token reducer of block ", i, " needs the keys of this attention"));
    }
  }
}

// Each overload performs one kind of edit and says whether the present arenas, buckets and captured
// graphs are stale afterwards.

bool perform(const Place& place, const MarkRetiring& edit) {
  Block& block = place.block();
  if (!block.mixer()) refuse_edit(edit, "its attention has been removed");
  if (block.retiring()) refuse_edit(edit, "it is so already");
  // Other keys would reach the reducer from now on.
  refuse_needed_keys(place, edit, [&](int i) { return carried_from(place, i) == place.index; });
  block.set_retiring(true);
  return false;
}

bool perform(const Place& place, const RemoveMixer& edit) {
  if (!place.block().mixer()) refuse_edit(edit, "it has been removed before");
  refuse_needed_keys(place, edit,
                     [&](int i) { return carried_from(place, i, place.index) == kNoBlock; });
  place.block().remove_mixer();
  return true;
}

bool perform(const Place& place, const SetGains& edit) {
  Block& block = place.block();
  const ResidualGains old = block.attention_gains();
  if (old.skip == edit.skip && old.branch == edit.branch)
    refuse_edit(edit, "it has these gains already");
  if (!block.mixer() && edit.branch != 0.0) {
    refuse_edit(edit, "its attention has been removed, so the branch gain must be 0");
  }
  block.set_attention_gains({edit.skip, edit.branch});
  return (old.branch == 0.0) != (edit.branch == 0.0);
}

bool perform(const Place& place, const InsertReducer& edit) {
  Block& block = place.block();
  if (block.reducer()) refuse_edit(edit, "the block has a token reducer already");
  Params params(edit.params, cat("reducer ", edit.reducer));
  auto reducer = Registry<TokenReducerInfo>::get(edit.reducer).make(params);
  params.finish();
  if (reducer->key_need() == KeyNeed::OwnBlock) {
    if (!block.mixer())
      refuse_edit(edit, "its attention has been removed, and the reducer needs keys");
    if (!block.mixer()->provides_keys()) refuse_edit(edit, "its token mixer provides no keys");
    if (block.retiring()) refuse_edit(edit, "its attention is going to be removed");
  }
  if (reducer->key_need() == KeyNeed::Carried && carried_from(place, edit.block) == kNoBlock) {
    refuse_edit(edit, "no attention up to this block keeps its keys");
  }
  block.set_reducer(std::move(reducer));
  return true;
}

template <typename Kind>
void forget(std::vector<Edit>& edits, int block) {
  std::erase_if(edits, [block](const Edit& edit) {
    const auto* same = std::get_if<Kind>(&edit);
    return same && same->block == block;
  });
}

/// Keeps the list as short as the structure: no superseded edit stays.
void record(std::vector<Edit>& edits, const Edit& edit) {
  if (const auto* gains = std::get_if<SetGains>(&edit)) {
    forget<SetGains>(edits, gains->block);
    if (gains->skip == 1.0 && gains->branch == 1.0) return;
  }
  if (const auto* skip = std::get_if<SkipRetrieval>(&edit)) {
    forget<SkipRetrieval>(edits, skip->block);
    if (skip->mode == SkipMode::None) return;
  }
  if (const auto* removal = std::get_if<RemoveMixer>(&edit)) {
    forget<MarkRetiring>(edits, removal->block);
  }
  edits.push_back(edit);
}

at::Tensor probe_logits(Model& model) {
  ForwardState state;
  return probe(model, state);
}

/// Largest |after - before|. A model that has no numbers to begin with keeps having none.
double largest_change(const at::Tensor& before, const at::Tensor& after) {
  const at::Tensor same = (before == after) | (before.isnan() & after.isnan());
  return at::where(same, at::zeros_like(before), (after - before).abs()).max().item<double>();
}

}  // namespace

void Surgeon::apply(const Edit& edit) {
  const auto perform_on = [&](const auto& kind) {
    if constexpr (requires { perform(model_, kind); }) {
      return perform(model_, kind);
    } else {
      return perform(find_place(model_, kind.block, edit), kind);
    }
  };
  const bool stale = std::visit(perform_on, edit);
  record(edits_, edit);
  if (stale) ++generation_;
}

double Surgeon::apply_neutral(const std::vector<Edit>& edits) {
  const at::Tensor before = probe_logits(model_);
  for (const Edit& edit : edits) apply(edit);
  const double change = largest_change(before, probe_logits(model_));
  if (change == 0.0) return change;
  std::vector<std::string> names;
  for (const Edit& edit : edits) names.push_back(describe(edit));
  throw Error(cat("an edit that claims to change nothing moved a logit by ", change, ": ",
                  join(names, ", ")));
}

}  // namespace ablate
