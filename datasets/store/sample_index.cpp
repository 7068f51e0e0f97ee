#include "datasets/store/sample_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

static_assert(std::endian::native == std::endian::little, "indices are little-endian, as they lie");

constexpr std::array<char, 8> kIndexMagic{'A', 'B', 'L', 'A', 'T', 'E', 'I', 'X'};
constexpr std::uint32_t kIndexVersion = 1;

/// The first bytes of an index file; docs/data.md describes it.
struct IndexHeader {
  std::array<char, 8> magic = kIndexMagic;
  std::uint32_t version = kIndexVersion;
  std::uint32_t entry_bytes = sizeof(SampleEntry);
  std::uint64_t entries = 0, names_bytes = 0, head_bytes = 0;
  std::uint64_t checksum = 0;  // of everything behind the header
  std::array<std::uint64_t, 2> reserved{};
};
static_assert(sizeof(IndexHeader) == 64);

template <typename T>
std::string_view bytes_of(const T* values, std::size_t count) {
  return {reinterpret_cast<const char*>(values), count * sizeof(T)};
}

IndexHead read_head(std::string_view text, const std::string& where) {
  try {
    const nlohmann::json parsed = nlohmann::json::parse(text);
    return {.classes = parsed.at("classes").get<std::vector<std::string>>(),
            .files = parsed.at("files").get<std::vector<std::string>>(),
            .key = parsed.at("key").get<std::string>(),
            .labels_in_names = parsed.at("labels_in_names").get<bool>(),
            .facts = parsed.at("facts")};
  } catch (const nlohmann::json::exception& error) {
    throw Error(cat(where, ": damaged head: ", error.what()));
  }
}

std::string write_head(const IndexHead& head) {
  // Names of files need not be UTF-8.
  return nlohmann::json{{"classes", head.classes},
                        {"files", head.files},
                        {"key", head.key},
                        {"labels_in_names", head.labels_in_names},
                        {"facts", head.facts}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

SampleIndex::SampleIndex(std::string bytes)
    : owned_(std::make_unique<const std::string>(std::move(bytes))) {
  parse(*owned_, "index");
}

SampleIndex::SampleIndex(const std::filesystem::path& file)
    : mapped_(std::make_unique<const MappedFile>(file)) {
  parse(mapped_->bytes(), file.string());
}

void SampleIndex::parse(std::string_view bytes, const std::string& where) {
  IndexHeader header;
  if (bytes.size() < sizeof header || !bytes.starts_with(bytes_of(kIndexMagic.data(), 8))) {
    throw Error(cat(where, ": no index of samples; expected what `ablate-train convert` writes"));
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != kIndexVersion || header.entry_bytes != sizeof(SampleEntry)) {
    throw Error(cat(where, ": index of version ", header.version, "; accepted: ", kIndexVersion));
  }
  const std::string_view body = bytes.substr(sizeof header);
  const std::uint64_t rest = header.names_bytes + header.head_bytes;
  if (header.entries > body.size() / sizeof(SampleEntry) || rest > body.size() ||
      header.entries * sizeof(SampleEntry) + rest != body.size()) {
    throw Error(cat(where, ": cut off: ", bytes.size(), " bytes"));
  }
  if (hash64(body) != header.checksum) throw Error(cat(where, ": damaged: wrong checksum"));
  const std::size_t entry_bytes = header.entries * sizeof(SampleEntry);
  entries_ = {reinterpret_cast<const SampleEntry*>(body.data()), header.entries};
  names_ = body.substr(entry_bytes, header.names_bytes);
  head_ = read_head(body.substr(entry_bytes + header.names_bytes), where);
  check_entries(where);
}

void SampleIndex::check_entries(const std::string& where) const {
  for (const SampleEntry& entry : entries_) {
    const bool ok = entry.label < head_.classes.size() && entry.name <= names_.size() &&
                    entry.name_length <= names_.size() - entry.name &&
                    (head_.files.empty() || entry.file < head_.files.size());
    if (!ok) throw Error(cat(where, ": damaged: an entry points outside"));
  }
}

void IndexBuilder::add(SampleEntry entry, std::string_view name) {
  entry.name = names_.size();
  entry.name_length = static_cast<std::uint32_t>(name.size());
  entries_.push_back(entry);
  names_ += name;
}

std::string IndexBuilder::finish() const {
  const std::string head_text = write_head(head);
  std::string body(bytes_of(entries_.data(), entries_.size()));
  body += names_;
  body += head_text;
  IndexHeader header;
  header.entries = entries_.size();
  header.names_bytes = names_.size();
  header.head_bytes = head_text.size();
  header.checksum = hash64(body);
  return std::string(bytes_of(&header, 1)) + body;
}

IndexBuilder without(const SampleIndex& index, std::span<const std::int64_t> left_out) {
  IndexBuilder rest;
  rest.head = index.head();
  for (std::int64_t i = 0; i < index.size(); ++i) {
    if (!std::ranges::binary_search(left_out, i)) rest.add(index.entry(i), index.name(i));
  }
  return rest;
}

}  // namespace ablate
