// Ranks that talk through a key-value store. A collective is a round: every rank that has something
// to say sets one key, everybody reads all keys and computes the same result in rank order, so
// results are bitwise equal on all ranks and do not depend on arrival.
#include <cstring>
#include <deque>
#include <thread>

#include "distributed/host_communicator.h"
#include "distributed/store_engine.h"
#include "runner/core/error.h"
#include "runner/torch/store.h"

namespace ablate {
namespace {

using Bytes = std::vector<std::uint8_t>;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// What one rank knows of the rounds of its group. A message starts with the number of rounds that
/// its sender has finished; messages that everybody has read are deleted.
struct Group {
  std::string prefix;  // of keys
  int rank = 0, size = 1;
  std::int64_t submitted = 0;           // by the thread that calls
  std::int64_t finished = 0;            // the rest by the communication thread
  std::vector<std::int64_t> known{};    // rounds that each rank has finished, as far as known
  std::deque<std::int64_t> messages{};  // rounds whose message of this rank is in the store

  std::string key(std::int64_t round, int sender) const { return cat(prefix, round, "/", sender); }
};

Bytes message(const Group& group, const at::Tensor& tensor) {
  Bytes bytes(sizeof group.finished + tensor.nbytes());
  std::memcpy(bytes.data(), &group.finished, sizeof group.finished);
  std::memcpy(bytes.data() + sizeof group.finished, tensor.const_data_ptr(), tensor.nbytes());
  return bytes;
}

/// The tensor in a message; it does not own its memory.
at::Tensor content(Bytes& bytes, const at::Tensor& like) {
  ABLATE_CHECK(bytes.size() == sizeof(std::int64_t) + like.nbytes(), "a message of ", bytes.size(),
               " bytes where ", like.sizes(), " ", at::toString(like.scalar_type()),
               " are due: ranks disagree on a collective");
  const at::Tensor copy = at::empty_like(like);
  std::memcpy(copy.data_ptr(), bytes.data() + sizeof(std::int64_t), like.nbytes());
  return copy;
}

void fold_in(at::Tensor& result, const at::Tensor& other, ReduceOp op) {
  if (op == ReduceOp::Sum) {
    result.add_(other);
  } else if (op == ReduceOp::Min) {
    at::minimum_out(result, result, other);
  } else {
    at::maximum_out(result, result, other);
  }
}

void forget_read_messages(Group& group, c10d::Store& keys) {
  const std::int64_t read = *std::min_element(group.known.begin(), group.known.end());
  while (!group.messages.empty() && group.messages.front() < read) {
    keys.deleteKey(group.key(group.messages.front(), group.rank));
    group.messages.pop_front();
  }
}

class StoreWork final : public Work {
 public:
  StoreWork(std::shared_ptr<StoreEngine> engine, StoreEngine::Operation operation)
      : engine_(std::move(engine)), operation_(std::move(operation)) {}
  void wait() override { engine_->wait(*operation_); }

 private:
  std::shared_ptr<StoreEngine> engine_;
  StoreEngine::Operation operation_;
};

class StoreCommunicator final : public HostCommunicator {
 public:
  StoreCommunicator(std::shared_ptr<StoreEngine> engine, std::string prefix, int rank, int size)
      : engine_(std::move(engine)), group_(std::make_shared<Group>()) {
    group_->prefix = std::move(prefix);
    group_->rank = rank;
    group_->size = size;
    group_->known.resize(static_cast<std::size_t>(size));
  }
  using HostCommunicator::all_gather;
  using HostCommunicator::broadcast;

  int rank() const override { return group_->rank; }
  int size() const override { return group_->size; }
  std::string backend() const override { return "store"; }

  std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor, ReduceOp op) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_gather(const at::Tensor& tensor, at::Tensor& all) override;
  std::vector<int> missing_after(milliseconds patience) override;
  std::unique_ptr<Communicator> split(int color, int key) override;

 private:
  using Receive = std::function<void(std::vector<Bytes>&)>;  // by sender

  StoreEngine::Operation exchange(std::string_view name, const at::Tensor& sent,
                                  std::vector<int> senders, Receive receive);
  std::vector<int> everybody() const;

