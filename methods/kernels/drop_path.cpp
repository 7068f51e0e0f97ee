#include "methods/kernels/drop_path.h"

#include "runner/core/random.h"

namespace ablate::kernels::reference {

void drop_path_scales(const DropPath& arguments) {
  for (std::int64_t j = 0; j < arguments.join_count; ++j) {
    const DropPathJoin& join = arguments.joins[j];
    RandomStream stream(arguments.seed, Purpose::DropPath, join.module,
                        static_cast<std::uint32_t>(*arguments.step));
    for (std::int64_t skipped = 0; skipped < arguments.first_position; ++skipped) stream.next();
    for (std::int64_t b = 0; b < arguments.batch; ++b) {
      const bool kept = double{stream.uniform()} < join.keep;
      arguments.scales[j * arguments.batch + b] =
          kept ? static_cast<float>(join.gain / join.keep) : 0.0F;
    }
  }
}

}  // namespace ablate::kernels::reference
