#if ABLATE_HAS_NCCL
#include <thread>

#include <gtest/gtest.h>

#include "distributed/gradient_reducer.h"
#include "distributed/launcher.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"
#include "tests/distributed/own_linear.h"
#include "tests/support/own_ranks.h"

/// Tests of one rank among those that were started together; alone, a test is the only rank and
/// still goes through NCCL. NcclProcessesGpu starts this suite as two processes.
namespace ablate::test {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kWidth = 64, kRows = 32;
constexpr int kWeights = 4, kSteps = 20, kEager = 3;
constexpr milliseconds kPatience(4000);  // ranks connect at their first collective
constexpr double kRate = 0.002;          // the loss falls steadily: rounding does not grow

c10::DeviceIndex index_of(int device) { return static_cast<c10::DeviceIndex>(device); }

/// Four layers with tanh between them; every other one is an OwnLinear. Flat buffers, weights in
/// reverse order of execution.
struct Training {
  explicit Training(at::Device device) {
    const auto floats = at::TensorOptions(device).dtype(at::kFloat);
    constexpr std::int64_t kSize = kWidth * kWidth;
    gradients = at::zeros({kWeights * kSize}, floats);
    values = at::sin(at::arange(kWeights * kSize, floats) * 0.7) / 8;
    numbers = at::zeros({3}, floats.dtype(at::kDouble));
    for (int i = 0; i < kWeights; ++i) {
      const std::int64_t offset = i * kSize;
      segments.push_back({cat("w", i), offset, kSize});
      at::Tensor weight = values.narrow(0, offset, kSize).view({kWidth, kWidth}).detach();
      weight.requires_grad_(true);
      weight.mutable_grad() = gradients.narrow(0, offset, kSize).view({kWidth, kWidth});
      weights.push_back(weight);
    }
  }

  at::Tensor loss(const at::Tensor& input) {
    at::Tensor x = input;
    for (int i = kWeights - 1; i >= 0; --i) {
      const auto k = static_cast<std::size_t>(i);
      x = at::tanh(i % 2 == 0 ? OwnLinear::apply(x, weights[k], weights[k].grad())
                              : at::linear(x, weights[k]));
    }
    return x.square().sum(1).mean();
  }

  /// What a captured training step does with its communicator.
  void step(Communicator& communicator, GradientReducer& reducer, const at::Tensor& input) {
    gradients.zero_();
    const at::Tensor value = loss(input);
    reducer.arm();
    value.backward();
    reducer.finish();
    const at::NoGradGuard no_grad;
    numbers[0].copy_(value);
    communicator.all_reduce(numbers);
    values.add_(gradients, -kRate * reducer.remaining_factor());
  }

  at::Tensor values, gradients, numbers;
  std::vector<GradientSegment> segments;
  std::vector<at::Tensor> weights;
};

/// Images of all ranks; a rank takes its rows.
at::Tensor all_rows(int size, at::Device device) {
  return at::cos(at::arange(size * kRows * kWidth, at::TensorOptions(device).dtype(at::kFloat)))
      .view({size * kRows, kWidth});
}

class NcclRankGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no GPU";
    if (const auto meeting = rendezvous_of_environment()) {
      session_.emplace(*meeting);
    } else {
      alone_ = make_self_communicator();
    }
    device_ = local_rank(world());
    if (device_ >= c10::cuda::device_count()) GTEST_SKIP() << "needs a GPU a rank";
    c10::cuda::set_device(index_of(device_));
  }
  Communicator& world() { return session_ ? session_->world() : *alone_; }
  at::Device device() const { return {at::kCUDA, index_of(device_)}; }

  /// kSteps steps, all eager, or all but the first kEager captured. Weights and numbers at the end.
  std::pair<at::Tensor, at::Tensor> train(const ReducerOptions& options, bool capture);

  std::optional<StoreSession> session_;
  std::unique_ptr<Communicator> alone_;
  int device_ = 0;
};

