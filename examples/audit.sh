#!/bin/sh
# Two SQLite files that should hold the same orders and do not. Needs sqlite3; no onelog server.
#
#   examples/audit.sh target/release/onelog
set -eu

[ $# -eq 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
onelog=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

sqlite3 "$folder/shop.db" "
    CREATE TABLE orders (id INTEGER PRIMARY KEY, total TEXT, state TEXT);
    INSERT INTO orders VALUES (1, '9.50', 'paid'), (2, '20.00', 'open'), (3, '5.00', 'paid')"
# The second write of order 2 came first here, and that of order 3 was lost.
sqlite3 "$folder/reports.db" "
    CREATE TABLE report (ref TEXT PRIMARY KEY, total REAL, status TEXT);
    INSERT INTO report VALUES ('order-1', 9.5, 'paid'), ('order-2', 20, 'paid')"

cat >"$folder/orders.toml" <<'MAPPING'
[[compare]]
name    = "orders"
left    = { table = "orders", key = "id", key_type = "integer" }
right   = { table = "report", key = "ref", key_template = "order-{$key}" }
columns = [ { name = "total",  type = "numeric", left_type = "text", right_type = "real" },
            { name = "status", type = "text", left = "state" } ]
MAPPING

audit() {
    "$onelog" audit --left "sqlite://$folder/shop.db" --right "sqlite://$folder/reports.db" \
        "$folder/orders.toml"
}

# Status 1 says that something differs.
if audit; then
    echo "the audit found nothing" >&2
    exit 1
fi

sqlite3 "$folder/reports.db" "
    UPDATE report SET status = 'open' WHERE ref = 'order-2';
    INSERT INTO report VALUES ('order-3', 5, 'paid')"
audit
