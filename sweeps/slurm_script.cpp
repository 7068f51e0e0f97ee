#include "sweeps/slurm_script.h"

#include "runner/core/text.h"

namespace ablate {
namespace {

std::string shell_list(const std::vector<std::string>& words) {
  std::vector<std::string> quoted;
  for (const std::string& word : words) quoted.push_back(shell_word(word));
  return "(" + join(quoted, " ") + ")";
}

// Commands that wait run in the background: bash looks at its traps only between commands and in
// `wait`. No trap on CONT: bash 5.2 loses others beside it.
const std::string kScript = R"script(#!/bin/bash
# An element of an array of runs. It does what its ticket in the folder $1 says.
set -u
folder=$1
element=$SLURM_ARRAY_TASK_ID
patience=${ABLATE_SLURM_PATIENCE:-120}   # seconds until a file of another machine shows on a network file system
stop_files=() child='' stopping='' signalled=''

say() { echo "$(date '+%F %T') $*"; }

# Slurm warns, preempts, cancels or ends the job: its runs stop at their next step with a checkpoint.
ask_to_stop() {
  signalled=yes stopping=yes
  local file
  for file in "${stop_files[@]}"; do : >>"$file"; done
}
trap ask_to_stop TERM USR1 USR2 HUP INT

await() {  # the exit status of $child, however many signals come first
  local before=127
  while :; do
    signalled=''
    wait "$child"
    code=$?
    [ "$code" -ne 127 ] || { code=$before; break; }
    [ -n "$signalled" ] || break
    before=$code
  done
}

leave_exit() {  # CODE: once, and whole
  [ ! -e "$folder/exit-$element.$ticket" ] || return 0
  echo "$1" >"$folder/exit-$element.$ticket.new" && mv "$folder/exit-$element.$ticket.new" "$folder/exit-$element.$ticket"
}

# A ticket that was taken before belongs to an attempt that ended with its node or was put back into the
# queue: that is told, and the next ticket waited for. The sweep decides what comes next, not Slurm.
take_ticket() {
  local waited
  for ((waited = 0; waited <= patience; waited++)); do
    [ -z "$stopping" ] || return 1
    if [ -r "$folder/ticket-$element" ] && . "$folder/ticket-$element"; then
      if [ ! -e "$folder/taken-$element.$ticket" ]; then
        echo "$SLURM_JOB_ID ${SLURM_RESTART_COUNT:-0} $(hostname)" >"$folder/taken-$element.$ticket"
        return 0
      fi
      leave_exit 143
      : >"$folder/again-$element.$ticket"
      stop_files=()
    fi
    sleep 1 &
    wait $!
  done
  return 1
}

seconds_left() {  # of this job, as the controller has it; nothing when it has no limit or does not answer
  local text
  text=$(timeout 15 squeue -h -j "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" -o %L 2>/dev/null)
  [[ $text =~ ^(([0-9]+)-)?(([0-9]+):)?([0-9]+):([0-9]+)$ ]] || return 0
  local days=${BASH_REMATCH[2]:-0} hours=${BASH_REMATCH[4]:-0}
  echo $((((10#$days * 24 + 10#$hours) * 60 + 10#${BASH_REMATCH[5]}) * 60 + 10#${BASH_REMATCH[6]}))
}

launch() {  # LAUNCHER COMMAND...: becomes the command on every rank
  local how=$1
  shift
  local srun=(srun --ntasks="$ranks" --kill-on-bad-exit=1 --cpu-bind=none)
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || srun+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
  case $how in
    alone) exec "$@" ;;
    srun) exec "${srun[@]}" --mpi=pmix "$@" ;;
    mpirun) exec mpirun -n "$ranks" --bind-to none --map-by slot "$@" ;;
    own)
      export ABLATE_RENDEZVOUS=$folder/meet-$element.$ticket.$BASHPID
      mkdir -p "$ABLATE_RENDEZVOUS" && exec "${srun[@]}" --mpi=none "$@"
      ;;
  esac
}

works() {  # LAUNCHER: whether it makes one world of all ranks
  local said
  said=$( (launch "$1" timeout 60 "${hello[@]}") 2>&1)
  echo "--- $1 ---"$'\n'"$said" >>"$folder/probe-$element.$ticket"
  [ "$(grep -cE "^rank [0-9]+ of $ranks( |\$)" <<<"$said")" -eq "$ranks" ]
}

# Asked once a cluster and number of nodes, by whichever element comes first.
choose_launcher() {
  [ "$ranks" -gt 1 ] || { launcher=alone; return 0; }
  [ "$launcher" = auto ] || return 0
  local known=${folder%/*}/launcher-${SLURM_CLUSTER_NAME:-cluster}-${SLURM_JOB_NUM_NODES:-1} candidate
  [ ! -s "$known" ] || { read -r launcher <"$known"; return 0; }
  for candidate in srun mpirun own; do
    if works "$candidate"; then
      launcher=$candidate
      echo "$candidate" >"$known.$BASHPID" && mv "$known.$BASHPID" "$known"
      return 0
    fi
  done
  say "neither srun --mpi=pmix, nor mpirun, nor srun without MPI starts $ranks ranks as one world; what each said:"
  cat "$folder/probe-$element.$ticket"
  return 1
}

run_ticket() {
  choose_launcher || return 4
  local extra=() left
  left=$(seconds_left)
  [ -n "$left" ] || left=$limit
  if [ -n "$takes_deadline" ] && [ "$left" -gt 0 ]; then
    extra=(--deadline $((left > 2 * grace ? left - grace : (left + 1) / 2)))
  fi
  say "job ${SLURM_ARRAY_JOB_ID}_$element, start ${SLURM_RESTART_COUNT:-0}, ticket $ticket on ${SLURM_JOB_NODELIST:-$(hostname)}: $ranks ranks by $launcher${extra:+, stops in ${extra[1]} s}"
  launch "$launcher" "${command[@]}" ${extra[@]+"${extra[@]}"}
}

if ! take_ticket; then
  say "element $element found no new ticket in $folder"
  exit 3
fi
export OMP_NUM_THREADS=$threads OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_odls_base_sigkill_timeout=$grace PRTE_MCA_odls_base_sigkill_timeout=$grace
export ABLATE_RANKS=$ranks
# Ranks that spin in MPI would take the cores from those that work.
nodes=${SLURM_JOB_NUM_NODES:-1}
[ "$(nproc)" -ge $(((ranks + nodes - 1) / nodes)) ] || export OMPI_MCA_mpi_yield_when_idle=1
[ -z "$setup" ] || eval "$setup"
run_ticket >>"$log" 2>&1 &
child=$!
[ -z "$stopping" ] || ask_to_stop
await
leave_exit "$code"
exit "$code"
)script";

}  // namespace

std::string shell_word(const std::string& text) {
  std::string word = "'";
  for (const char letter : text) {
    if (letter == '\'') {
      word += "'\\''";
    } else {
      word += letter;
    }
  }
  return word + "'";
}

std::string SlurmTicket::text() const {
  return cat("ticket=", number, "\nranks=", ranks, "\nthreads=", threads, "\nlimit=", limit,
             "\ngrace=", grace, "\nlauncher=", shell_word(launcher), "\nsetup=", shell_word(setup),
             "\ntakes_deadline=", takes_deadline ? "yes" : "", "\ncommand=", shell_list(command),
             "\nhello=", shell_list(hello), "\nstop_files=", shell_list(stop_files),
             "\nlog=", shell_word(log), "\n");
}

const std::string& slurm_script() { return kScript; }

}  // namespace ablate
