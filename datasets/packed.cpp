#include "datasets/dataset.h"
#include "datasets/store/parts.h"

namespace ablate::datasets::packed {
namespace {

// What is odd about the files was said, and decided on, when they were converted.
DatasetOpener configure(Params& params) {
  const StoredSettings settings{
      .skip_corrupt = false, .keep_missing = true, .normalization = read_normalization(params)};
  return [settings](const std::filesystem::path& root) {
    return splits_of(open_pack(root, settings), settings);
  };
}

const Registry<DatasetInfo>::Add added{
    {.name = "packed",
     .summary = "one file of samples a part, as `ablate-train convert` writes it",
     .semantics = 1,
     .needs_root = true,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::packed
