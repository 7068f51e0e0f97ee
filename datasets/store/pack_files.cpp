#include "datasets/store/pack_files.h"

#include <algorithm>
#include <cstring>

#include "runner/core/error.h"

namespace ablate {

PackHeader pack_header(const std::string& key) {
  PackHeader header;
  ABLATE_CHECK(key.size() == header.identity.size(), "key of ", key.size(), " letters");
  std::ranges::copy(key, header.identity.begin());
  return header;
}

std::shared_ptr<const StoredDataset> open_pack_part(const PackFiles& files,
                                                    const Normalization& normalization) {
  SampleIndex index(files.index());
  const MappedFile samples(files.samples());
  const PackHeader expected = pack_header(index.head().key);
  PackHeader header;
  if (samples.bytes().size() < sizeof header) {
    throw Error(cat(files.samples().string(), ": cut off: ", samples.bytes().size(), " bytes"));
  }
  std::memcpy(&header, samples.bytes().data(), sizeof header);
  if (header.magic != expected.magic || header.version != expected.version) {
    throw Error(
        cat(files.samples().string(), ": no file of samples of version ", expected.version));
  }
  if (!(header == expected)) {
    throw Error(cat(files.samples().string(), ": not of the conversion that ",
                    files.index().filename().string(), " is of; convert again"));
  }
  return std::make_shared<const StoredDataset>(
      std::move(index),
      StoredAt{files.folder(), "`ablate-train convert --repair SOURCE DEST` makes it anew",
               normalization});
}

}  // namespace ablate
