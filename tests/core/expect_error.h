#pragma once

#include <string>

#include <gtest/gtest.h>

namespace ablate::test {

/// The message of the Wanted exception that `action` throws; a failure when it throws none.
template <typename Wanted, typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Wanted& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace ablate::test
