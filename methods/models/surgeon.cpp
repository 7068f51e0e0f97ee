#include <algorithm>
#include <cmath>

#include "methods/models/block.h"
#include "methods/models/channel_edits.h"
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
    if ((needs_own_mixer(need) && i == place.index) || (need == KeyNeed::Carried && taken(i))) {
      refuse_edit(edit, cat("the token reducer of block ", i, " needs the ",
                            need == KeyNeed::ClassAttention ? "class token's row" : "keys",
                            " of this attention"));
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
  for (const ChannelGroup* group : place.block().mixer()->channel_groups()) {
    if (group->gates) refuse_edit(edit, "channels of it are being selected");
  }
  refuse_needed_keys(place, edit,
                     [&](int i) { return carried_from(place, i, place.index) == kNoBlock; });
  place.block().remove_mixer();
  return true;
}

bool perform(const Place& place, const SetGains& edit) {
  Block& block = place.block();
  const ResidualGains old = block.attention_gains();
  const ResidualGains gains{edit.skip, edit.branch, edit.mask};
  if (old == gains) refuse_edit(edit, "it has these gains already");
  if (!block.mixer() && edit.branch != 0.0) {
    refuse_edit(edit, "its attention has been removed, so the branch gain must be 0");
  }
  const bool masked = edit.mask != GainMask::None;
  if (masked && !(edit.branch > 0.0 && edit.branch < 1.0)) {
    refuse_edit(edit, "a mask draws with a probability between 0 and 1, the branch gain");
  }
  block.set_attention_gains(gains);
  if (gains.mask != old.mask) return true;
  // What a captured step holds besides: whether there is a branch, and what is left without it.
  if (masked) return std::abs(gains.without_branch() - old.without_branch()) > 1e-9;
  return (old.branch == 0.0) != (gains.branch == 0.0);
}

void check_own_mixer(const Block& block, KeyNeed need, const Edit& edit) {
  const bool keys = need == KeyNeed::OwnBlock;
  const std::string_view what = keys ? "keys" : "attention of the class token";
  if (!block.mixer()) {
    refuse_edit(edit, cat("its attention has been removed, and the reducer needs ", what));
  }
  if (!(keys ? block.mixer()->provides_keys() : block.mixer()->provides_class_attention())) {
    refuse_edit(edit, cat("its token mixer provides no ", what));
  }
  if (block.retiring()) refuse_edit(edit, "its attention is going to be removed");
}

bool perform(const Place& place, const InsertReducer& edit) {
  Block& block = place.block();
  if (block.reducer()) refuse_edit(edit, "the block has a token reducer already");
  Params params(edit.params, cat("reducer ", edit.reducer));
  auto reducer = Registry<TokenReducerInfo>::get(edit.reducer).make(params);
  params.finish();
  if (needs_own_mixer(reducer->key_need())) check_own_mixer(block, reducer->key_need(), edit);
  if (reducer->key_need() == KeyNeed::Carried && carried_from(place, edit.block) == kNoBlock) {
    refuse_edit(edit, "no attention up to this block keeps its keys");
  }
  const at::Tensor& like = block.norm2().weight;
  reducer->to(like.device(), like.scalar_type());
  reducer->train(block.is_training());
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

/// Whether nothing stays of an edit but that another of these is gone.
bool cancels(std::vector<Edit>& edits, const Edit& edit) {
  if (std::holds_alternative<DetachGates>(edit)) {
    std::erase_if(edits, [](const Edit& e) { return std::holds_alternative<AttachGates>(e); });
    return true;
  }
  const auto* fold = std::get_if<FoldReweight>(&edit);
  if (!fold) return false;
  std::erase_if(edits, [fold](const Edit& e) {
    const auto* attached = std::get_if<AttachReweight>(&e);
    return attached && attached->block == fold->block && attached->group == fold->group;
  });
  return true;
}

/// Keeps the list as short as the structure: no superseded edit stays.
void record(std::vector<Edit>& edits, const Edit& edit) {
  if (cancels(edits, edit)) return;
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
  if (const auto* cut = std::get_if<KeepChannels>(&edit)) {
    const std::vector<NamedSlice> slices = cut_channels(model_, *cut);
    ++generation_;
    for (const auto& [name, axis, index] : slices) {
      slices_.push_back({generation_, name, axis, index});
    }
    record(edits_, edit);
    return;
  }
  const auto perform_on = [&](const auto& kind) {
    if constexpr (std::is_same_v<std::decay_t<decltype(kind)>, KeepChannels>) {
      return false;  // done above
    } else if constexpr (requires { perform(model_, kind); }) {
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
