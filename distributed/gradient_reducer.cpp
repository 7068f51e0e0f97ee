#include "distributed/gradient_reducer.h"

#include <algorithm>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/torch/torch.h"

namespace ablate {

namespace {

GradientBucket bucket_of_segments(const std::vector<GradientSegment>& segments,
                                  std::vector<std::size_t> members) {
  const GradientSegment& last = segments[members.back()];
  const std::int64_t offset = segments[members.front()].offset;
  return {
      .offset = offset, .numel = last.offset + last.numel - offset, .segments = std::move(members)};
}

/// Leaves at the end of the last bucket what is complete last, as a bucket of its own.
void split_last(std::vector<GradientBucket>& buckets, const std::vector<GradientSegment>& segments,
                std::int64_t most) {
  if (buckets.empty()) return;
  const std::vector<std::size_t> members = buckets.back().segments;
  const GradientSegment& last = segments[members.back()];
  const auto begin = std::find_if(members.begin(), members.end() - 1, [&](std::size_t i) {
    return last.offset + last.numel - segments[i].offset <= most;
  });
  if (begin == members.begin()) return;
  buckets.back() = bucket_of_segments(segments, {members.begin(), begin});
  buckets.push_back(bucket_of_segments(segments, {begin, members.end()}));
}

}  // namespace

std::vector<GradientBucket> plan_buckets(const std::vector<GradientSegment>& segments,
                                         std::int64_t element_bytes,
                                         const ReducerOptions& options) {
  std::vector<GradientBucket> buckets;
  bool open = false;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const GradientSegment& segment = segments[i];
    if (!segment.active) {
      open = false;
      continue;
    }
    if (!open) buckets.push_back({.offset = segment.offset, .numel = 0, .segments = {}});
    GradientBucket& bucket = buckets.back();
    bucket.segments.push_back(i);
    bucket.numel = segment.offset + segment.numel - bucket.offset;
    const auto limit = buckets.size() == 1 ? options.first_bucket_bytes : options.bucket_bytes;
    open = bucket.numel * element_bytes < limit;
  }
  split_last(buckets, segments, options.last_bucket_bytes / element_bytes);
  return buckets;
}

struct GradientReducer::State {
  State(Communicator& comm, const at::Tensor& flat, const std::vector<GradientSegment>& parts,
        const std::vector<at::Tensor>& tensors, const ReducerOptions& settings);
  ~State();

  void agree() const;
  bool idle() const { return communicator.size() == 1 && !options.reduce_alone; }
  void on_gradient(std::size_t segment);
  void start_next();
  void finish_bucket(std::size_t bucket);

  Communicator& communicator;
  std::shared_ptr<void> hold;  // of the communicator: captured steps need both
  ReducerOptions options;
  at::Tensor gradients;
  std::vector<GradientSegment> segments;
  std::vector<at::Tensor> parameters;
  std::vector<GradientBucket> buckets;
  std::vector<at::Tensor> slices;      // of gradients, one a bucket
  std::vector<at::Tensor> wires;       // what travels: the slices, or their bfloat16 copies
  std::vector<std::size_t> bucket_of;  // by segment; buckets.size() when inactive
  bool armed = false;
  std::vector<bool> ready;                   // by segment
  std::vector<std::size_t> missing;          // segments not yet ready, by bucket
  std::vector<std::unique_ptr<Work>> works;  // of the buckets started so far
};

namespace {

/// Fires when a parameter's `.grad` is final for this backward, also when no function that took the
/// parameter left autograd something to accumulate.
class ReadyHook final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit ReadyHook(std::function<void()> notify) : notify_(std::move(notify)) {}
  void operator()(const at::Tensor&) override { notify_(); }

 private:
  std::function<void()> notify_;
};

}  // namespace

GradientReducer::State::State(Communicator& comm, const at::Tensor& flat,
                              const std::vector<GradientSegment>& parts,
                              const std::vector<at::Tensor>& tensors,
                              const ReducerOptions& settings)
    : communicator(comm),
      hold(comm.hold()),
      options(settings),
      gradients(flat),
      segments(parts),
      parameters(tensors) {
  ABLATE_CHECK(parts.size() == tensors.size(), parts.size(), " segments, ", tensors.size(),
               " parameters");
  buckets = plan_buckets(segments, gradients.element_size(), options);
  agree();
  if (idle()) return;
  bucket_of.assign(segments.size(), buckets.size());
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    slices.push_back(gradients.narrow(0, buckets[b].offset, buckets[b].numel));
    for (const std::size_t i : buckets[b].segments) bucket_of[i] = b;
    wires.push_back(options.wire == Wire::Gradients ? slices[b]
                                                    : at::empty_like(slices[b], at::kBFloat16));
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(
        parameters[i], std::make_unique<ReadyHook>([this, i] { on_gradient(i); }));
  }
}

