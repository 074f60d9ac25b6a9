#!/bin/bash
# Serves, and asks for the first token at once instead of at the first client's cost.
rm -f /tmp/warm
/opt/lab/warm.sh "${LAB_PORT:-8080}" /tmp/warm &
exec python3 -m lab_llamacpp
