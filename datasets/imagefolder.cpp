#include "datasets/dataset.h"
#include "datasets/store/parts.h"

namespace ablate::datasets::imagefolder {
namespace {

DatasetOpener configure(Params& params) {
  const StoredSettings settings = read_stored_settings(params);
  return [settings](const std::filesystem::path& root) {
    return splits_of(open_image_folder(root, settings), settings);
  };
}

// 2: classes.txt numbers the classes where there is one.
const Registry<DatasetInfo>::Add added{
    {.name = "imagefolder",
     .summary = "DIR/{train,val}/<class>/<image>.{jpg,jpeg,png}, such as ImageNet",
     .semantics = 2,
     .needs_root = true,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::imagefolder
