#include "datasets/store/stored_dataset.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/decode.h"
#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

/// The content of a file, in a buffer that is used again.
void read_into(const fs::path& file, std::string& buffer) {
  const FileDescriptor in(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in.is_open()) throw_file_error(file, "cannot be opened", errno);
  struct stat status {};
  if (::fstat(in.get(), &status) != 0) throw_file_error(file, "cannot be read", errno);
  buffer.resize(static_cast<std::size_t>(status.st_size));
  std::size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t got = ::read(in.get(), buffer.data() + done, buffer.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_file_error(file, "cannot be read", errno);
    if (got == 0) break;  // has become shorter meanwhile: decoding will tell
    done += static_cast<std::size_t>(got);
  }
  buffer.resize(done);
}

DatasetFacts facts_of(const SampleIndex& index, const Normalization& normalization) {
  DatasetFacts facts;
  facts.classes = index.classes();
  facts.class_names = index.head().classes;
  facts.normalization = normalization;
  const auto side = index.head().facts.find("image_size");
  if (side != index.head().facts.end()) facts.image_size = side->get<int>();
  return facts;
}

}  // namespace

StoredDataset::StoredDataset(SampleIndex index, StoredAt at)
    : index_(std::move(index)), at_(std::move(at)), facts_(facts_of(index_, at_.normalization)) {
  for (const std::string& file : index_.head().files) files_.emplace_back(at_.folder / file);
  if (files_.empty()) return;
  for (std::int64_t i = 0; i < index_.size(); ++i) {
    const SampleEntry& entry = index_.entry(i);
    const std::size_t size = files_[entry.file].bytes().size();
    if (entry.length > size || entry.offset > size - entry.length) {
      throw Error(cat(files_[entry.file].path().string(), ": cut off: ", size,
                      " bytes, and sample ", index_.name(i), " ends at ",
                      entry.offset + entry.length, "; ", at_.hint));
    }
  }
}

std::string StoredDataset::where(std::int64_t index) const {
  const std::string name(index_.name(index));
  if (files_.empty()) return (at_.folder / name).string();
  return cat(files_[index_.entry(index).file].path().string(), ": ", name);
}

std::string_view StoredDataset::bytes(std::int64_t index, std::string& buffer) const {
  const SampleEntry& entry = index_.entry(index);
  if (!files_.empty()) return files_[entry.file].bytes().substr(entry.offset, entry.length);
  read_into(at_.folder / index_.name(index), buffer);
  return buffer;
}

std::optional<StoredImage> StoredDataset::stored(std::int64_t index, std::string& buffer) const {
  const SampleEntry& entry = index_.entry(index);
  const std::string_view content = bytes(index, buffer);
  if (entry.checksum != 0 && hash64(content) != entry.checksum) {
    throw Error(cat(where(index), ": damaged: wrong checksum; ", at_.hint));
  }
  return StoredImage{
      .bytes = {reinterpret_cast<const std::uint8_t*>(content.data()), content.size()},
      .name = index_.name(index),
      .width = static_cast<int>(entry.width),
      .height = static_cast<int>(entry.height)};
}

void StoredDataset::load(std::int64_t index, Image& image) const {
  thread_local std::string buffer;
  StoredImage image_file = *stored(index, buffer);
  image_file.name = "";
  try {
    decode_stored(image_file, image);
  } catch (const Error& error) {
    throw Error(cat(where(index), error.what(), "; ", at_.hint));
  }
}

std::string StoredDataset::fingerprint() const {
  std::string text;
  for (std::int64_t i = 0; i < index_.size(); ++i) {
    const SampleEntry& entry = index_.entry(i);
    if (entry.checksum != 0) {
      text += cat(entry.checksum);
    } else {
      text += index_.name(i);
      text += ' ';
      text += std::to_string(entry.length);
    }
    if (!index_.head().labels_in_names) text += cat(" ", entry.label);
    text += '\n';
  }
  return hash128_hex(text);
}

void decode_stored(const StoredImage& stored, Image& image) {
  if (stored.width == 0) return decode_image(stored.bytes, stored.name, image);
  image.reshape(stored.width, stored.height);
  if (stored.bytes.size() != image.pixels.size()) {
    throw Error(cat(stored.name, ": ", stored.bytes.size(), " bytes for ", stored.width, "x",
                    stored.height, " pixels"));
  }
  std::copy(stored.bytes.begin(), stored.bytes.end(), image.pixels.begin());
}

bool has_other_format(const StoredImage& stored) {
  if (stored.width != 0) return false;
  std::string name(stored.name);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool says_png = name.ends_with(".png");
  const bool says_jpeg = name.ends_with(".jpg") || name.ends_with(".jpeg");
  return is_jpeg(stored.bytes) ? says_png : says_jpeg;
}

Inspection inspect(const StoredDataset& dataset, std::int64_t index) {
  thread_local std::string buffer;
  thread_local Image image;
  try {
    const std::string where = dataset.where(index);
    StoredImage stored = *dataset.stored(index, buffer);
    stored.name = where;
    const bool other_format = has_other_format(stored);
    decode_stored(stored, image);
    return {.defect = {}, .other_format = other_format};
  } catch (const TransientError&) {
    throw;
  } catch (const Error& error) {
    return {.defect = error.what(), .other_format = false};
  }
}

}  // namespace ablate