GradientReducer::State::~State() {
  if (idle()) return;
  for (const at::Tensor& parameter : parameters) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
  }
}

/// Ranks with different buckets would wait for ever, or add unlike things.
void GradientReducer::State::agree() const {
  std::vector<std::string> mine;
  for (const GradientBucket& bucket : buckets) {
    std::string content = cat(bucket.offset, ":", bucket.numel);
    for (const std::size_t i : bucket.segments) {
      content += cat(";", segments[i].name, "@", segments[i].offset, "+", segments[i].numel);
    }
    mine.push_back(std::to_string(hash64(content)));
  }
  const std::vector<std::string> all = communicator.all_gather(join(mine, ","));
  const std::vector<std::string> first = split(all[0], ',');
  for (std::size_t r = 1; r < all.size(); ++r) {
    const std::vector<std::string> other = split(all[r], ',');
    const auto [here, there] =
        std::mismatch(first.begin(), first.end(), other.begin(), other.end());
    if (here == first.end() && there == other.end()) continue;
    const auto index = static_cast<std::size_t>(here - first.begin());
    std::string what = "no bucket of that number here";
    if (index < buckets.size()) what = "here from " + segments[buckets[index].segments[0]].name;
    throw BugError(cat("gradient bucket ", index, " of rank ", r, " differs from rank 0's (", what,
                       "): ranks must have equal models and edits"));
  }
}

void GradientReducer::State::on_gradient(std::size_t segment) {
  if (!armed || idle() || bucket_of[segment] == buckets.size()) return;
  const std::string& name = segments[segment].name;
  const at::Tensor& grad = parameters[segment].grad();
  const auto* place = static_cast<const char*>(gradients.const_data_ptr()) +
                      segments[segment].offset * gradients.element_size();
  ABLATE_CHECK(grad.defined() && grad.const_data_ptr() == place, "the gradient of ", name,
               " left the gradient buffer");
  ABLATE_CHECK(!ready[segment], name, " got a gradient twice while armed: arm() belongs before ",
               "the last backward of a step");
  ready[segment] = true;
  --missing[bucket_of[segment]];
  while (works.size() < buckets.size() && missing[works.size()] == 0) start_next();
}

void GradientReducer::State::start_next() {
  const at::NoGradGuard no_grad;
  const std::size_t next = works.size();
  if (options.wire != Wire::Gradients) wires[next].copy_(slices[next]);
  works.push_back(communicator.start_all_reduce(wires[next]));
}

void GradientReducer::State::finish_bucket(std::size_t bucket) {
  works[bucket]->wait();
  if (options.wire != Wire::Gradients) slices[bucket].copy_(wires[bucket]);
  if (options.average && communicator.size() > 1) slices[bucket].mul_(1.0 / communicator.size());
}

GradientReducer::GradientReducer(Communicator& communicator, const at::Tensor& gradients,
                                 const std::vector<GradientSegment>& segments,
                                 const std::vector<at::Tensor>& parameters,
                                 const ReducerOptions& options)
    : state_(std::make_unique<State>(communicator, gradients, segments, parameters, options)) {}

GradientReducer::~GradientReducer() = default;

const std::vector<GradientBucket>& GradientReducer::buckets() const { return state_->buckets; }

void GradientReducer::arm() {
  State& state = *state_;
  ABLATE_CHECK(!state.armed, "arm() twice without finish()");
  state.armed = true;
  state.ready.assign(state.segments.size(), false);
  state.missing.clear();
  for (const GradientBucket& bucket : state.buckets)
    state.missing.push_back(bucket.segments.size());
  state.works.clear();
}

void GradientReducer::finish() {
  State& state = *state_;
  ABLATE_CHECK(state.armed, "finish() without arm()");
  state.armed = false;
  if (state.idle()) return;
  while (state.works.size() < state.buckets.size()) state.start_next();
  const at::NoGradGuard no_grad;
  for (std::size_t b = 0; b < state.buckets.size(); ++b) state.finish_bucket(b);
}

double GradientReducer::remaining_factor() const {
  return state_->options.average ? 1.0 : 1.0 / state_->communicator.size();
}

}  // namespace ablate
