#pragma once

namespace ablate {

/// The process-wide settings of LibTorch, made once, before anything is computed: threads of a
/// rank's tensor operations, deterministic forms of operations where there is a choice.
void set_torch_switches(int threads);

/// What LibTorch keeps for each thread that computes a run: its number of threads.
void set_thread_switches(int threads);

}  // namespace ablate
