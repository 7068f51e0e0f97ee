#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace ablate {

/// Appends what the list does not hold yet; returns its place there.
template <typename T>
std::size_t add_once(std::vector<T>& list, const T& value) {
  const auto found = std::find(list.begin(), list.end(), value);
  const auto place = static_cast<std::size_t>(found - list.begin());
  if (found == list.end()) list.push_back(value);
  return place;
}

}  // namespace ablate
