#include "runner/train/drill_steps.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <limits>
#include <thread>

#include <sys/resource.h>

#include "runner/core/files.h"
#include "runner/core/log.h"
#include "runner/core/text.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;

/// The small files of a run fit, its checkpoints do not.
constexpr rlim_t kSmallFile = 32 << 10;
constexpr std::int64_t kTooManyBytes = std::int64_t{1} << 50;

[[noreturn]] void hang() {
  while (true) std::this_thread::sleep_for(1s);
}

/// A limit on the size of files stands for a full disk: it needs no rights, and hits this process
/// alone.
void fill_disk() {
  std::signal(SIGXFSZ, SIG_IGN);  // writing fails then, as it does on a full disk
  const rlimit limit{.rlim_cur = kSmallFile, .rlim_max = kSmallFile};
  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) throw_file_error("RLIMIT_FSIZE", "setrlimit", errno);
}

void wait_for_device([[maybe_unused]] const at::Device& device) {
#if ABLATE_HAS_CUDA
  if (device.is_cuda()) c10::cuda::device_synchronize();
#endif
}

void lose_weights(ParameterArena& arena) {
  const at::NoGradGuard no_grad;
  wait_for_device(arena.parameters().device());
  at::Tensor all = arena.parameters();
  all.fill_(std::numeric_limits<double>::quiet_NaN());
  arena.refresh_working();
  wait_for_device(all.device());
}

class DrillSteps final : public StepRunner {
 public:
  DrillSteps(std::unique_ptr<StepRunner> steps, ParameterArena& arena, const DrillFault& fault)
      : steps_(std::move(steps)), arena_(arena), fault_(fault) {}

  void begin(std::int64_t step, const StepWishes& wishes) override {
    if (step == fault_.step) {
      log_warning(cat("drill: \"", drill_kind_name(fault_.kind), "\" after ", step, " steps"));
    }
    const bool lasts = fault_.kind == DrillKind::Slow;
    if (lasts ? step >= fault_.step : step == fault_.step) strike();
    steps_->begin(step, wishes);
  }

  void seek(std::int64_t step) override { steps_->seek(step); }
  std::optional<StepReport> report(std::int64_t left) override { return steps_->report(left); }
  std::int64_t lag() const override { return steps_->lag(); }
  void leave_structure() override { steps_->leave_structure(); }
  void enter_structure() override { steps_->enter_structure(); }

 private:
  void strike();

  std::unique_ptr<StepRunner> steps_;
  ParameterArena& arena_;
  DrillFault fault_;
};

void DrillSteps::strike() {
  switch (fault_.kind) {
    case DrillKind::Kill:
      std::raise(SIGKILL);
      break;
    case DrillKind::Hang:
      hang();
    case DrillKind::OutOfMemory:
      at::empty({kTooManyBytes}, arena_.parameters().options().dtype(at::kByte));
      break;
    case DrillKind::Nan:
      lose_weights(arena_);
      break;
    case DrillKind::FullDisk:
      fill_disk();
      break;
    case DrillKind::Term:
      std::raise(SIGTERM);
      break;
    case DrillKind::Usr1:
      std::raise(SIGUSR1);
      break;
    case DrillKind::Slow:
      std::this_thread::sleep_for(250ms);
      break;
  }
}

}  // namespace

std::unique_ptr<StepRunner> make_drill_steps(std::unique_ptr<StepRunner> steps,
                                             ParameterArena& arena, const DrillFault& fault) {
  return std::make_unique<DrillSteps>(std::move(steps), arena, fault);
}

}  // namespace ablate
