#include "runner/core/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr double kMaxEpochs = 1e6;
constexpr std::int64_t kMaxSteps = std::int64_t{1} << 50;
constexpr double kMaxLr = 1e6;

constexpr std::array<std::pair<std::string_view, DecayShape>, 5> kShapes = {{
    {"constant", DecayShape::Constant},
    {"cosine", DecayShape::Cosine},
    {"linear", DecayShape::Linear},
    {"poly", DecayShape::Poly},
    {"step", DecayShape::Step},
}};

DecayShape shape_of(std::string_view name, const Params& params) {
  for (const auto& [known, shape] : kShapes) {
    if (known == name) return shape;
  }
  params.fail("name", cat("unknown schedule \"", name, "\"", suggestion(name, schedule_names())));
}

ScheduleGrain grain_of(std::string_view per) {
  if (per == "step") return ScheduleGrain::Step;
  return per == "epoch" ? ScheduleGrain::Epoch : ScheduleGrain::EpochLagged;
}

void read_warmup(Params& params, ScheduleSettings& settings) {
  settings.warmup_epochs =
      params.number("warmup_epochs", 0, 0, kMaxEpochs, "epochs of linear warm-up");
  settings.warmup_steps = params.integer("warmup_steps", 0, 0, kMaxSteps,
                                         "the same in steps, instead of warmup_epochs");
  if (settings.warmup_steps > 0 && settings.warmup_epochs > 0) {
    params.fail("warmup_steps", "give warmup_epochs or warmup_steps, not both");
  }
  if (settings.warmup_steps > 0 && settings.grain != ScheduleGrain::Step) {
    params.fail("warmup_steps", "needs per = \"step\"");
  }
  settings.warmup_lr =
      params.number("warmup_lr", 1e-6, 0, kMaxLr, "learning rate at the start of the warm-up");
  settings.warmup_scaled =
      params.choice("warmup_mode", "absolute", {"absolute", "scaled"},
                    "absolute: straight line to the base rate; scaled: growing factor on the "
                    "decaying rate, as mmcv does") == "scaled";
}

void read_drops(Params& params, ScheduleSettings& settings) {
  settings.milestones = params.numbers("milestones", {}, 0, kMaxEpochs,
                                       "epochs from which the rate is decay_rate times lower");
  settings.milestone_steps =
      params.integers("milestone_steps", {}, 0, kMaxSteps, "the same in optimizer steps");
  settings.decay_epochs = params.number("decay_epochs", 0, 0, kMaxEpochs,
                                        "a drop every so many epochs; 0: milestones decide");
  settings.decay_rate = params.number("decay_rate", 0.1, 0, 1, "factor of one drop");
  const int ways = (settings.milestones.empty() ? 0 : 1) +
                   (settings.milestone_steps.empty() ? 0 : 1) + (settings.decay_epochs > 0 ? 1 : 0);
  if (ways != 1) {
    params.fail({},
                "a step schedule needs exactly one of milestones, milestone_steps, decay_epochs");
  }
  if (!settings.milestone_steps.empty() && settings.grain != ScheduleGrain::Step) {
    params.fail("milestone_steps", "needs per = \"step\"");
  }
}

}  // namespace

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const auto& [name, shape] : kShapes) all.emplace_back(name);
    return all;
  }();
  return names;
}

ScheduleSettings read_schedule(std::string_view name, Params& params) {
  ScheduleSettings settings;
  settings.shape = shape_of(name, params);
  settings.grain = grain_of(params.choice(
      "per", "step", {"step", "epoch", "epoch_lagged"},
      "when the rate changes; epoch_lagged: epoch e runs at the rate of epoch e-1, as timm 0.3.2"));
  read_warmup(params, settings);
  if (settings.shape == DecayShape::Constant) return settings;
  if (settings.shape == DecayShape::Step) {
    read_drops(params, settings);
    return settings;
  }
  settings.min_lr = params.number("min_lr", 0, 0, kMaxLr, "learning rate at the end");
  settings.warmup_prefix =
      params.boolean("warmup_prefix", false, "the decay starts after the warm-up, not under it");
  settings.endpoint =
      params.boolean("endpoint", false,
                     "the last step (or epoch) of each phase reaches its end value, as mmengine");
  settings.cooldown_epochs =
      params.number("cooldown_epochs", 0, 0, kMaxEpochs, "epochs at min_lr at the end of the run");
  if (settings.shape == DecayShape::Poly) {
    settings.power = params.number("power", 1, 0, 100, "exponent of the polynomial decay");
  }
  return settings;
}

