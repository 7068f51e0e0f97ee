#include "runner/worker/torch_switches.h"

#include "runner/torch/torch.h"

namespace ablate {

void set_torch_switches(int threads) {
  set_thread_switches(threads);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // A debugging aid that comes with it: every new tensor would be filled with NaN first.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  // What a spec calls fp32 is fp32: cuDNN would round its operands to 10 bits.
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowTF32CuBLAS(false);
}

void set_thread_switches(int threads) { at::set_num_threads(threads); }

}  // namespace ablate
