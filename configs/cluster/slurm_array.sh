#!/bin/bash
# A Slurm array: each job works on its part of the scans, and the last one puts the parts together.
#
#   sbatch --array=1-20 configs/cluster/slurm_array.sh /mnt/scans /mnt/results
#
# Submit it again to go on after jobs that were stopped: what has results is skipped.
#SBATCH --job-name=dbcpu
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=dbcpu-%A-%a.log
set -u
scans=$1 results=$2

# TERM comes two minutes before the time is over: dbcpu lets the pages in work finish.
trap 'kill -TERM "$work"' TERM
dbcpu batch "$scans" "$results" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX" --log-json &
work=$!
wait "$work"
code=$?
[ "$code" -lt 128 ] || { wait "$work"; code=$?; } # the trap has ended the first wait
[ "$code" -eq 0 ] || [ "$code" -eq 7 ] || exit "$code" # 7: all done, some pages failed and are recorded

# Of the jobs that find all others finished, one gets the lock.
dbcpu batch merge "$results" || echo "not all shards have ended yet, or another job puts them together"
exit "$code"
