// The program of this test for the AWS SDK for Java 2; ../README.md says what each program does.
//
//     Program url|apache|crt default|recommended ENDPOINT_URL...

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.security.Security;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import software.amazon.awssdk.core.client.config.ClientOverrideConfiguration;
import software.amazon.awssdk.http.SdkHttpClient;
import software.amazon.awssdk.http.apache5.Apache5HttpClient;
import software.amazon.awssdk.http.crt.AwsCrtHttpClient;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.retries.StandardRetryStrategy;
import software.amazon.awssdk.services.dynamodb.DynamoDbClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbClientBuilder;
import software.amazon.awssdk.services.dynamodb.model.AttributeDefinition;
import software.amazon.awssdk.services.dynamodb.model.AttributeValue;
import software.amazon.awssdk.services.dynamodb.model.BillingMode;
import software.amazon.awssdk.services.dynamodb.model.CreateTableRequest;
import software.amazon.awssdk.services.dynamodb.model.KeySchemaElement;
import software.amazon.awssdk.services.dynamodb.model.KeyType;
import software.amazon.awssdk.services.dynamodb.model.QueryRequest;
import software.amazon.awssdk.services.dynamodb.model.ResourceInUseException;
import software.amazon.awssdk.services.dynamodb.model.ScalarAttributeType;

public final class Program {
    static final String TABLE = "orders-" + System.getenv("AWS_ACCESS_KEY_ID");
    static final int WORKERS = 2; // For each endpoint.
    static final int PAUSE = 100; // Milliseconds between two operations of a worker.
    static volatile boolean fast = false;

    public static void main(String[] arguments) throws Exception {
        boolean recommended = arguments[1].equals("recommended");
        if (recommended) {
            Security.setProperty("networkaddress.cache.ttl", "0");
            Security.setProperty("networkaddress.cache.negative.ttl", "0");
        }
        List<DynamoDbClient> clients = new ArrayList<>();
        for (String url : List.of(arguments).subList(2, arguments.length)) {
            DynamoDbClientBuilder builder = DynamoDbClient.builder()
                .endpointOverride(URI.create(url))
                .httpClient(recommended ? recommended(arguments[0]) : unchanged(arguments[0]));
            if (recommended) {
                builder.overrideConfiguration(ClientOverrideConfiguration.builder()
                    .apiCallAttemptTimeout(Duration.ofSeconds(2))
                    .retryStrategy(StandardRetryStrategy.builder().maxAttempts(10).build())
                    .build());
            }
            DynamoDbClient client = builder.build();
            create(client);
            clients.add(client);
        }
        for (int zone = 0; zone < clients.size(); zone++) {
            for (int worker = 0; worker < WORKERS; worker++) {
                start(clients.get(zone), zone, worker);
            }
        }
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        while (orders.readLine() != null) {
            fast = true;
        }
        System.exit(0);
    }

    static SdkHttpClient unchanged(String kind) {
        return switch (kind) {
            case "url" -> UrlConnectionHttpClient.create();
            case "apache" -> Apache5HttpClient.create();
            case "crt" -> AwsCrtHttpClient.create();
            default -> throw new IllegalArgumentException(kind);
        };
    }

    static SdkHttpClient recommended(String kind) {
        Duration second = Duration.ofSeconds(1);
        Duration lifetime = Duration.ofSeconds(10);
        return switch (kind) {
            case "url" -> UrlConnectionHttpClient.builder()
                .connectionTimeout(second).socketTimeout(second.multipliedBy(2)).build();
            case "apache" -> Apache5HttpClient.builder()
                .connectionTimeout(second).socketTimeout(second.multipliedBy(2)).connectionTimeToLive(lifetime).build();
            case "crt" -> AwsCrtHttpClient.builder().connectionTimeout(second).build();
            default -> throw new IllegalArgumentException(kind);
        };
    }

