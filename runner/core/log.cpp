#include "runner/core/log.h"

#include <cstdlib>
#include <memory>
#include <utility>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace ablate {

namespace {

spdlog::color_mode colour_mode() {
  // no-color.org: set to anything but the empty text. `automatic` colours terminals only.
  const char* no_colour = std::getenv("NO_COLOR");
  const bool refused = no_colour != nullptr && *no_colour != '\0';
  return refused ? spdlog::color_mode::never : spdlog::color_mode::automatic;
}

std::string pattern(const std::string& prefix) {
  std::string escaped;
  for (const char letter : prefix) escaped.append(letter == '%' ? 2 : 1, letter);
  return "%Y-%m-%d %H:%M:%S " + (escaped.empty() ? "" : escaped + " ") + "%^%l%$: %v";
}

spdlog::logger& logger() {
  static const std::unique_ptr<spdlog::logger> instance = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(colour_mode());
    auto made = std::make_unique<spdlog::logger>("ablate", std::move(sink));
    made->set_pattern(pattern(""));
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::Debug:
      return spdlog::level::debug;
    case LogLevel::Info:
      return spdlog::level::info;
    case LogLevel::Warning:
      return spdlog::level::warn;
    case LogLevel::Error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

thread_local std::string thread_name;

void log_line(spdlog::level::level_enum level, std::string_view message) {
  if (thread_name.empty()) {
    logger().log(level, spdlog::string_view_t(message.data(), message.size()));
  } else {
    logger().log(level, thread_name + ": " + std::string(message));
  }
}

}  // namespace

void log_debug(std::string_view message) { log_line(spdlog::level::debug, message); }
void log_info(std::string_view message) { log_line(spdlog::level::info, message); }
void log_warning(std::string_view message) { log_line(spdlog::level::warn, message); }
void log_error(std::string_view message) { log_line(spdlog::level::err, message); }

void configure_log(LogLevel level, const std::string& prefix) {
  logger().set_level(spdlog_level(level));
  logger().set_pattern(pattern(prefix));
}

LogName::LogName(std::string name) : previous_(std::exchange(thread_name, std::move(name))) {}

LogName::~LogName() { thread_name = std::move(previous_); }

}  // namespace ablate
