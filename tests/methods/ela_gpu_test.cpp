#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "methods/ela_statistics.h"
#include "tests/support/gpu.h"

#if ABLATE_HAS_CUDA

namespace ablate::methods::ela {
namespace {

/// One stage of four blocks in float: queries and keys, or gate logits.
RetrievalRecord record_on(at::Device device, bool gates) {
  constexpr std::int64_t kBatch = 16, kGroups = 4, kWidth = 8;
  RetrievalRecord record{.shadow = true, .retrievals = {}};
  for (int block = 0; block < 4; ++block) {
    const at::Tensor n = at::arange(kBatch * kGroups * kWidth, at::kDouble);
    const auto wave = [&](double frequency) {
      return (4 * (frequency * n + block).sin())
          .view({kBatch, kGroups, kWidth})
          .to(at::kFloat)
          .to(device);
    };
    Retrieval retrieval{.block = block, .log_row = {}, .query = {}, .key = {}, .logits = {}};
    if (gates) {
      retrieval.logits = wave(1.3).select(2, 0);
    } else {
      retrieval.query = wave(1.3);
      retrieval.key = wave(0.4);
    }
    record.retrievals.push_back(retrieval);
  }
  return record;
}

DivergenceSums sums_on(at::Device device, Divergence kind, bool gates) {
  return {kind, gates, 10.0, {{0, 1, 2, 3}}, candidates_of({4}, 1), device};
}

/// Adds the record once eagerly and twice by replays of a captured graph.
void add_thrice(DivergenceSums& sums, const RetrievalRecord& record) {
  const auto stream = c10::cuda::getStreamFromPool();
  c10::cuda::device_synchronize();
  const c10::cuda::CUDAStreamGuard guard(stream);
  sums.add(record);
  stream.synchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  sums.add(record);
  graph.capture_end();
  for (int i = 0; i < 2; ++i) graph.replay();
  stream.synchronize();
  graph.reset();
}

TEST(ElaStatisticsGpu, GrowInReplaysAsOnTheCpu) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  const auto self = make_self_communicator();
  const at::Device device(at::kCUDA, 0);
  for (int i = 0; i <= static_cast<int>(Divergence::Categorical); ++i) {
    const auto kind = static_cast<Divergence>(i);
    for (const bool gates : {false, true}) {
      if (gates ? !compares_gates(kind) : !compares_rows(kind)) continue;
      DivergenceSums host = sums_on(at::kCPU, kind, gates);
      for (int pass = 0; pass < 3; ++pass) host.add(record_on(at::kCPU, gates));
      DivergenceSums first = sums_on(device, kind, gates), second = sums_on(device, kind, gates);
      add_thrice(first, record_on(device, gates));
      add_thrice(second, record_on(device, gates));
      const at::Tensor found = first.gather(*self);
      EXPECT_TRUE(at::allclose(found, host.gather(*self), 1e-4, 1e-5)) << divergence_name(kind);
      EXPECT_TRUE(at::equal(found, second.gather(*self))) << divergence_name(kind);
      first.reset();
      EXPECT_EQ(first.gather(*self).abs().max().item<double>(), 0);
    }
  }
}

}  // namespace
}  // namespace ablate::methods::ela

#endif  // ABLATE_HAS_CUDA