  std::shared_ptr<StoreEngine> engine_;
  std::shared_ptr<Group> group_;
  std::int64_t arrivals_ = 0, splits_ = 0;
};

std::vector<int> StoreCommunicator::everybody() const {
  std::vector<int> ranks;
  for (int r = 0; r < size(); ++r) ranks.push_back(r);
  return ranks;
}

/// `sent` is read when the round starts.
StoreEngine::Operation StoreCommunicator::exchange(std::string_view name, const at::Tensor& sent,
                                                   std::vector<int> senders, Receive receive) {
  const std::int64_t number = group_->submitted++;
  StoreRound round{.what = cat(name, " of ", sent.numel(), " on rank ", rank(), " of ", size()),
                   .keys = {},
                   .senders = senders,
                   .send = {},
                   .receive = {}};
  bool sends = false;
  for (const int sender : senders) {
    round.keys.push_back(group_->key(number, sender));
    sends = sends || sender == rank();
  }
  round.send = [engine = engine_.get(), group = group_, sent, number, sends] {
    if (!sends) return;
    engine->store().set(group->key(number, group->rank), message(*group, sent));
    group->messages.push_back(number);
  };
  round.receive = [engine = engine_.get(), group = group_, senders = std::move(senders),
                   receive = std::move(receive)](std::vector<Bytes> messages) {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < senders.size(); ++i) {
      std::memcpy(&group->known[static_cast<std::size_t>(senders[i])], messages[i].data(),
                  sizeof(std::int64_t));
    }
    receive(messages);
    ++group->finished;
    forget_read_messages(*group, engine->store());
  };
  return engine_->submit(std::move(round));
}

std::unique_ptr<Work> StoreCommunicator::start_all_reduce(at::Tensor& tensor, ReduceOp op) {
  check_reducible(tensor, "all_reduce");
  auto reduce = [tensor, op](std::vector<Bytes>& messages) {
    at::Tensor result = tensor;  // shares the memory
    result.copy_(content(messages[0], tensor));
    for (std::size_t r = 1; r < messages.size(); ++r) {
      fold_in(result, content(messages[r], tensor), op);
    }
  };
  return std::make_unique<StoreWork>(
      engine_, exchange("all_reduce", tensor, everybody(), std::move(reduce)));
}

void StoreCommunicator::broadcast(at::Tensor& tensor, int root) {
  check_movable(tensor, "broadcast");
  check_root(root);
  engine_->wait(*exchange("broadcast", tensor, {root}, [tensor](std::vector<Bytes>& messages) {
    at::Tensor target = tensor;
    target.copy_(content(messages[0], tensor));
  }));
}

void StoreCommunicator::all_gather(const at::Tensor& tensor, at::Tensor& all) {
  check_gather(tensor, all);
  engine_->wait(
      *exchange("all_gather", tensor, everybody(), [tensor, all](std::vector<Bytes>& messages) {
        for (std::size_t r = 0; r < messages.size(); ++r) {
          all[static_cast<std::int64_t>(r)].copy_(content(messages[r], tensor));
        }
      }));
}

std::vector<int> StoreCommunicator::missing_after(milliseconds patience) {
  const auto deadline = steady_clock::now() + patience;
  std::vector<std::string> keys;
  for (int r = 0; r < size(); ++r) keys.push_back(cat(group_->prefix, "a", arrivals_, "/", r));
  ++arrivals_;
  engine_->store().set(keys[static_cast<std::size_t>(rank())], Bytes{1});
  std::vector<std::size_t> missing = engine_->missing(keys);
  while (!missing.empty() && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(5));
    missing = engine_->missing(keys);
  }
  return {missing.begin(), missing.end()};
}

std::unique_ptr<Communicator> StoreCommunicator::split(int color, int key) {
  at::Tensor all = at::empty({size(), 2}, at::kLong);
  all_gather(at::tensor({color, key}, at::kLong), all);
  const auto rows = all.accessor<std::int64_t, 2>();
  int members = 0;
  int position = 0;
  for (int r = 0; r < size(); ++r) {
    if (rows[r][0] != color) continue;
    ++members;
    if (std::pair(rows[r][1], std::int64_t{r}) < std::pair(std::int64_t{key}, std::int64_t{rank()}))
      ++position;
  }
  return std::make_unique<StoreCommunicator>(
      engine_, cat(group_->prefix, "s", splits_++, "c", color, "/"), position, members);
}

}  // namespace

std::unique_ptr<Communicator> make_store_communicator(std::shared_ptr<StoreEngine> engine,
                                                      const std::string& prefix, int rank,
                                                      int size) {
  return std::make_unique<StoreCommunicator>(std::move(engine), prefix, rank, size);
}

}  // namespace ablate
