#!/bin/bash
# Serves, and loads the model at once instead of at the first client's cost.
rm -f /tmp/warm
/opt/lab/warm.sh 8080 /tmp/warm &
exec ollama serve
