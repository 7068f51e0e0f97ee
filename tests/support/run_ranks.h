#pragma once

#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "distributed/communicator.h"
#include "runner/core/error.h"

namespace ablate::test {

/// Runs `body` on `size` ranks, each a thread of this process. A rank that throws aborts the
/// others; the first failure in rank order is rethrown, root causes before the TransientErrors they
/// caused.
inline void run_ranks(int size, const std::function<void(Communicator&)>& body) {
  const auto ranks = make_thread_communicators(size);
  std::vector<std::exception_ptr> causes(ranks.size());
  std::vector<std::exception_ptr> consequences(ranks.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      threads.emplace_back([&, r] {
        try {
          body(*ranks[r]);
        } catch (const TransientError&) {
          consequences[r] = std::current_exception();
          abort_thread_group(*ranks[r]);
        } catch (...) {
          causes[r] = std::current_exception();
          abort_thread_group(*ranks[r]);
        }
      });
    }
  }
  for (const auto& failures : {causes, consequences}) {
    for (const auto& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
  }
}

}  // namespace ablate::test
