#include "datasets/store/tar_members.h"

#include <memory>

#include <archive.h>
#include <archive_entry.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

struct ArchiveCloser {
  void operator()(archive* opened) const { archive_read_free(opened); }
};
using Archive = std::unique_ptr<archive, ArchiveCloser>;

Archive open_tar(const fs::path& file) {
  Archive opened(archive_read_new());
  archive_read_support_filter_all(opened.get());  // so that a compressed file is told as such
  archive_read_support_format_tar(opened.get());
  archive_read_support_format_empty(opened.get());
  constexpr std::size_t kBlock = 64 * 1024;  // contents are skipped by seeking
  if (archive_read_open_filename(opened.get(), file.c_str(), kBlock) != ARCHIVE_OK) {
    throw Error(cat(file.string(), ": cannot be opened: ", archive_error_string(opened.get())));
  }
  return opened;
}

void refuse_compressed(archive* opened, const fs::path& file) {
  if (archive_filter_code(opened, 0) == ARCHIVE_FILTER_NONE) return;
  throw SpecError(cat(file.string(), ": compressed by ", archive_filter_name(opened, 0),
                      "; samples are read where they lie, so uncompressed tar files are accepted:"
                      " decompress it (JPEGs do not get smaller by it)"));
}

bool is_plain_file(archive_entry* entry) {
  return archive_entry_filetype(entry) == AE_IFREG && archive_entry_hardlink(entry) == nullptr &&
         archive_entry_sparse_count(entry) == 0;
}

}  // namespace

TarListing list_tar(const fs::path& file) {
  const Archive opened = open_tar(file);
  const std::uint64_t size = fs::file_size(file);
  TarListing listing;
  archive_entry* entry = nullptr;
  for (;;) {
    const int status = archive_read_next_header(opened.get(), &entry);
    refuse_compressed(opened.get(), file);
    if (status == ARCHIVE_EOF) return listing;
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) {
      throw Error(cat(file.string(), ": damaged tar file: ", archive_error_string(opened.get())));
    }
    const char* path = archive_entry_pathname(entry);
    if (path == nullptr) throw Error(cat(file.string(), ": a member has no readable name"));
    if (archive_entry_filetype(entry) == AE_IFDIR) continue;
    if (!is_plain_file(entry)) {
      listing.others.emplace_back(path);
      continue;
    }
    // Headers have been taken from the stream, contents not yet.
    const auto offset = static_cast<std::uint64_t>(archive_filter_bytes(opened.get(), 0));
    const auto length = static_cast<std::uint64_t>(archive_entry_size(entry));
    if (offset > size || length > size - offset) {
      throw Error(cat(file.string(), ": cut off in ", path));
    }
    listing.files.push_back({.path = path, .offset = offset, .length = length});
  }
}

}  // namespace ablate
