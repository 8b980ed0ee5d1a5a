"""A program that knows DynamoDB and nothing else.

    program.py ENDPOINT_URL...

Keeps orders in a table of each endpoint, round after round, until SIGTERM: puts, gets, queries,
scans and deletes, with a new client in each round. After each operation it compares what it got with what has to be
there. The first operation that fails, or gives something else, ends it with a traceback. Prints a line of JSON for each
round: how many operations there have been, and how many of them boto3 had to try again.
"""

import json
import os
import signal
import sys
from urllib.parse import urlsplit

import boto3

TABLE = f"orders-{os.getpid()}"
KEPT = 3  # Orders that stay in a table.

operations = 0
retries = 0


def done(response):
    global operations, retries
    operations += 1
    retries += response["ResponseMetadata"]["RetryAttempts"]
    return response


def item(url, number):
    return {"customer": {"S": urlsplit(url).hostname}, "number": {"N": str(number)}, "placed_at": {"S": url}}


def key(url, number):
    return {name: value for name, value in item(url, number).items() if name != "placed_at"}


def create(client):
    done(client.create_table(
        TableName=TABLE,
        KeySchema=[
            {"AttributeName": "customer", "KeyType": "HASH"},
            {"AttributeName": "number", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "customer", "AttributeType": "S"},
            {"AttributeName": "number", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    ))
    client.get_waiter("table_exists").wait(TableName=TABLE)


def use(client, url, others, number):
    """One round at one endpoint."""
    expected = [item(url, n) for n in range(max(1, number - KEPT), number + 1)]

    done(client.put_item(TableName=TABLE, Item=item(url, number)))

    got = done(client.get_item(TableName=TABLE, Key=key(url, number), ConsistentRead=True))
    equal(got.get("Item"), item(url, number), "get", url)

    got = done(client.query(
        TableName=TABLE,
        KeyConditionExpression="customer = :customer",
        ExpressionAttributeValues={":customer": item(url, number)["customer"]},
        ConsistentRead=True,
    ))
    equal(got["Items"], expected, "query", url)

    got = done(client.scan(TableName=TABLE, ConsistentRead=True))
    equal(sorted(got["Items"], key=lambda found: int(found["number"]["N"])), expected, "scan", url)

    for other in others:
        got = done(client.get_item(TableName=TABLE, Key=key(other, number), ConsistentRead=True))
        equal(got.get("Item"), None, f"get of what belongs to {other}", url)

    if number > KEPT:
        done(client.delete_item(TableName=TABLE, Key=key(url, number - KEPT)))
        got = done(client.get_item(TableName=TABLE, Key=key(url, number - KEPT), ConsistentRead=True))
        equal(got.get("Item"), None, "get after delete", url)


def equal(got, expected, what, url):
    if got != expected:
        raise AssertionError(f"{what} at {url}: expected {expected}, got {got}")


def main():
    urls = sys.argv[1:]
    stopped = False

    def stop(*_):
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    session = boto3.session.Session()

    def client(url):
        return session.client("dynamodb", endpoint_url=url)

    for url in urls:
        create(client(url))
    number = 0
    while not stopped:
        number += 1
        for url in urls:
            use(client(url), url, [other for other in urls if other != url], number)
        print(json.dumps({"rounds": number, "operations": operations, "retries": retries}), flush=True)
    for url in urls:
        done(client(url).delete_table(TableName=TABLE))
    print(json.dumps({"rounds": number, "operations": operations, "retries": retries}), flush=True)


if __name__ == "__main__":
    main()
