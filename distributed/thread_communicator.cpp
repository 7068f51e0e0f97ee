#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>

#include "distributed/host_communicator.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

/// Shared by all groups split from one world, so that one abort ends them all.
struct Hub {
  std::mutex mutex;
  std::condition_variable changed;
  bool aborted = false;
};

/// One collective: every rank brings its tensors, whoever arrives last does the work for all.
struct Meeting {
  std::string what;
  std::vector<at::Tensor> inputs, outputs;  // one a rank; they own, should a rank fail meanwhile
  std::vector<bool> present;
  int arrived = 0;
  bool done = false;
};

template <typename T>
T combine(T a, T b, ReduceOp op) {
  if (op == ReduceOp::Sum) return static_cast<T>(a + b);
  return op == ReduceOp::Min ? std::min(a, b) : std::max(a, b);
}

/// In rank order, ((t0 + t1) + t2) + ..., so that results do not depend on who arrived when.
template <typename T>
void reduce_all(std::vector<at::Tensor>& tensors, ReduceOp op) {
  const auto count = static_cast<std::size_t>(tensors[0].numel());
  T* result = tensors[0].data_ptr<T>();
  for (std::size_t r = 1; r < tensors.size(); ++r) {
    const T* other = tensors[r].const_data_ptr<T>();
    for (std::size_t i = 0; i < count; ++i) result[i] = combine(result[i], other[i], op);
  }
  for (std::size_t r = 1; r < tensors.size(); ++r) {
    std::memcpy(tensors[r].data_ptr(), result, count * sizeof(T));
  }
}

void reduce_meeting(Meeting& meeting, ReduceOp op) {
  switch (meeting.inputs[0].scalar_type()) {
    case at::kFloat:
      return reduce_all<float>(meeting.inputs, op);
    case at::kDouble:
      return reduce_all<double>(meeting.inputs, op);
    case at::kLong:
      return reduce_all<std::int64_t>(meeting.inputs, op);
    default:
      return reduce_all<std::uint8_t>(meeting.inputs, op);
  }
}

class ThreadGroup {
 public:
  ThreadGroup(std::shared_ptr<Hub> hub, int size)
      : hub_(std::move(hub)), size_(size), next_(static_cast<std::size_t>(size)) {}

  int size() const { return size_; }

  /// Joins the caller's next collective; `work` runs once, on the last rank to arrive.
  std::shared_ptr<Meeting> enter(int rank, const std::string& what, const at::Tensor& input,
                                 const at::Tensor& output,
                                 const std::function<void(Meeting&)>& work);
  void wait(const Meeting& meeting);
  /// The ranks that have not come to the meeting within `patience`.
  std::vector<int> missing_after(const Meeting& meeting, std::chrono::milliseconds patience);
  void abort();
  /// The group of `colour` made by the split that is this rank's latest collective.
  std::shared_ptr<ThreadGroup> child(int rank, int color, int size);

 private:
  void throw_if_aborted(const std::string& what) const;

  std::shared_ptr<Hub> hub_;
  int size_;
  std::vector<std::int64_t> next_;  // a rank's number of collectives so far
  std::map<std::int64_t, std::shared_ptr<Meeting>> meetings_;  // by that number
  struct Child {
    std::shared_ptr<ThreadGroup> group;
    int taken = 0;
  };
  std::map<std::pair<std::int64_t, int>, Child> children_;  // by (number of the split, colour)
};

void ThreadGroup::throw_if_aborted(const std::string& what) const {
  if (hub_->aborted) {
    throw TransientError(cat("thread communicator: ", what, ": another rank failed"));
  }
}

std::shared_ptr<Meeting> ThreadGroup::enter(int rank, const std::string& what,
                                            const at::Tensor& input, const at::Tensor& output,
                                            const std::function<void(Meeting&)>& work) {
  std::unique_lock lock(hub_->mutex);
  throw_if_aborted(what);
  const auto me = static_cast<std::size_t>(rank);
  const std::int64_t number = next_[me]++;
  auto& place = meetings_[number];
  if (!place) {
    place = std::make_shared<Meeting>();
    place->what = what;
    place->inputs.resize(next_.size());
    place->outputs.resize(next_.size());
    place->present.resize(next_.size());
  }
  const auto meeting = place;
  if (meeting->what != what) {
    hub_->aborted = true;
    hub_->changed.notify_all();
    throw BugError(cat("ranks disagree on collective ", number, ": rank ", rank, " calls ", what,
                       ", another rank ", meeting->what));
  }
  meeting->inputs[me] = input;
  meeting->outputs[me] = output;
  meeting->present[me] = true;
  if (++meeting->arrived < size_) return meeting;
  meetings_.erase(number);
  lock.unlock();
  work(*meeting);
  meeting->inputs.clear();
  meeting->outputs.clear();
  lock.lock();
  meeting->done = true;
  hub_->changed.notify_all();
  return meeting;
}

