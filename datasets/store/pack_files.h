#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "datasets/store/stored_dataset.h"

namespace ablate {

/// The files of one part of a packed set: DIR/<part>.samples and so on.
class PackFiles {
 public:
  PackFiles(std::filesystem::path folder, std::string part)
      : folder_(std::move(folder)), part_(std::move(part)) {}

  std::filesystem::path samples() const { return folder_ / (part_ + ".samples"); }
  std::filesystem::path index() const { return folder_ / (part_ + ".index"); }
  /// What is known of a conversion under way.
  std::filesystem::path journal() const { return folder_ / (part_ + ".journal"); }
  /// Of who is writing the part.
  std::filesystem::path lease() const { return folder_ / (part_ + ".lease"); }
  const std::filesystem::path& folder() const { return folder_; }
  const std::string& part() const { return part_; }

 private:
  std::filesystem::path folder_;
  std::string part_;
};

/// The first bytes of a file of samples. `identity` is that of the conversion, which the index
/// has too: files of two conversions do not go together.
struct PackHeader {
  std::array<char, 8> magic{'A', 'B', 'L', 'A', 'T', 'E', 'P', 'K'};
  std::uint32_t version = 1;
  std::uint32_t header_bytes = 64;
  std::array<char, 32> identity{};  ///< hexadecimal
  std::array<std::uint64_t, 2> reserved{};

  bool operator==(const PackHeader&) const = default;
};
static_assert(sizeof(PackHeader) == 64);

/// Samples begin at multiples of this: raw pixels are copied from where they lie.
inline constexpr std::uint64_t kSampleAlignment = 64;

/// The header of the pack whose index has this key.
PackHeader pack_header(const std::string& key);

/// Opens a finished part. Throws Error when its files are missing, damaged, cut off or not of one
/// conversion.
std::shared_ptr<const StoredDataset> open_pack_part(
    const PackFiles& files, const Normalization& normalization = kImageNetNormalization);

}  // namespace ablate
