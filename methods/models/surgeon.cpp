#include <algorithm>

#include "methods/models/block.h"
#include "methods/models/edit.h"
#include "methods/models/model.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

namespace {

[[noreturn]] void refuse_edit(const Edit& edit, const std::string& reason) {
  throw Error(cat("cannot ", describe(edit), ": ", reason));
}

Block& find_block(Model& model, int index, const Edit& edit) {
  const std::vector<Block*> blocks = model.blocks();
  const int count = static_cast<int>(blocks.size());
  if (count == 0) refuse_edit(edit, "the model has no transformer blocks");
  if (index < 0 || index >= count) refuse_edit(edit, cat("the model has blocks 0 to ", count - 1));
  return *blocks[static_cast<std::size_t>(index)];
}

bool reducer_needs_keys(const Block& block) {
  return block.reducer() && block.reducer()->needs_keys();
}

// Each overload performs one kind of edit and says whether the present arenas, buckets and captured
// graphs are stale afterwards.

bool perform(Block& block, const MarkRetiring& edit) {
  if (!block.mixer()) refuse_edit(edit, "its attention has been removed");
  if (block.retiring()) refuse_edit(edit, "it is so already");
  if (reducer_needs_keys(block))
    refuse_edit(edit, "its token reducer needs the keys of this attention");
  block.set_retiring(true);
  return false;
}

bool perform(Block& block, const RemoveMixer& edit) {
  if (!block.mixer()) refuse_edit(edit, "it has been removed before");
  if (reducer_needs_keys(block))
    refuse_edit(edit, "its token reducer needs the keys of this attention");
  block.remove_mixer();
  return true;
}

bool perform(Block& block, const SetGains& edit) {
  const ResidualGains old = block.attention_gains();
  if (old.skip == edit.skip && old.branch == edit.branch)
    refuse_edit(edit, "it has these gains already");
  if (!block.mixer() && edit.branch != 0.0) {
    refuse_edit(edit, "its attention has been removed, so the branch gain must be 0");
  }
  block.set_attention_gains({edit.skip, edit.branch});
  return (old.branch == 0.0) != (edit.branch == 0.0);
}

bool perform(Block& block, const InsertReducer& edit) {
  if (block.reducer()) refuse_edit(edit, "the block has a token reducer already");
  Params params(edit.params, cat("reducer ", edit.reducer));
  auto reducer = Registry<TokenReducerInfo>::get(edit.reducer).make(params);
  params.finish();
  if (reducer->needs_keys()) {
    if (!block.mixer())
      refuse_edit(edit, "its attention has been removed, and the reducer needs keys");
    if (!block.mixer()->provides_keys()) refuse_edit(edit, "its token mixer provides no keys");
    if (block.retiring()) refuse_edit(edit, "its attention is going to be removed");
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
  if (const auto* removal = std::get_if<RemoveMixer>(&edit)) {
    forget<MarkRetiring>(edits, removal->block);
  }
  edits.push_back(edit);
}

}  // namespace

void Surgeon::apply(const Edit& edit) {
  const bool stale = std::visit(
      [&](const auto& kind) { return perform(find_block(model_, kind.block, edit), kind); }, edit);
  record(edits_, edit);
  if (stale) ++generation_;
}

}  // namespace ablate
