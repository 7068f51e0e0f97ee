#include "runner/worker/bench_ideal.h"

#if ABLATE_HAS_CUDA

#include <optional>
#include <utility>

#include "methods/models/fused/context.h"
#include "methods/models/model.h"
#include "methods/models/ops.h"
#include "runner/core/error.h"
#include "runner/train/device_graph.h"
#include "runner/worker/bench_noise.h"
#include "runner/worker/standalone_model.h"

namespace ablate {
namespace {

enum class Branch { Attention, Mlp };

/// All branches of one kind, one after another, as a captured graph.
class BranchChain {
 public:
  BranchChain(const Structure& structure, const Protocol& protocol, Branch branch)
      : branch_(branch),
        trains_(protocol.kind == BenchKind::Train),
        model_(build_model(structure, at::kFloat, 0)),
        stream_(stream_for_capture(c10::cuda::current_device())) {
    const at::Device device(at::kCUDA, c10::cuda::current_device());
    move_model(*model_, device, at::kFloat);
    model_->eval();
    const std::int64_t tokens = block_tokens(structure).front().mlp;
    const std::int64_t width = model_->blocks().front()->norm2().weight.size(0);
    tokens_ = bench_noise(protocol.batch * tokens * width)
                  .to(device, at::kFloat)
                  .view({protocol.batch, tokens, width});
    upstream_ = tokens_.clone();
    if (trains_) tokens_.requires_grad_();
    if (protocol.dtype == "bf16") bind(device);
    prepare();
  }
  ~BranchChain() {
    stream_.synchronize();
    graph_.reset();
  }
  BranchChain(const BranchChain&) = delete;
  BranchChain& operator=(const BranchChain&) = delete;

  void repeat(std::int64_t times) {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    for (std::int64_t i = 0; i < times; ++i) graph_.captured() ? graph_.replay() : run();
    stream_.synchronize();
  }

 private:
  void bind(at::Device device) {
    context_.emplace(device);
    if (!trains_) return context_->bind_for_inference(*model_);
    for (const at::Tensor& parameter : model_->parameters()) {
      context_->bind(parameter, {.working = parameter.detach().to(at::kBFloat16),
                                 .gradient = at::zeros_like(parameter)});
    }
  }

  void prepare() {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    c10::cuda::device_synchronize();
    if (context_) context_->gemm().set_timing(true);
    run();
    if (context_) context_->gemm().set_timing(false);
    run();
    clear_gradients();
    graph_.capture([this] { run(); }, "a branch");
  }

  void clear_gradients() {
    for (at::Tensor& parameter : model_->parameters()) parameter.mutable_grad() = at::Tensor();
    tokens_.mutable_grad() = at::Tensor();
  }

  void run() {
    const at::AutoGradMode grad_mode(trains_);
    ForwardState state;
    state.fused = context_ ? &*context_ : nullptr;
    clear_gradients();
    TokenStream stream{tokens_};
    for (Block* block : model_->blocks()) stream = pass(std::move(stream), *block, state);
    const at::Tensor x = ops::join(stream, state);
    if (trains_) x.backward(upstream_);
  }

  TokenStream pass(TokenStream stream, Block& block, ForwardState& state) const {
    const bool attention = branch_ == Branch::Attention;
    const LayerNorm& norm = attention ? *block.norm1() : block.norm2();
    const auto [x, normed] = ops::join_and_norm(stream, norm, state);
    const at::Tensor branch =
        attention ? block.mixer()->forward(normed, state) : block.mlp().forward(normed, state);
    return {.base = x, .pending = branch, .pending_bias = std::exchange(state.deferred_bias, {})};
  }

  Branch branch_;
  bool trains_;
  std::shared_ptr<Model> model_;
  c10::cuda::CUDAStream stream_;
  std::optional<FusedContext> context_;
  at::Tensor tokens_, upstream_;
  DeviceGraph graph_;
};

}  // namespace

BranchCosts measure_branches(const Structure& structure, const Protocol& protocol,
                             const TimingOptions& timing) {
  for (const BlockTokens& tokens : block_tokens(structure)) {
    if (tokens.attention == 0 || tokens.mlp == 0) {
      throw SpecError("--ideal: the baseline must have attention in every block");
    }
  }
  constexpr std::int64_t kRepetitions = 20;
  BranchChain attention(structure, protocol, Branch::Attention),
      mlp(structure, protocol, Branch::Mlp);
  const auto seconds = time_in_turns(
      {[&] { attention.repeat(kRepetitions); }, [&] { mlp.repeat(kRepetitions); }}, timing);
  const auto chains = static_cast<double>(kRepetitions * std::ssize(block_tokens(structure)));
  return {.attention = Spread::of(seconds[0]).median / chains,
          .mlp = Spread::of(seconds[1]).median / chains};
}

}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
