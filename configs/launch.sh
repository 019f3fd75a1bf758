#!/usr/bin/env bash
# Trains on all GPUs of a machine, or of several:
#
#   configs/launch.sh ddp|zero2|fsdp2 ARGUMENTS OF train_accelerate.py...
#
# Under SLURM, start it once per machine (srun --ntasks-per-node=1 configs/launch.sh ...). Elsewhere,
# start it on each machine with NODES, NODE_RANK and MASTER_ADDR: the number of machines, the number
# of this one, counted from 0, and the address of machine 0. MASTER_PORT defaults to 29500, and GPUS,
# the processes per machine, to all of its GPUs. A single process in total starts without a launcher.
# On SIGTERM the run writes a checkpoint and ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

config=configs/${1:-}.yaml
if [ $# = 0 ] || [ ! -f "$config" ]; then
  names=$(cd configs && printf '%s\n' *.yaml | sed 's/\.yaml$//' | paste -sd' ')
  echo "launch.sh: name a configuration first, one of: $names" >&2
  exit 2
fi
shift

nodes=${NODES:-${SLURM_NNODES:-1}}
rank=${NODE_RANK:-${SLURM_NODEID:-0}}
address=${MASTER_ADDR:-}
if [ -z "$address" ] && [ -n "${SLURM_JOB_NODELIST:-}" ]; then
  address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
fi
if [ "$nodes" -gt 1 ] && [ -z "$address" ]; then
  echo "launch.sh: $nodes machines need MASTER_ADDR, the address of machine 0" >&2
  exit 2
fi
gpus=${GPUS:-$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)}
if [ "$gpus" -lt 1 ]; then
  echo "launch.sh: no GPU is seen here; to train without one, set GPUS=1 and give --device cpu" >&2
  exit 2
fi

if [ $((nodes * gpus)) = 1 ]; then
  # The launcher of one process would not forward signals to it.
  precision=$(sed -n 's/^mixed_precision: *//p' "$config")
  exec "${PYTHON:-python}" train_accelerate.py --mixed_precision "$precision" "$@"
fi
exec "${PYTHON:-python}" -m accelerate.commands.launch --config_file "$config" \
  --num_machines "$nodes" --machine_rank "$rank" --num_processes $((nodes * gpus)) \
  --main_process_ip "${address:-127.0.0.1}" --main_process_port "${MASTER_PORT:-29500}" \
  train_accelerate.py "$@"
