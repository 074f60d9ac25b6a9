#!/bin/bash
# Requests one token of the model server on port $1 until it answers, then creates the file $2. A replica is healthy only
# after that answer, so the first client meets a loaded model.
set -u
body="{\"model\":\"${LAB_MODEL}\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"
until
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" &&
            printf 'POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
                "${#body}" "$body" >&3 &&
            read -r -t 60 _ status _ <&3 && [ "$status" = 200 ]
    } 2>/dev/null
do
    sleep 0.05
done
: >"$2"
