#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "datasets/store/sample_index.h"

namespace ablate {

/// The folder of indices that may be made again at any time: $ABLATE_CACHE, else
/// $XDG_CACHE_HOME/ablate, else ~/.cache/ablate; empty when none of them is set.
std::filesystem::path cache_folder();

/// One index of the cache: of the samples below `place`, for one use of them.
struct CacheSlot {
  std::filesystem::path place;
  std::string use;
};

/// The index in `slot` when its key is `key`, else what `scan` finds, which is then kept there for
/// the next time (small sets are not, unless $ABLATE_CACHE is set: scanning them takes no time). A
/// cache that cannot be read or written is done without.
SampleIndex cached_index(const CacheSlot& slot, const std::string& key,
                         const std::function<IndexBuilder()>& scan);

/// Text that changes when a file or folder is replaced, or a name in a folder comes or goes; of
/// what was changed in the last two seconds it is never the same. Throws Error with the path.
std::string state_of(const std::filesystem::path& path);

}  // namespace ablate
