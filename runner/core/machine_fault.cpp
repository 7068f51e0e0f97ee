#include "runner/core/machine_fault.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace ablate {

bool is_machine_fault(int error_number) {
  static constexpr std::array kFaults = {ENOSPC, EDQUOT, EFBIG,  EIO,    EROFS,
                                         ESTALE, ENOMEM, EMFILE, ENFILE, ETIMEDOUT};
  return std::find(kFaults.begin(), kFaults.end(), error_number) != kFaults.end();
}

}  // namespace ablate
