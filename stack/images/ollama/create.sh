#!/bin/bash
# Makes the model of Modelfile $1 while the image is built.
set -eu
OLLAMA_HOST=127.0.0.1:11434 ollama serve &
server=$!
export OLLAMA_HOST=127.0.0.1:11434
for _ in $(seq 100); do
    ollama list >/dev/null 2>&1 && break
    sleep 0.1
done
ollama create "$LAB_MODEL" -f "$1"
kill "$server"
wait "$server" || true
chmod -R a+rX "$OLLAMA_MODELS"