void ThreadGroup::wait(const Meeting& meeting) {
  std::unique_lock lock(hub_->mutex);
  hub_->changed.wait(lock, [&] { return meeting.done || hub_->aborted; });
  if (!meeting.done) throw_if_aborted(meeting.what);
}

std::vector<int> ThreadGroup::missing_after(const Meeting& meeting,
                                            std::chrono::milliseconds patience) {
  std::unique_lock lock(hub_->mutex);
  hub_->changed.wait_for(lock, patience, [&] { return meeting.done || hub_->aborted; });
  if (!meeting.done) throw_if_aborted(meeting.what);
  std::vector<int> missing;
  for (int r = 0; r < size_ && !meeting.done; ++r) {
    if (!meeting.present[static_cast<std::size_t>(r)]) missing.push_back(r);
  }
  return missing;
}

void ThreadGroup::abort() {
  const std::lock_guard lock(hub_->mutex);
  hub_->aborted = true;
  hub_->changed.notify_all();
}

std::shared_ptr<ThreadGroup> ThreadGroup::child(int rank, int color, int size) {
  const std::lock_guard lock(hub_->mutex);
  const auto key = std::pair(next_[static_cast<std::size_t>(rank)], color);
  Child& entry = children_[key];
  if (!entry.group) entry.group = std::make_shared<ThreadGroup>(hub_, size);
  auto group = entry.group;
  if (++entry.taken == size) children_.erase(key);
  return group;
}

class ThreadWork final : public Work {
 public:
  ThreadWork(std::shared_ptr<ThreadGroup> group, std::shared_ptr<Meeting> meeting)
      : group_(std::move(group)), meeting_(std::move(meeting)) {}
  void wait() override { group_->wait(*meeting_); }

 private:
  std::shared_ptr<ThreadGroup> group_;
  std::shared_ptr<Meeting> meeting_;
};

std::string signature(std::string_view operation, const at::Tensor& tensor, int detail) {
  return cat(operation, " of ", tensor.numel(), " ", at::toString(tensor.scalar_type()), " (",
             detail, ")");
}

class ThreadCommunicator final : public HostCommunicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank)
      : group_(std::move(group)), rank_(rank) {}
  using HostCommunicator::all_gather;
  using HostCommunicator::broadcast;

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  std::string backend() const override { return "thread"; }

  std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor, ReduceOp op) override {
    check_reducible(tensor, "all_reduce");
    const auto what = signature("all_reduce", tensor, static_cast<int>(op));
    return std::make_unique<ThreadWork>(
        group_, group_->enter(rank_, what, tensor, {},
                              [op](Meeting& meeting) { reduce_meeting(meeting, op); }));
  }

  void broadcast(at::Tensor& tensor, int root) override {
    check_movable(tensor, "broadcast");
    check_root(root);
    meet(signature("broadcast", tensor, root), tensor, {}, [root](Meeting& meeting) {
      const at::Tensor& source = meeting.inputs[static_cast<std::size_t>(root)];
      for (at::Tensor& target : meeting.inputs) {
        if (!target.is_same(source)) target.copy_(source);
      }
    });
  }

  void all_gather(const at::Tensor& tensor, at::Tensor& all) override {
    check_gather(tensor, all);
    meet(signature("all_gather", tensor, 0), tensor, all, [](Meeting& meeting) {
      const at::Tensor rows = at::stack(meeting.inputs);
      for (at::Tensor& target : meeting.outputs) target.copy_(rows);
    });
  }

  std::vector<int> missing_after(std::chrono::milliseconds patience) override {
    return group_->missing_after(*group_->enter(rank_, "arrival", {}, {}, [](Meeting&) {}),
                                 patience);
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    at::Tensor all = at::empty({size(), 2}, at::kLong);
    all_gather(at::tensor({color, key}, at::kLong), all);
    const auto rows = all.accessor<std::int64_t, 2>();
    int members = 0;
    int position = 0;
    for (int r = 0; r < size(); ++r) {
      if (rows[r][0] != color) continue;
      ++members;
      if (std::pair(rows[r][1], std::int64_t{r}) <
          std::pair(std::int64_t{key}, std::int64_t{rank_}))
        ++position;
    }
    return std::make_unique<ThreadCommunicator>(group_->child(rank_, color, members), position);
  }

  void abort() { group_->abort(); }

 private:
  void meet(const std::string& what, const at::Tensor& input, const at::Tensor& output,
            const std::function<void(Meeting&)>& work) {
    group_->wait(*group_->enter(rank_, what, input, output, work));
  }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size) {
  ABLATE_CHECK(size >= 1, "a group of ", size, " ranks");
  const auto group = std::make_shared<ThreadGroup>(std::make_shared<Hub>(), size);
  std::vector<std::unique_ptr<Communicator>> members;
  for (int rank = 0; rank < size; ++rank) {
    members.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  }
  return members;
}

void abort_thread_group(Communicator& member) {
  auto* thread = dynamic_cast<ThreadCommunicator*>(&member);
  ABLATE_CHECK(thread != nullptr, "not a thread communicator but ", member.backend());
  thread->abort();
}

}  // namespace ablate
