#!/bin/bash
# Serves, and requests a first token at once, so the first client does not wait for it.
rm -f /tmp/warm
/opt/lab/warm.sh "${LAB_PORT:-8080}" /tmp/warm &
exec python3 -m lab_llamacpp
