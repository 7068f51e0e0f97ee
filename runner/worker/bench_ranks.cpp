#include "runner/worker/bench_ranks.h"

#include <algorithm>

#include "distributed/launcher.h"
#include "runner/worker/bench_device.h"
#include "runner/worker/bench_subject.h"

namespace ablate {

RankTimes time_on_ranks(Communicator& world, const std::function<void()>& together,
                        const std::function<void()>& alone, const TimingOptions& options,
                        const SecondsClock& clock) {
  // The barrier is a turn of its own: what a rank waits for its peers' lonely work is no part of
  // the common one.
  const std::vector<std::function<void()>> turns{[&] { world.barrier(); }, together, alone};
  const auto trial = time_in_turns(
      turns,
      {.warm_up = std::max<std::int64_t>(1, options.warm_up), .min_rounds = 1, .max_rounds = 1},
      clock);
  // Ranks must agree on the number of rounds, so no clock decides on the way.
  const auto wanted =
      static_cast<std::int64_t>(options.budget_seconds / (trial[1][0] + trial[2][0]));
  const std::int64_t rounds =
      world.all_reduce(std::clamp(wanted, options.min_rounds, options.max_rounds), ReduceOp::Min);
  const auto times =
      time_in_turns(turns, {.warm_up = 0, .min_rounds = rounds, .max_rounds = rounds}, clock);
  RankTimes result;
  for (const double seconds : times[1]) {
    result.seconds.push_back(world.all_reduce(seconds, ReduceOp::Max));
  }
  const double alone_speeds = world.all_reduce(1.0 / Spread::of(times[2]).median);
  result.scaling = world.size() / Spread::of(result.seconds).median / alone_speeds;
  return result;
}

RankTimes time_training_on_ranks(const Structure& structure, const Protocol& protocol,
                                 const TimingOptions& options, Communicator& world) {
  if constexpr (ABLATE_HAS_CUDA) {
    if (protocol.device != "cpu") {
      const int device = local_rank(world);
      choose_device(device);
      const auto nccl = make_nccl_communicator(world, device);
      DeviceBenchSubject alone(structure, protocol);
      DeviceBenchSubject together(structure, protocol, nccl.get());
      const std::int64_t window = world.all_reduce(alone.window(), ReduceOp::Max);
      for (DeviceBenchSubject* subject : {&alone, &together}) subject->set_window(window);
      RankTimes times = time_on_ranks(
          world, [&] { together.run_window(); }, [&] { alone.run_window(); }, options);
      for (double& seconds : times.seconds) seconds /= static_cast<double>(window);
      return times;
    }
  }
  BenchSubject alone(structure, protocol);
  BenchSubject together(structure, protocol, &world);
  return time_on_ranks(
      world, [&] { together.repeat(); }, [&] { alone.repeat(); }, options);
}

}  // namespace ablate
