#include "distributed/nccl_version.h"

#include <nccl.h>

#include "runner/core/text.h"

namespace ablate {

std::string nccl_library_version() {
  int number = 0;  // 22809 is 2.28.9
  if (ncclGetVersion(&number) != ncclSuccess) return {};
  return cat(number / 10'000, ".", number % 10'000 / 100, ".", number % 100);
}

}  // namespace ablate
