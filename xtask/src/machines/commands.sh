#!/bin/sh
# Each line is a script in base64; the answer is a line with its exit code and its output in base64.
exec 0<> /dev/virtio-ports/commands 1>&0
echo ready
while read -r line; do
    echo "$line" | base64 --decode > /run/command
    code=0
    sh /run/command > /run/command.output 2>&1 < /dev/null || code=$?
    echo "$code $(base64 --wrap=0 /run/command.output)"
done
