#pragma once

namespace ablate {

/// Whether a system call failed for a reason that lies in the machine and may pass (disk full,
/// quota or size limit reached, I/O error, file system turned read-only, out of memory or
/// descriptors) rather than in what was asked for.
bool is_machine_fault(int error_number);

}  // namespace ablate
