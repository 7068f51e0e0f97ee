#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runner/core/error.h"

namespace ablate {

/// Name -> Info for one kind of plug-in. `Info` needs a member `name` and a static member
/// `kind` ("method", "model", "dataset", ...) for messages. Filled by static Registration objects
/// before main() and constant afterwards, hence safe to read from any thread.
///
/// The objects that hold registrations are linked whole (OBJECT libraries): a static library's
/// linker would drop them silently. A test compares the registry with the files on disk.
template <typename Info>
class Registry {
 public:
  /// The info registered under `name`. Throws SpecError naming the nearest known name; `where`
  /// ("file:line:column") starts the message when given.
  static const Info& get(std::string_view name, std::string_view where = {}) {
    const auto found = items().find(name);
    if (found != items().end()) return found->second;
    throw SpecError(cat(where, where.empty() ? "" : ": ", "unknown ", Info::kind, " \"", name, "\"",
                        suggestion(name, names())));
  }

  static bool has(std::string_view name) { return items().contains(name); }

  /// All names, sorted.
  static std::vector<std::string> names() {
    std::vector<std::string> result;
    for (const auto& [name, info] : items()) result.push_back(name);
    return result;
  }

  /// Registers at static initialisation: `static const Registry<MethodInfo>::Add added{{...}};`
  struct Add {
    explicit Add(Info info) {
      const std::string name(info.name);
      ABLATE_CHECK(items().emplace(name, std::move(info)).second, Info::kind, " \"", name,
                   "\" is registered twice");
    }
  };

 private:
  static std::map<std::string, Info, std::less<>>& items() {
    static std::map<std::string, Info, std::less<>> map;
    return map;
  }
};

}  // namespace ablate
