#pragma once

#include <string>
#include <string_view>

namespace ablate {

enum class LogLevel { Debug, Info, Warning, Error };

/// Plain functions so that no logging library's header reaches a torch-facing file. Thread-safe.
void log_debug(std::string_view message);
void log_info(std::string_view message);
void log_warning(std::string_view message);
void log_error(std::string_view message);

/// Lines below `level` are dropped; every line starts with `prefix` (a rank, say). Lines go to
/// standard error. Call once, before threads exist.
void configure_log(LogLevel level, const std::string& prefix);

/// While it lives, lines of this thread name the part of the process they come from: one run of
/// several, say. The last one made counts.
class LogName {
 public:
  explicit LogName(std::string name);
  ~LogName();
  LogName(const LogName&) = delete;
  LogName& operator=(const LogName&) = delete;

 private:
  std::string previous_;
};

}  // namespace ablate
