// A client of KEDA's external scaler, of KEDA's own published package, for the tests: asks each method once and prints what
// was answered as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

type answers struct {
	Active       bool    `json:"active"`
	StreamActive bool    `json:"stream_active"`
	SpecName     string  `json:"spec_name"`
	Target       float64 `json:"target"`
	OldTarget    int64   `json:"old_target"`
	ValueName    string  `json:"value_name"`
	Value        float64 `json:"value"`
	OldValue     int64   `json:"old_value"`
	StreamSpec   bool    `json:"stream_spec"`
}

func main() {
	address := flag.String("address", "", "host:port of the scaler")
	namespace := flag.String("namespace", "", "the ScaledObject's namespace")
	metadata := flag.String("metadata", "", "the trigger's metadata, as key=value;key=value")
	wait := flag.Bool("wait", false, "hold one trigger's streams, and print how they end")
	streams := flag.Int("streams", 0, "how many triggers' streams to hold beside it")
	flag.Parse()
	if err := run(*address, *namespace, *metadata, *streams, *wait); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, namespace, metadata string, streams int, wait bool) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := pb.NewExternalScalerClient(connection)
	object := &pb.ScaledObjectRef{Name: "shop", Namespace: namespace, ScalerMetadata: map[string]string{}}
	for _, pair := range strings.Split(metadata, ";") {
		if key, value, found := strings.Cut(pair, "="); found {
			object.ScalerMetadata[key] = value
		}
	}
	if wait {
		return untilTheyEnd(ctx, client, object)
	}
	var told answers
	active, err := client.IsActive(ctx, object)
	if err != nil {
		return fmt.Errorf("IsActive: %w", err)
	}
	told.Active = active.Result
	stream, err := client.StreamIsActive(ctx, object)
	if err != nil {
		return fmt.Errorf("StreamIsActive: %w", err)
	}
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("StreamIsActive: %w", err)
	}
	told.StreamActive = first.Result
	spec, err := client.GetMetricSpec(ctx, object)
	if err != nil {
		return fmt.Errorf("GetMetricSpec: %w", err)
	}
	if len(spec.MetricSpecs) != 1 {
		return fmt.Errorf("GetMetricSpec gives %d specs", len(spec.MetricSpecs))
	}
	told.SpecName, told.Target, told.OldTarget = spec.MetricSpecs[0].MetricName, spec.MetricSpecs[0].TargetSizeFloat, spec.MetricSpecs[0].TargetSize
	values, err := client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: object, MetricName: told.SpecName})
	if err != nil {
		return fmt.Errorf("GetMetrics: %w", err)
	}
	if len(values.MetricValues) != 1 {
		return fmt.Errorf("GetMetrics gives %d values", len(values.MetricValues))
	}
	told.ValueName, told.Value, told.OldValue = values.MetricValues[0].MetricName, values.MetricValues[0].MetricValueFloat, values.MetricValues[0].MetricValue
	specs, err := client.StreamMetricSpec(ctx, object)
	if err != nil {
		return fmt.Errorf("StreamMetricSpec: %w", err)
	}
	streamed, err := specs.Recv()
	if err != nil {
		return fmt.Errorf("StreamMetricSpec: %w", err)
	}
	told.StreamSpec = proto.Equal(streamed, spec)
	if err := hold(ctx, client, object, streams); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

// hold opens as many triggers' streams as asked for on the one connection, as KEDA does, and asks once more beside them.
func hold(ctx context.Context, client pb.ExternalScalerClient, object *pb.ScaledObjectRef, streams int) error {
	for i := 0; i < streams; i++ {
		active, err := client.StreamIsActive(ctx, object)
		if err == nil {
			_, err = active.Recv()
		}
		if err != nil {
			return fmt.Errorf("StreamIsActive, the %dth beside others: %w", i, err)
		}
		specs, err := client.StreamMetricSpec(ctx, object)
		if err == nil {
			_, err = specs.Recv()
		}
		if err != nil {
			return fmt.Errorf("StreamMetricSpec, the %dth beside others: %w", i, err)
		}
	}
	if _, err := client.IsActive(ctx, object); err != nil {
		return fmt.Errorf("IsActive beside %d streams: %w", 2*streams, err)
	}
	return nil
}

// untilTheyEnd holds the two streams of a trigger: a line when it has them, and one of how each ended.
func untilTheyEnd(ctx context.Context, client pb.ExternalScalerClient, object *pb.ScaledObjectRef) error {
	active, err := client.StreamIsActive(ctx, object)
	if err == nil {
		_, err = active.Recv()
	}
	if err != nil {
		return fmt.Errorf("StreamIsActive: %w", err)
	}
	specs, err := client.StreamMetricSpec(ctx, object)
	if err == nil {
		_, err = specs.Recv()
	}
	if err != nil {
		return fmt.Errorf("StreamMetricSpec: %w", err)
	}
	fmt.Println("held")
	for err == nil {
		_, err = active.Recv()
	}
	fmt.Println("StreamIsActive:", err)
	_, err = specs.Recv()
	fmt.Println("StreamMetricSpec:", err)
	return nil
}