    static void start(DynamoDbClient client, int zone, int worker) {
        Thread thread = new Thread(() -> work(client, zone, worker), "worker-" + zone + "-" + worker);
        thread.setDaemon(true);
        thread.start();
    }

    static void work(DynamoDbClient client, int zone, int worker) {
        for (int number = 1; ; number++) {
            Map<String, AttributeValue> key = Map.of(
                "customer", AttributeValue.fromS("worker-" + worker),
                "number", AttributeValue.fromN(Integer.toString(number)));
            if (fast) {
                attempt(zone, "get", () -> ignore(client.getItem(get -> get.tableName(TABLE).key(key))));
                continue;
            }
            Map<String, AttributeValue> item = new HashMap<>(key);
            item.put("placed_at", AttributeValue.fromS(Integer.toString(zone)));
            if (!attempt(zone, "put", () -> ignore(client.putItem(put -> put.tableName(TABLE).item(item))))) {
                continue;
            }
            attempt(zone, "get", () -> equal(client.getItem(get -> get.tableName(TABLE).key(key)).item(), item));
            attempt(zone, "query", () -> equal(client.query(query(key)).items(), List.of(item)));
            attempt(zone, "scan", () -> equal(client.scan(scan -> scan.tableName(TABLE)).items().contains(item), true));
            attempt(zone, "delete", () -> ignore(client.deleteItem(delete -> delete.tableName(TABLE).key(key))));
        }
    }

    static QueryRequest query(Map<String, AttributeValue> key) {
        return QueryRequest.builder()
            .tableName(TABLE)
            .keyConditionExpression("customer = :customer AND #n = :number")
            .expressionAttributeNames(Map.of("#n", "number"))
            .expressionAttributeValues(Map.of(":customer", key.get("customer"), ":number", key.get("number")))
            .build();
    }

    static String ignore(Object reply) {
        return null;
    }

    static String equal(Object got, Object expected) {
        return got.equals(expected) ? null : "wrong: expected " + expected + ", got " + got;
    }

    /** Does one operation and prints a line about it; whether it succeeded. */
    static boolean attempt(int zone, String operation, Callable<String> call) {
        double start = System.currentTimeMillis() / 1e3;
        long from = System.nanoTime();
        String error;
        try {
            error = call.call();
        } catch (Exception failure) {
            error = failure.getClass().getSimpleName() + ": " + failure.getMessage();
        }
        double seconds = (System.nanoTime() - from) / 1e9;
        String quoted = error == null ? "null" : '"' + error.replaceAll("[\\\\\"\\p{Cntrl}]", " ") + '"';
        System.out.println("{\"zone\":" + zone + ",\"operation\":\"" + operation + "\",\"start\":" + String.format("%.3f", start)
            + ",\"seconds\":" + String.format("%.6f", seconds) + ",\"error\":" + quoted + "}");
        if (!fast) {
            try {
                Thread.sleep(PAUSE);
            } catch (InterruptedException interrupted) {
                throw new IllegalStateException(interrupted);
            }
        }
        return error == null;
    }

    static void create(DynamoDbClient client) {
        CreateTableRequest creation = CreateTableRequest.builder()
            .tableName(TABLE)
            .keySchema(
                KeySchemaElement.builder().attributeName("customer").keyType(KeyType.HASH).build(),
                KeySchemaElement.builder().attributeName("number").keyType(KeyType.RANGE).build())
            .attributeDefinitions(
                AttributeDefinition.builder().attributeName("customer").attributeType(ScalarAttributeType.S).build(),
                AttributeDefinition.builder().attributeName("number").attributeType(ScalarAttributeType.N).build())
            .billingMode(BillingMode.PAY_PER_REQUEST)
            .build();
        try {
            client.createTable(creation);
        } catch (ResourceInUseException exists) {
            // A repeated attempt may find the table that an earlier one, whose reply came too late, has created.
        }
        client.waiter().waitUntilTableExists(wanted -> wanted.tableName(TABLE));
    }
}
