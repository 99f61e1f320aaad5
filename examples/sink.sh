#!/bin/sh
# A SQLite database that follows the log, is changed behind onelog's back, and is repaired. Needs
# curl and sqlite3.
#
#   onelog serve --folder data &
#   examples/sink.sh http://127.0.0.1:7070 "$PWD/reports.sqlite"
set -eu

[ $# -eq 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
server=$1
file=$2

# Prints the body of the answer; a refusal ends the script.
call() {
    path=$1
    shift
    curl --silent --show-error --fail-with-body --max-time 20 "$server/v1/$path" "$@"
}

call tables -d '{"name": "shop.orders", "kind": "keyed", "value": "json"}'
call sinks -d '{"name": "reports", "kind": "sqlite", "path": "'"$file"'", "mappings": [{
    "table": "shop.orders", "into": "orders",
    "columns": {"id": {"from": "$key", "type": "text"},
                "item": {"from": "/item", "type": "text"},
                "total": {"from": "/total", "type": "numeric"}}}]}'

# Read your writes: the answer comes when the database has the transaction.
call transactions -d '{"wait_for": ["reports"], "wait_timeout_ms": 10000, "writes": [
    {"op": "put", "table": "shop.orders", "key": "order-1", "value": {"item": "apple", "total": 4.50}},
    {"op": "put", "table": "shop.orders", "key": "order-2", "value": {"item": "pear", "total": 3}}]}'
sqlite3 "$file" "SELECT id, item, total FROM orders ORDER BY id"

# A hand edit, found and undone.
sqlite3 "$file" "UPDATE orders SET item = 'plum' WHERE id = 'order-1'"
call sinks/reports/verify -X POST | grep '"equal":false'
call 'sinks/reports/verify?repair=true' -X POST | grep '"equal":true'
sqlite3 "$file" "SELECT item FROM orders WHERE id = 'order-1'"
