#include "distributed/store_engine.h"

#include "runner/core/error.h"
#include "runner/torch/store.h"

namespace ablate {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kStoreGrace{5};
constexpr std::chrono::milliseconds kLookPeriod{100};
constexpr const char* kFailureKey = "failure";

/// LibTorch's errors come with a stack trace.
template <typename Call>
auto talk(Call&& call) {
  try {
    return call();
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    throw TransientError(cat("the ranks' store: ", text.substr(0, text.find('\n'))));
  }
}

}  // namespace

StoreEngine::StoreEngine(std::shared_ptr<c10d::Store> store, std::chrono::milliseconds patience)
    : store_(std::move(store)),
      patience_(patience),
      // The store's socket is no shared memory to spin on.
      thread_([this] { return poll(); }, /*crowded=*/true) {}

StoreEngine::Operation StoreEngine::submit(StoreRound round) {
  const std::string what = round.what;
  const auto shared = std::make_shared<StoreRound>(std::move(round));
  return thread_.submit(what, [this, shared] {
    talk([&] { shared->send(); });
    running_.push_back({.round = std::move(*shared), .since = steady_clock::now()});
  });
}

bool StoreEngine::stop() { return thread_.stop(kStoreGrace); }

std::size_t StoreEngine::poll() {
  if (running_.empty() || !talk([this] { return advance(running_.front()); })) return 0;
  running_.pop_front();
  return 1;
}

bool StoreEngine::advance(Running& oldest) {
  if (!store_->check(oldest.round.keys)) {
    look_for_failures(oldest);
    return false;
  }
  oldest.round.receive(store_->multiGet(oldest.round.keys));
  return true;
}

void StoreEngine::look_for_failures(const Running& oldest) {
  const auto now = steady_clock::now();
  if (now - looked_ < kLookPeriod) return;
  looked_ = now;
  if (store_->check({kFailureKey})) {
    const auto why = store_->get(kFailureKey);
    throw TransientError(std::string(why.begin(), why.end()));
  }
  if (now - oldest.since < patience_) return;
  std::vector<std::string> ranks;
  for (const std::size_t i : missing(oldest.round.keys)) {
    ranks.push_back(std::to_string(oldest.round.senders[i]));
  }
  throw TransientError(cat("rank ", join(ranks, ", "), " did not come within ",
                           static_cast<double>(patience_.count()) / 1e3, " s"));
}

std::vector<std::size_t> StoreEngine::missing(const std::vector<std::string>& keys) {
  std::vector<std::size_t> absent;
  if (store_->check(keys)) return absent;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!store_->check({keys[i]})) absent.push_back(i);
  }
  return absent;
}

void StoreEngine::tell_failure(const std::string& why) {
  // The first wins: later ones are its consequences.
  store_->compareSet(kFailureKey, {}, std::vector<std::uint8_t>(why.begin(), why.end()));
}

}  // namespace ablate
