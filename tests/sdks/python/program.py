"""The program of this test for boto3 and for ScyllaDB's client library; ../README.md says what each program does.

    program.py boto3|scylla default|recommended ENDPOINT_URL...
"""

import json
import os
import sys
import threading
import time
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

KEY = os.environ["AWS_ACCESS_KEY_ID"]
TABLE = f"orders-{KEY}"
WORKERS = 2  # For each endpoint.
PAUSE = 0.1  # Seconds between two operations of a worker.

pace = PAUSE
stopped = False


def boto3_client(settings, url):
    if settings == "default":
        return boto3.client("dynamodb", endpoint_url=url)
    return boto3.client(
        "dynamodb",
        endpoint_url=url,
        config=Config(connect_timeout=1, read_timeout=2, retries={"max_attempts": 10}),
    )


def scylla_client(settings, url):
    import alternator

    given = urlsplit(url)
    options = {}
    if settings == "recommended":
        options = {
            "timeouts": alternator.TimeoutConfig(connect_seconds=1, read_seconds=2),
            "retries": alternator.RetryConfig(max_attempts=10),
        }
    config = alternator.Config(seed_hosts=[given.hostname], port=given.port, **options)
    auth = alternator.Auth.static_credentials(KEY, os.environ["AWS_SECRET_ACCESS_KEY"])
    return alternator.create_client(config, auth=auth)


CLIENTS = {"boto3": boto3_client, "scylla": scylla_client}


def work(client, zone, worker):
    number = 0
    while not stopped:
        number += 1
        key = {"customer": {"S": f"worker-{worker}"}, "number": {"N": str(number)}}
        if pace == 0:
            attempt(zone, "get", lambda: client.get_item(TableName=TABLE, Key=key))
            continue
        item = key | {"placed_at": {"S": str(zone)}}
        if attempt(zone, "put", lambda: client.put_item(TableName=TABLE, Item=item) and None):
            attempt(zone, "get", lambda: equal(client.get_item(TableName=TABLE, Key=key).get("Item"), item))
            attempt(zone, "query", lambda: equal(one(query(client, key)), item))
            attempt(zone, "scan", lambda: equal(item in client.scan(TableName=TABLE)["Items"], True))
            attempt(zone, "delete", lambda: client.delete_item(TableName=TABLE, Key=key) and None)


def query(client, key):
    return client.query(
        TableName=TABLE,
        KeyConditionExpression="customer = :customer AND #n = :number",
        ExpressionAttributeNames={"#n": "number"},
        ExpressionAttributeValues={":customer": key["customer"], ":number": key["number"]},
    )["Items"]


def one(items):
    return items[0] if len(items) == 1 else items


def equal(got, expected):
    return None if got == expected else f"wrong: expected {expected}, got {got}"


def attempt(zone, operation, call):
    """Does one operation and prints a line about it; whether it succeeded."""
    start = time.time()
    try:
        error = call()
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    line = {"zone": zone, "operation": operation, "start": start, "seconds": time.time() - start, "error": error}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    time.sleep(pace)
    return error is None


def create(client):
    try:
        client.create_table(
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
        )
    except client.exceptions.ResourceInUseException:
        pass  # A repeated attempt may find the table that an earlier one, whose reply came too late, has created.
    client.get_waiter("table_exists").wait(TableName=TABLE)


def main():
    global pace, stopped
    library, settings, *urls = sys.argv[1:]
    clients = [CLIENTS[library](settings, url) for url in urls]
    for client in clients:
        create(client)
    for zone, client in enumerate(clients):
        for worker in range(WORKERS):
            threading.Thread(target=work, args=(client, zone, worker), daemon=True).start()
    for _ in sys.stdin:
        pace = 0
    stopped = True


if __name__ == "__main__":
    main()
