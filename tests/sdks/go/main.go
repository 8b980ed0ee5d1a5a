// The program of this test for the AWS SDK for Go v2; ../README.md says what each program does.
//
//	program default|recommended ENDPOINT_URL...
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	workers = 2                      // For each endpoint.
	pause   = 100 * time.Millisecond // Between two operations of a worker.
)

var (
	table  = aws.String("orders-" + os.Getenv("AWS_ACCESS_KEY_ID"))
	fast   atomic.Bool
	output sync.Mutex
)

type item = map[string]types.AttributeValue

func load(settings string) (aws.Config, error) {
	if settings == "default" {
		return config.LoadDefaultConfig(context.Background())
	}
	transport := awshttp.NewBuildableClient().
		WithDialerOptions(func(dialer *net.Dialer) { dialer.Timeout = time.Second }).
		GetTransport()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	// A connection stays on its node while it is used. Closing those that rest at this moment spreads load again.
	go func() {
		for range time.Tick(10 * time.Second) {
			transport.CloseIdleConnections()
		}
	}()
	return config.LoadDefaultConfig(context.Background(), config.WithHTTPClient(client), config.WithRetryMaxAttempts(10))
}

func main() {
	urls := os.Args[2:]
	loaded, err := load(os.Args[1])
	stopAt(err)
	var clients []*dynamodb.Client
	for _, url := range urls {
		client := dynamodb.NewFromConfig(loaded, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(url) })
		stopAt(create(client))
		clients = append(clients, client)
	}
	for zone, client := range clients {
		for worker := range workers {
			go work(client, zone, worker)
		}
	}
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		fast.Store(true)
	}
}

func stopAt(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(client *dynamodb.Client, zone, worker int) {
	ctx := context.Background()
	for number := 1; ; number++ {
		key := item{
			"customer": &types.AttributeValueMemberS{Value: fmt.Sprintf("worker-%d", worker)},
			"number":   &types.AttributeValueMemberN{Value: strconv.Itoa(number)},
		}
		get := &dynamodb.GetItemInput{TableName: table, Key: key}
		if fast.Load() {
			attempt(zone, "get", func() error { _, err := client.GetItem(ctx, get); return err })
			continue
		}
		stored := item{"placed_at": &types.AttributeValueMemberS{Value: strconv.Itoa(zone)}}
		for name, value := range key {
			stored[name] = value
		}
		if !attempt(zone, "put", func() error {
			_, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: stored})
			return err
		}) {
			continue
		}
		attempt(zone, "get", func() error {
			got, err := client.GetItem(ctx, get)
			return firstOf(err, func() error { return expect([]item{got.Item}, stored) })
		})
		attempt(zone, "query", func() error {
			got, err := client.Query(ctx, query(key))
			return firstOf(err, func() error { return expect(got.Items, stored) })
		})
		attempt(zone, "scan", func() error {
			got, err := client.Scan(ctx, &dynamodb.ScanInput{TableName: table})
			return firstOf(err, func() error { return expect(only(got.Items, stored), stored) })
		})
		attempt(zone, "delete", func() error {
			_, err := client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: table, Key: key})
			return err
		})
	}
}

func query(key item) *dynamodb.QueryInput {
	return &dynamodb.QueryInput{
		TableName:                 table,
		KeyConditionExpression:    aws.String("customer = :customer AND #n = :number"),
		ExpressionAttributeNames:  map[string]string{"#n": "number"},
		ExpressionAttributeValues: item{":customer": key["customer"], ":number": key["number"]},
	}
}

func only(items []item, wanted item) (found []item) {
	for _, candidate := range items {
		if reflect.DeepEqual(candidate, wanted) {
			found = append(found, candidate)
		}
	}
	return found
}

var errWrong = errors.New("wrong")

func expect(got []item, wanted item) error {
	if len(got) == 1 && reflect.DeepEqual(got[0], wanted) {
		return nil
	}
	return fmt.Errorf("%w: expected %v, got %v", errWrong, wanted, got)
}

func firstOf(err error, check func() error) error {
	if err != nil {
		return err
	}
	return check()
}

// attempt does one operation and prints a line about it; whether it succeeded.
func attempt(zone int, operation string, call func() error) bool {
	start := time.Now()
	err := call()
	line := map[string]any{
		"zone": zone, "operation": operation, "error": nil,
		"start": float64(start.UnixNano()) / 1e9, "seconds": time.Since(start).Seconds(),
	}
	if err != nil {
		line["error"] = err.Error()
	}
	text, _ := json.Marshal(line)
	output.Lock()
	fmt.Println(string(text))
	output.Unlock()
	if !fast.Load() {
		time.Sleep(pause)
	}
	return err == nil
}

func create(client *dynamodb.Client) error {
	_, err := client.CreateTable(context.Background(), &dynamodb.CreateTableInput{
		TableName: table,
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String("customer"), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String("number"), KeyType: types.KeyTypeRange},
		},
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("customer"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("number"), AttributeType: types.ScalarAttributeTypeN},
		},
		BillingMode: types.BillingModePayPerRequest,
	})
	// A repeated attempt may find the table that an earlier one, whose reply came too late, has created.
	var inUse *types.ResourceInUseException
	if err != nil && !errors.As(err, &inUse) {
		return err
	}
	return dynamodb.NewTableExistsWaiter(client).Wait(
		context.Background(), &dynamodb.DescribeTableInput{TableName: table}, time.Minute)
}
