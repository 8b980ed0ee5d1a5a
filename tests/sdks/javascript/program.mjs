// The program of this test for the AWS SDK for JavaScript v3; ../README.md says what each program does.
//
//     program.mjs default|recommended ENDPOINT_URL...

import { isDeepStrictEqual } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import * as dynamodb from "@aws-sdk/client-dynamodb";

const TABLE = `orders-${process.env.AWS_ACCESS_KEY_ID}`;
const WORKERS = 2; // For each endpoint.
const PAUSE = 100; // Milliseconds between two operations of a worker.

const [settings, ...urls] = process.argv.slice(2);
let pace = PAUSE;
let stopped = false;

function newClient(endpoint) {
  if (settings === "default") return new dynamodb.DynamoDBClient({ endpoint });
  return new dynamodb.DynamoDBClient({
    endpoint,
    maxAttempts: 10,
    requestHandler: { connectionTimeout: 1000, requestTimeout: 2000, throwOnRequestTimeout: true },
  });
}

async function work(client, zone, worker) {
  const send = (command) => client.send(command);
  for (let number = 1; !stopped; number++) {
    const Key = { customer: { S: `worker-${worker}` }, number: { N: String(number) } };
    if (pace === 0) {
      await attempt(zone, "get", () => send(new dynamodb.GetItemCommand({ TableName: TABLE, Key })));
      continue;
    }
    const Item = { ...Key, placed_at: { S: String(zone) } };
    if (!(await attempt(zone, "put", () => send(new dynamodb.PutItemCommand({ TableName: TABLE, Item }))))) continue;
    await attempt(zone, "get", async () => {
      expect((await send(new dynamodb.GetItemCommand({ TableName: TABLE, Key }))).Item, Item);
    });
    await attempt(zone, "query", async () => expect((await send(query(Key))).Items, [Item]));
    await attempt(zone, "scan", async () => {
      const { Items } = await send(new dynamodb.ScanCommand({ TableName: TABLE }));
      expect(Items.filter((found) => isDeepStrictEqual(found, Item)), [Item]);
    });
    await attempt(zone, "delete", () => send(new dynamodb.DeleteItemCommand({ TableName: TABLE, Key })));
  }
}

function query(key) {
  return new dynamodb.QueryCommand({
    TableName: TABLE,
    KeyConditionExpression: "customer = :customer AND #n = :number",
    ExpressionAttributeNames: { "#n": "number" },
    ExpressionAttributeValues: { ":customer": key.customer, ":number": key.number },
  });
}

function expect(got, expected) {
  if (!isDeepStrictEqual(got, expected)) {
    throw new Error(`wrong: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
  }
}

// Does one operation and prints a line about it; whether it succeeded.
async function attempt(zone, operation, call) {
  const start = Date.now() / 1000;
  let error = null;
  try {
    await call();
  } catch (failure) {
    error = failure.message.startsWith("wrong: ") ? failure.message : `${failure.name}: ${failure.message}`;
  }
  const seconds = Date.now() / 1000 - start;
  process.stdout.write(JSON.stringify({ zone, operation, start, seconds, error }) + "\n");
  await sleep(pace);
  return error === null;
}

async function create(client) {
  const creation = new dynamodb.CreateTableCommand({
    TableName: TABLE,
    KeySchema: [
      { AttributeName: "customer", KeyType: "HASH" },
      { AttributeName: "number", KeyType: "RANGE" },
    ],
    AttributeDefinitions: [
      { AttributeName: "customer", AttributeType: "S" },
      { AttributeName: "number", AttributeType: "N" },
    ],
    BillingMode: "PAY_PER_REQUEST",
  });
  try {
    await client.send(creation);
  } catch (failure) {
    // A repeated attempt may find the table that an earlier one, whose reply came too late, has created.
    if (!(failure instanceof dynamodb.ResourceInUseException)) throw failure;
  }
  await dynamodb.waitUntilTableExists({ client, maxWaitTime: 30 }, { TableName: TABLE });
}

const clients = urls.map(newClient);
for (const client of clients) await create(client);
process.stdin.on("data", () => (pace = 0));
process.stdin.on("end", () => {
  stopped = true;
  process.exit(0);
});
clients.forEach((client, zone) => {
  for (let worker = 0; worker < WORKERS; worker++) work(client, zone, worker);
});