std::pair<at::Tensor, at::Tensor> NcclRankGpu::train(const ReducerOptions& options, bool capture) {
  const auto nccl = make_nccl_communicator(world(), device_);
  Training training(device());
  const at::Tensor input =
      all_rows(world().size(), device()).narrow(0, world().rank() * kRows, kRows).contiguous();
  GradientReducer reducer(*nccl, training.gradients, training.segments, training.weights, options);
  const auto stream = c10::cuda::getStreamFromPool(true, index_of(device_));
  c10::cuda::device_synchronize();
  {
    const c10::cuda::CUDAStreamGuard guard(stream);
    at::cuda::CUDAGraph graph;
    for (int i = 0; i < kSteps; ++i) {
      nccl->step_begun(i);
      if (capture && i == kEager) {
        graph.capture_begin();
        training.step(*nccl, reducer, input);
        graph.capture_end();
      }
      if (capture && i >= kEager) {
        graph.replay();
      } else {
        training.step(*nccl, reducer, input);
      }
    }
    stream.synchronize();
    nccl->step_finished(kSteps - 1);
    if (capture) graph.reset();
  }
  return {training.values.clone(), training.numbers.clone()};
}

/// One bucket a layer, so that reductions overlap with backward.
ReducerOptions small_buckets(Wire wire, bool average) {
  return {.bucket_bytes = 1,
          .first_bucket_bytes = 1,
          .wire = wire,
          .average = average,
          .reduce_alone = true};
}

TEST_F(NcclRankGpu, CapturedStepsEqualEagerOnesBitForBit) {
  for (const Wire wire : {Wire::Gradients, Wire::Bfloat16}) {
    for (const bool average : {true, false}) {
      const auto options = small_buckets(wire, average);
      const auto [eager, eager_numbers] = train(options, false);
      const auto [captured, captured_numbers] = train(options, true);
      EXPECT_TRUE(at::equal(eager, captured)) << int(wire) << average;
      EXPECT_TRUE(at::equal(eager_numbers, captured_numbers)) << int(wire) << average;
    }
  }
}

TEST_F(NcclRankGpu, RanksTogetherTrainLikeOneOnTheWholeBatch) {
  const auto [values, numbers] = train(small_buckets(Wire::Gradients, true), true);
  Training whole(device());
  const at::Tensor start = whole.values.clone();
  const at::Tensor input = all_rows(world().size(), device());
  double loss = 0;
  for (int i = 0; i < kSteps; ++i) {
    whole.gradients.zero_();
    const at::Tensor value = whole.loss(input);
    value.backward();
    loss = value.item<double>();
    const at::NoGradGuard no_grad;
    whole.values.add_(whole.gradients, -kRate);
  }
  const double moved = (whole.values - start).norm().item<double>();
  EXPECT_LT((values - whole.values).norm().item<double>(), 1e-4 * moved);
  EXPECT_NEAR(numbers[0].item<double>() / world().size(), loss, 1e-3 * loss);
  const auto [rounded, unused] = train(small_buckets(Wire::Bfloat16, true), true);
  const double error = (rounded - whole.values).norm().item<double>() / moved;
  std::cout << "relative error of " << kSteps << " steps with a bfloat16 wire: " << error << "\n";
  EXPECT_LT(error, 0.01);
}

TEST_F(NcclRankGpu, AGraphKeepsTheCommunicatorAlive) {
  at::Tensor tensor = at::ones({1000}, at::TensorOptions(device()));
  at::cuda::CUDAGraph graph;
  std::shared_ptr<void> hold;
  {
    const auto nccl = make_nccl_communicator(world(), device_);
    nccl->all_reduce(tensor);
    const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool(true, index_of(device_)));
    graph.capture_begin();
    tensor.fill_(3);
    EXPECT_THROW(nccl->all_reduce(tensor), BugError) << "nobody holds the communicator";
    hold = nccl->hold();
    nccl->all_reduce(tensor);
    graph.capture_end();
  }
  graph.replay();
  c10::cuda::device_synchronize();
  EXPECT_TRUE((tensor == 3 * world().size()).all().item<bool>());
  graph.reset();
  hold.reset();  // would wait for ever if the graph still lived
}

