#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ablate {

/// A file inside an uncompressed tar file.
struct TarMember {
  std::string path;
  std::uint64_t offset = 0;  ///< of its content in the tar file
  std::uint64_t length = 0;
};

struct TarListing {
  std::vector<TarMember> files;     ///< in the order of the tar file
  std::vector<std::string> others;  ///< links, devices, sparse files: nothing to read in place
};

/// What a tar file (ustar, GNU or pax) holds, in one pass over its headers. Throws Error with the
/// path: a compressed tar (which has no places to go to; the message has the fix), no tar, cut off.
TarListing list_tar(const std::filesystem::path& file);

}  // namespace ablate