Schedule::Schedule(ScheduleSettings settings, double base_lr, RunLength length)
    : settings_(std::move(settings)), base_lr_(base_lr), length_(length) {
  ABLATE_CHECK(length_.steps_per_epoch >= 1 && length_.total_steps >= 0);
  const auto steps_per_epoch = static_cast<double>(length_.steps_per_epoch);
  const double unit = settings_.grain == ScheduleGrain::Step ? 1 : steps_per_epoch;
  warmup_ = settings_.warmup_steps > 0 ? static_cast<double>(settings_.warmup_steps)
                                       : settings_.warmup_epochs * steps_per_epoch / unit;
  const double run = static_cast<double>(length_.total_steps) / unit;
  total_ = run - settings_.cooldown_epochs * steps_per_epoch / unit;
  if (length_.total_steps > 0 && warmup_ > total_) {
    const char* name = unit == 1 ? " steps" : " epochs";
    throw SpecError(cat("schedule: the warm-up of ", warmup_, name, " is longer than the run of ",
                        run, name, " less its cooldown; lower warmup_epochs or raise epochs"));
  }
}

double Schedule::lr(std::int64_t step) const {
  auto time = static_cast<double>(step);
  if (settings_.grain != ScheduleGrain::Step) {
    const std::int64_t lag = settings_.grain == ScheduleGrain::EpochLagged ? 1 : 0;
    const std::int64_t epoch = step / length_.steps_per_epoch - lag;
    time = static_cast<double>(std::max<std::int64_t>(epoch, 0));
  }
  if (time >= warmup_) return decay(time);
  const double span = warmup_ - (settings_.endpoint ? 1 : 0);
  const double part = span > 0 ? std::min(time / span, 1.0) : 1.0;
  if (!settings_.warmup_scaled) {
    return settings_.warmup_lr + part * (base_lr_ - settings_.warmup_lr);
  }
  const double ratio = settings_.warmup_lr / base_lr_;
  return decay(time) * (1 - (1 - part) * (1 - ratio));
}

double Schedule::decay(double time) const {
  if (settings_.shape == DecayShape::Constant) return base_lr_;
  if (settings_.shape == DecayShape::Step) {
    return base_lr_ * std::pow(settings_.decay_rate, drops(time));
  }
  const double start = settings_.warmup_prefix ? warmup_ : 0;
  const double span = total_ - start - (settings_.endpoint ? 1 : 0);
  const double part = span > 0 ? std::clamp((time - start) / span, 0.0, 1.0) : 1.0;
  const double range = base_lr_ - settings_.min_lr;
  if (settings_.shape == DecayShape::Cosine) {
    return settings_.min_lr + 0.5 * range * (1 + std::cos(std::numbers::pi * part));
  }
  const double rest = 1 - part;
  return settings_.min_lr +
         range * (settings_.shape == DecayShape::Poly ? std::pow(rest, settings_.power) : rest);
}

double Schedule::drops(double time) const {
  const double epoch = settings_.grain == ScheduleGrain::Step
                           ? time / static_cast<double>(length_.steps_per_epoch)
                           : time;
  if (settings_.decay_epochs > 0) return std::floor(epoch / settings_.decay_epochs);
  const auto reached = [](const auto& marks, double now) {
    return std::count_if(marks.begin(), marks.end(),
                         [&](auto mark) { return now >= static_cast<double>(mark); });
  };
  return static_cast<double>(reached(settings_.milestones, epoch) +
                             reached(settings_.milestone_steps, time));
}

FadeSettings read_fade(Params& params, const std::string& prefix, double default_epochs) {
  FadeSettings settings;
  const std::string shape = params.choice(prefix + "_shape", "linear", {"linear", "cosine", "step"},
                                          "how the value falls from 1 to 0");
  if (shape == "cosine") settings.shape = FadeSettings::Shape::Cosine;
  if (shape == "step") settings.shape = FadeSettings::Shape::Step;
  settings.grain = grain_of(
      params.choice(prefix + "_per", "epoch", {"epoch", "step"}, "when the value changes"));
  settings.epochs = params.number(prefix + "_epochs", default_epochs, 0, kMaxEpochs,
                                  "epochs until the value is 0; it stays 0 afterwards");
  if (settings.shape == FadeSettings::Shape::Step) {
    settings.levels =
        params.integer(prefix + "_levels", 1, 1, 1'000'000, "number of equal drops from 1 to 0");
  }
  return settings;
}

double fade(const FadeSettings& settings, std::int64_t step, std::int64_t steps_per_epoch) {
  ABLATE_CHECK(steps_per_epoch >= 1 && step >= 0);
  const std::int64_t whole_epochs = step / steps_per_epoch;
  const double epoch = settings.grain == ScheduleGrain::Step
                           ? static_cast<double>(step) / static_cast<double>(steps_per_epoch)
                           : static_cast<double>(whole_epochs);
  if (epoch >= settings.epochs) return 0;
  const double part = epoch / settings.epochs;
  if (settings.shape == FadeSettings::Shape::Linear) return 1 - part;
  if (settings.shape == FadeSettings::Shape::Cosine) {
    return 0.5 * (1 + std::cos(std::numbers::pi * part));
  }
  const auto levels = static_cast<double>(settings.levels);
  return 1 - std::floor(part * levels) / levels;
}

}  // namespace ablate