TEST_F(NcclRankGpu, AStepThatTakesTooLongIsAbortedAndNamed) {
  const auto nccl = make_nccl_communicator(world(), device_, {.step_timeout = kPatience});
  at::Tensor tensor = at::ones({1000}, at::TensorOptions(device()));
  nccl->step_begun(6);
  nccl->all_reduce(tensor);
  c10::cuda::device_synchronize();
  nccl->step_finished(6);
  nccl->step_begun(7);
  std::this_thread::sleep_for(kPatience + milliseconds(1000));
  try {
    nccl->step_finished(7);
    FAIL() << "nobody watched";
  } catch (const TransientError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(cat("step 7 on rank ", world().rank(), " of ", world().size())),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("all_reduce of 1000 Float, number 1 of the step"), std::string::npos)
        << text;
  }
  EXPECT_THROW(nccl->all_reduce(tensor), TransientError);
}

/// Rank 0 replays a captured step that the others do not join.
TEST_F(NcclRankGpu, ARankThatHangsInAGraphComesBack) {
  if (world().size() < 2) GTEST_SKIP() << "needs 2 ranks";
  auto nccl = make_nccl_communicator(world(), device_, {.step_timeout = milliseconds(2000)});
  const auto hold = nccl->hold();
  at::Tensor tensor = at::ones({1 << 20}, at::TensorOptions(device()));
  nccl->all_reduce(tensor);
  const auto stream = c10::cuda::getStreamFromPool(true, index_of(device_));
  const c10::cuda::CUDAStreamGuard guard(stream);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  nccl->all_reduce(tensor);
  graph.capture_end();
  graph.replay();
  stream.synchronize();
  if (world().rank() == 0) {
    nccl->step_begun(41);
    graph.replay();
    stream.synchronize();  // returns when the watching thread has aborted the communicator
    EXPECT_THROW(nccl->step_finished(41), TransientError);
  }
  graph.reset();
  world().barrier();
}

TEST_F(NcclRankGpu, ARankThatHangsBetweenStepsComesBack) {
  if (world().size() < 2) GTEST_SKIP() << "needs 2 ranks";
  auto nccl = make_nccl_communicator(world(), device_, {.step_timeout = kPatience});
  at::Tensor tensor = at::ones({77}, at::TensorOptions(device()));
  nccl->step_begun(0);
  nccl->all_reduce(tensor);
  c10::cuda::device_synchronize();
  nccl->step_finished(0);
  std::this_thread::sleep_for(kPatience + milliseconds(500));
  EXPECT_NO_THROW(nccl->all_reduce(tensor)) << "idle ranks do not hang";
  c10::cuda::device_synchronize();
  if (world().rank() == 0) {
    nccl->all_reduce(tensor);
    c10::cuda::device_synchronize();
    try {
      nccl->all_reduce(tensor);
      FAIL() << "nobody watched";
    } catch (const TransientError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("between steps on rank 0 of 2: all_reduce of 77 Float"),
                std::string::npos)
          << text;
    }
  }
  world().barrier();
}

TEST_F(NcclRankGpu, RanksThatDoNotComeAreNamed) {
  if (world().size() > 1) GTEST_SKIP() << "for one process";
  const auto ranks = make_thread_communicators(3);
  try {
    make_nccl_communicator(*ranks[1], device_, {.init_timeout = milliseconds(200)});
    FAIL() << "two ranks are missing";
  } catch (const TransientError& error) {
    EXPECT_STREQ(error.what(),
                 "NCCL: initialisation on rank 1 of 3: rank 0, 2 did not come within 0.2 s");
  }
}

TEST(NcclProcessesGpu, TwoRanksPassTheTestsOfARank) {
  if (c10::cuda::device_count() < 2) GTEST_SKIP() << "needs 2 GPUs";
  for (const char* test :
       {"CapturedStepsEqualEagerOnesBitForBit", "RanksTogetherTrainLikeOneOnTheWholeBatch",
        "AGraphKeepsTheCommunicatorAlive", "AStepThatTakesTooLongIsAbortedAndNamed",
        "ARankThatHangsInAGraphComesBack", "ARankThatHangsBetweenStepsComesBack"}) {
    expect_pass_as_ranks(2, cat("NcclRankGpu.", test));
  }
}

}  // namespace
}  // namespace ablate::test
#endif
