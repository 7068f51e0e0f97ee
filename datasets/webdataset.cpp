#include "datasets/dataset.h"
#include "datasets/store/parts.h"

namespace ablate::datasets::webdataset {
namespace {

DatasetOpener configure(Params& params) {
  const StoredSettings settings = read_stored_settings(params);
  return [settings](const std::filesystem::path& root) {
    return splits_of(open_tar_shards(root, settings), settings);
  };
}

const Registry<DatasetInfo>::Add added{
    {.name = "webdataset",
     .summary = "uncompressed tar shards DIR/*{train,val}*.tar of <key>.jpg and <key>.cls",
     .semantics = 1,
     .needs_root = true,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::webdataset
