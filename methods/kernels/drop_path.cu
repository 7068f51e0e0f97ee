#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/drop_path.h"
#include "methods/kernels/philox.cuh"
#include "runner/core/error.h"
#include "runner/core/random.h"

namespace ablate::kernels {
namespace {

constexpr int kDropPathThreads = 128;

/// Grid (pieces of the batch, joins).
__global__ void __launch_bounds__(kDropPathThreads)
    drop_path_kernel(DropPath arguments, uint2 key) {
  const std::int64_t sample =
      static_cast<std::int64_t>(blockIdx.x) * kDropPathThreads + threadIdx.x;
  if (sample >= arguments.batch) return;
  const DropPathJoin join = arguments.joins[blockIdx.y];
  const auto position = static_cast<std::uint64_t>(arguments.first_position + sample);
  const uint4 words = philox4x32(make_uint4(static_cast<std::uint32_t>(position / 4),
                                            static_cast<std::uint32_t>(*arguments.step),
                                            static_cast<std::uint32_t>(join.module),
                                            static_cast<std::uint32_t>(join.module >> 32)),
                                 key);
  const std::uint32_t low = position % 2 == 0 ? words.x : words.y;
  const std::uint32_t high = position % 2 == 0 ? words.z : words.w;
  const double uniform = uniform_of_word(position % 4 < 2 ? low : high);
  arguments.scales[blockIdx.y * arguments.batch + sample] =
      uniform < join.keep ? static_cast<float>(join.gain / join.keep) : 0.0F;
}

}  // namespace

void drop_path_scales(const DropPath& arguments, Stream stream) {
  if (arguments.join_count * arguments.batch == 0) return;
  ABLATE_CHECK(arguments.join_count < 65536, "drop_path: up to 65535 joins are supported");
  ABLATE_CHECK(arguments.first_position >= 0 &&
                   arguments.first_position + arguments.batch <= std::int64_t{1} << 34,
               "drop_path: a stream has 2^34 numbers");
  const auto key = philox_key(arguments.seed, Purpose::DropPath);
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(arguments.batch, kDropPathThreads)),
                  static_cast<unsigned>(arguments.join_count));
  drop_path_kernel<<<grid, kDropPathThreads, 0, stream>>>(arguments, make_uint2(key[0], key[1]));
  check_launch();
}

}  // namespace ablate::kernels
