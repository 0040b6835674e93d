#!/bin/bash
# Answers an archive in shares, one for every element of an array, on a file system that all nodes
# see. Submit both jobs:
#
#     array=$(sbatch --parsable --array=1-16 docs/clusters/slurm.sh)
#     sbatch --dependency=afterany:$array docs/clusters/slurm.sh
#
# The second one, outside the array, does what a share has left undone (a node that died, a time
# limit) and merges the parts; where all is done it ends at once. An element that ran out of time
# can also be submitted again as it is: sbatch --array=5 ... needs --export=ALL,SHARES=16.
#SBATCH --job-name=answers
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --time=12:00:00
# Two minutes before the limit the command is told to end, and keeps what is done.
#SBATCH --signal=B:TERM@120

set -euo pipefail

TASK=my/task.toml
IMAGES=/archive/images        # a folder, a list, tars, or s3://bucket/prefix
ANSWERS=/archive/answers
SHARES=${SHARES:-${SLURM_ARRAY_TASK_COUNT:-1}}

units=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    units=(--units "$SLURM_ARRAY_TASK_ID/$SHARES")
fi

# exec, so that the signal reaches the command and not a shell that waits for it.
exec archiveprobe predict "$TASK" --system greedy --images "$IMAGES" -o "$ANSWERS" "${units[@]}" \
    --workers "$SLURM_CPUS_PER_TASK" --log-file "answers-${SLURM_ARRAY_TASK_ID:-last}.log"
