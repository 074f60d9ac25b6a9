#!/bin/bash
# Health probe for images without curl: succeeds when GET http://127.0.0.1:$1$2 answers 200.
# With a third argument it also wants that file, which the warm-up leaves behind after the model's first token.
#
# A probe that was good is followed by one that waits: starting one costs 40 ms of CPU, and seven a second would take an
# eighth of a machine with two cores from what is being measured.
set -eu
good=/tmp/probe-was-good
if rm "$good" 2>/dev/null; then sleep 20; fi
[ -z "${3:-}" ] || [ -e "$3" ]
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r -t 2 _ status _ <&3
[ "$status" = 200 ]
: >"$good"
