// The HPA controller itself, shown what `gopulse hpa simulate` showed its own, sync by sync, on a clock that the test turns.
package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	_ "unsafe" // for go:linkname

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	scalefake "k8s.io/client-go/scale/fake"
	core "k8s.io/client-go/testing"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	autoscalingdefaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"sigs.k8s.io/yaml"
)

const namespace = "replay"

// One sync, as the simulation traced it. Times are milliseconds, values thousandths.
type line struct {
	Now      int64 `json:"now"`
	Replicas int32 `json:"replicas"`
	Desired  int32 `json:"desired"`
	Pods     []struct {
		Name       int    `json:"name"`
		Phase      string `json:"phase"`
		Deleting   bool   `json:"deleting"`
		Started    *int64 `json:"started"`
		Ready      *bool  `json:"ready"`
		ReadySince *int64 `json:"readySince"`
		Request    *int64 `json:"request"`
	} `json:"pods"`
	Readings []struct {
		Pods []struct {
			Pod    int   `json:"pod"`
			Value  int64 `json:"value"`
			At     int64 `json:"at"`
			Window int64 `json:"window"`
		} `json:"pods"`
		Figure *int64 `json:"figure"`
		Failed bool   `json:"failed"`
	} `json:"readings"`
}

//go:linkname reconcileKey k8s.io/kubernetes/pkg/controller/podautoscaler.(*HorizontalController).reconcileKey
func reconcileKey(a *podautoscaler.HorizontalController, ctx context.Context, key string) (bool, error)

// The metrics API: what the trace says of this sync.
type readings struct {
	hpa   *autoscalingv2.HorizontalPodAutoscaler
	now   *line
	start time.Time
}

func (r *readings) find(kind autoscalingv2.MetricSourceType, name string) (int, error) {
	for i, metric := range r.hpa.Spec.Metrics {
		of := map[autoscalingv2.MetricSourceType]func() string{
			autoscalingv2.PodsMetricSourceType:     func() string { return metric.Pods.Metric.Name },
			autoscalingv2.ObjectMetricSourceType:   func() string { return metric.Object.Metric.Name },
			autoscalingv2.ExternalMetricSourceType: func() string { return metric.External.Metric.Name },
			autoscalingv2.ResourceMetricSourceType: func() string { return string(metric.Resource.Name) },
		}[kind]
		if metric.Type == kind && of() == name {
			if r.now.Readings[i].Failed {
				break
			}
			return i, nil
		}
	}
	return 0, fmt.Errorf("no metrics returned")
}

func (r *readings) pods(kind autoscalingv2.MetricSourceType, name string) (metricsclient.PodMetricsInfo, time.Time, error) {
	i, err := r.find(kind, name)
	if err != nil {
		return nil, time.Time{}, err
	}
	found := metricsclient.PodMetricsInfo{}
	for _, pod := range r.now.Readings[i].Pods {
		found[podName(pod.Pod)] = metricsclient.PodMetric{
			Timestamp: r.start.Add(time.Duration(pod.At) * time.Millisecond),
			Window:    time.Duration(pod.Window) * time.Millisecond,
			Value:     pod.Value,
		}
	}
	if len(found) == 0 {
		return nil, time.Time{}, fmt.Errorf("no metrics returned")
	}
	return found, time.Now(), nil
}

func (r *readings) GetResourceMetric(_ context.Context, name v1.ResourceName, _ string, _ labels.Selector, _ string) (metricsclient.PodMetricsInfo, time.Time, error) {
	return r.pods(autoscalingv2.ResourceMetricSourceType, string(name))
}

func (r *readings) GetRawMetric(name string, _ string, _ labels.Selector, _ labels.Selector) (metricsclient.PodMetricsInfo, time.Time, error) {
	return r.pods(autoscalingv2.PodsMetricSourceType, name)
}

func (r *readings) GetObjectMetric(name string, _ string, _ *autoscalingv2.CrossVersionObjectReference, _ labels.Selector) (int64, time.Time, error) {
	i, err := r.find(autoscalingv2.ObjectMetricSourceType, name)
	if err != nil {
		return 0, time.Time{}, err
	}
	return *r.now.Readings[i].Figure, time.Now(), nil
}

func (r *readings) GetExternalMetric(name, _ string, _ labels.Selector) ([]int64, time.Time, error) {
	i, err := r.find(autoscalingv2.ExternalMetricSourceType, name)
	if err != nil {
		return nil, time.Time{}, err
	}
	return []int64{*r.now.Readings[i].Figure}, time.Now(), nil
}

func podName(number int) string { return "pod-" + strconv.Itoa(number) }

