#!/usr/bin/env python3
"""Transactions over HTTP, with nothing but Python's standard library.

    onelog serve --folder data &
    python3 examples/transactions.py http://127.0.0.1:7070
"""

import json
import sys
import urllib.error
import urllib.request

ATTEMPTS_MAX = 10


def call(url, body=None):
    """The status, the headers and the JSON of an answer; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


def good(answer):
    status, _, body = answer
    if status >= 300:
        raise SystemExit(f"refused with {status}: {body['error']}: {body['message']}")
    return body


def order(server, name, count):
    """Takes apples from the stock and writes the order: reads, decides, commits, and begins again
    when another client has changed the stock in between."""
    for _ in range(ATTEMPTS_MAX):
        status, headers, stock = call(f"{server}/v1/tables/shop.stock/keys/apple")
        if status != 200 or stock["count"] < count:
            raise SystemExit("not enough apples")
        answer = call(f"{server}/v1/transactions", {
            "read_position": int(headers["Onelog-Position"]),
            "reads": [{"table": "shop.stock", "key": "apple"}],
            "writes": [
                {"op": "put", "table": "shop.stock", "key": "apple",
                 "value": {"count": stock["count"] - count}},
                {"op": "put", "table": "shop.orders", "key": name,
                 "value": {"item": "apple", "count": count}},
            ],
        })
        if answer[2].get("error") != "conflict":
            return good(answer)
    raise SystemExit("the stock changes all the time")


def main(server):
    for table in ("shop.orders", "shop.stock"):
        good(call(f"{server}/v1/tables", {"name": table, "kind": "keyed", "value": "json"}))
    stocked = good(call(f"{server}/v1/transactions", {
        "writes": [{"op": "put", "table": "shop.stock", "key": "apple", "value": {"count": 3}}],
    }))
    committed = order(server, "order-1", 2)
    print("committed, position", committed["position"])

    # A write that rests on the stock before the order.
    _, _, late = call(f"{server}/v1/transactions", {
        "read_position": stocked["position"],
        "reads": [{"table": "shop.stock", "key": "apple"}],
        "writes": [{"op": "put", "table": "shop.stock", "key": "apple", "value": {"count": 9}}],
    })
    print("refused:", late["error"])

    after = f"{server}/v1/tables/shop.stock/keys/apple?after={committed['position']}"
    print("left in stock:", json.dumps(good(call(after))))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1].rstrip("/"))
