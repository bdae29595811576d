#!/bin/sh
# A night on a Ray cluster: ray-nightly.sh HEAD:6379 CONFIG… (from cron, a timer or a job like the other recipes).
# Every host has the same edgeproof and Ray in VENV and sees the folder of the nights under the same path.
#
# The head, once:         ray start --head --port=6379 --disable-usage-stats
# Every worker, once:     ray start --address=HEAD:6379
set -eu
VENV=${VENV:-/opt/edgeproof/.venv}
HEAD=$1
shift
# This host takes the times, so it joins without a CPU for tasks; it stays joined, and a second night finds it so.
if ! pgrep -u "$(id -u)" -x raylet > /dev/null; then
    "$VENV/bin/ray" start --address="$HEAD" --num-cpus=0 > /dev/null
fi
exec "$VENV/bin/edgeproof" nightly "$@" --ray "$HEAD"
