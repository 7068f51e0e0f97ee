#pragma once

#include <filesystem>

namespace ablate {

/// Tries, in a temporary file in `folder`, what a database in WAL mode needs: byte-range locks that
/// another process sees, shared memory maps, and rename over an existing file. For file systems
/// that `file_system_kind` does not know. Throws Error when the folder is not writable.
bool has_reliable_locks(const std::filesystem::path& folder);

}  // namespace ablate