func TestReplay(t *testing.T) {
	specs, traces := os.Getenv("GOPULSE_HPA_SPECS"), os.Getenv("GOPULSE_HPA_TRACES")
	if specs == "" {
		t.Skip("GOPULSE_HPA_SPECS and GOPULSE_HPA_TRACES name no directories")
	}
	if err := utilfeature.DefaultMutableFeatureGate.Set("HPAConfigurableTolerance=true"); err != nil {
		t.Fatal(err)
	}
	// The second handler of errors waits for the time of the one before, which is the real clock's: 26 years of the test's.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	files, err := os.ReadDir(specs)
	if err != nil {
		t.Fatal(err)
	}
	syncs := 0
	for _, file := range files {
		text, err := os.ReadFile(specs + "/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		hpa := &autoscalingv2.HorizontalPodAutoscaler{}
		if err := yaml.Unmarshal(text, hpa); err != nil {
			t.Fatal(err)
		}
		hpa.Namespace = namespace
		autoscalingdefaults.SetDefaults_HorizontalPodAutoscaler(hpa)
		lines := read(t, traces+"/"+file.Name())
		synctest.Test(t, func(t *testing.T) { syncs += replay(t, file.Name(), hpa, lines) })
	}
	fmt.Printf("replayed: %d series, %d syncs, the same replica count at every one\n", len(files), syncs)
}

func read(t *testing.T, path string) []line {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines []line
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<22)
	for scanner.Scan() {
		var next line
		if err := json.Unmarshal(scanner.Bytes(), &next); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, next)
	}
	return lines
}

func replay(t *testing.T, name string, hpa *autoscalingv2.HorizontalPodAutoscaler, lines []line) int {
	ctx, cancel := context.WithCancel(t.Context())
	client := fake.NewSimpleClientset(hpa)
	factory := informers.NewSharedInformerFactory(client, 0)
	hpas, pods := factory.Autoscaling().V2().HorizontalPodAutoscalers(), factory.Core().V1().Pods()
	start := time.Now()
	source := &readings{hpa: hpa, start: start}
	var desired int32
	scales := &scalefake.FakeScaleClient{}
	scales.AddReactor("get", "*", func(core.Action) (bool, runtime.Object, error) {
		return true, &autoscalingv1.Scale{
			ObjectMeta: metav1.ObjectMeta{Name: hpa.Spec.ScaleTargetRef.Name, Namespace: namespace},
			Spec:       autoscalingv1.ScaleSpec{Replicas: source.now.Replicas},
			Status:     autoscalingv1.ScaleStatus{Replicas: source.now.Replicas, Selector: "app=replay"},
		}, nil
	})
	scales.AddReactor("update", "*", func(action core.Action) (bool, runtime.Object, error) {
		scale := action.(core.UpdateAction).GetObject().(*autoscalingv1.Scale)
		desired = scale.Spec.Replicas
		return true, scale, nil
	})
	controller := podautoscaler.NewHorizontalController(
		ctx, client.CoreV1(), scales, client.AutoscalingV2(), testrestmapper.TestOnlyStaticRESTMapper(legacyscheme.Scheme), source,
		hpas, pods, 15*time.Second, 5*time.Minute, 0.1, 5*time.Minute, 30*time.Second,
	)
	// Its queue has goroutines, which the test's clock waits for, and nothing but the end of Run ends them.
	defer func() {
		cancel()
		controller.Run(ctx, 0)
	}()
	if err := hpas.Informer().GetIndexer().Add(hpa); err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		now := &lines[i]
		time.Sleep(time.Until(start.Add(time.Duration(now.Now) * time.Millisecond)))
		source.now, desired = now, now.Replicas
		if err := pods.Informer().GetIndexer().Replace(podsOf(now, start), ""); err != nil {
			t.Fatal(err)
		}
		// A failing metric is an error of the sync, and no failure of this test.
		_, _ = reconcileKey(controller, ctx, namespace+"/"+hpa.Name)
		if desired != now.Desired {
			t.Fatalf("%s, sync %d at %d s: the controller wants %d replicas of %d, the simulation %d", name, i, now.Now/1000, desired, now.Replicas, now.Desired)
		}
	}
	return len(lines)
}

func podsOf(now *line, start time.Time) []any {
	at := func(ms int64) metav1.Time { return metav1.NewTime(start.Add(time.Duration(ms) * time.Millisecond)) }
	var all []any
	for _, pod := range now.Pods {
		object := &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: podName(pod.Name), Namespace: namespace, Labels: map[string]string{"app": "replay"}},
			Status:     v1.PodStatus{Phase: v1.PodPhase(pod.Phase)},
		}
		if pod.Deleting {
			deleting := at(now.Now)
			object.DeletionTimestamp = &deleting
		}
		if pod.Started != nil {
			started := at(*pod.Started)
			object.Status.StartTime = &started
		}
		if pod.Ready != nil {
			status := v1.ConditionFalse
			if *pod.Ready {
				status = v1.ConditionTrue
			}
			object.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: status, LastTransitionTime: at(*pod.ReadySince)}}
		}
		if pod.Request != nil {
			request := v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(*pod.Request, resource.DecimalSI)}
			object.Spec.Containers = []v1.Container{{Name: "app", Resources: v1.ResourceRequirements{Requests: request}}}
		}
		all = append(all, object)
	}
	return all
}
