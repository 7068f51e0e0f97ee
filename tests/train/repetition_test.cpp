#include <gtest/gtest.h>

#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Same spec, ranks and threads: the same bits, every time.

namespace ablate::test {
namespace {

/// Threads of tensor operations while it lives.
class TensorThreads {
 public:
  explicit TensorThreads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~TensorThreads() { at::set_num_threads(before_); }
  TensorThreads(const TensorThreads&) = delete;
  TensorThreads& operator=(const TensorThreads&) = delete;

 private:
  int before_;
};

struct Repetition {
  const char* name;
  std::string_view model;
  std::vector<std::string> overrides;
};

class Repeated : public testing::TestWithParam<Repetition> {
 protected:
  RunRecord record(int ranks, int threads) const {
    const TempFolder out;
    const TensorThreads guard(threads);
    Environment environment = environment_in(out.path());
    environment.threads = threads;
    environment.loader_threads = threads;
    const auto overrides =
        joined(joined(all_randomness(), GetParam().overrides), {"ema_decay=0.9", "clip_norm=1.0"});
    const RunSpec spec = resolve_table(GetParam().model, overrides, ranks);
    run_attempt(spec, environment, ranks);
    return read_run(spec, environment);
  }
};

TEST_P(Repeated, RunGivesTheSameBits) {
  for (const auto& [ranks, threads] : {std::pair{1, 1}, {1, 2}, {2, 1}, {2, 2}, {4, 1}}) {
    SCOPED_TRACE(cat(ranks, " ranks, ", threads, " threads"));
    const RunRecord once = record(ranks, threads);
    EXPECT_EQ(once.series.at("train/loss").size(), 8U);
    expect_same_bits(once, record(ranks, threads));
  }
}

// Large enough that two threads share the work on a tensor.
INSTANTIATE_TEST_SUITE_P(Models, Repeated,
                         testing::Values(Repetition{"Transformer",
                                                    kTinyVit,
                                                    {"dataset.image_size=16", "model.image_size=16",
                                                     "model.embed_dim=48", "model.drop_path=0.1"}},
                                         Repetition{
                                             "NetworkWithBatchNorm", kTinyResNet, {"bn_group=32"}}),
                         [](const auto& of) { return of.param.name; });

}  // namespace
}  // namespace ablate::test
